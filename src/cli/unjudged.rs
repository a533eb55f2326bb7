//! What passed a release and is no evidence about it, as lines of `status`.

use crate::model::Unjudged;

/// A line for each kind that there was.
pub(super) fn lines(unjudged: Unjudged) -> Vec<String> {
    let Unjudged { not_mcp, not_mcp_4xx, not_mcp_5xx, unread, own_shortage, rate_limited } =
        unjudged;
    let kinds = [
        (
            not_mcp,
            format!(
                "no MCP, not judged: {not_mcp} requests, {not_mcp_4xx} with 4xx, {not_mcp_5xx} with 5xx"
            ),
        ),
        (
            unread,
            format!("coded in a way that cannot be read, outcome unknown: {unread} responses"),
        ),
        (rate_limited, format!("status 429, the release limits the rate: {rate_limited} requests")),
        (
            own_shortage,
            format!("not judged, this host lacked files, ports or memory: {own_shortage} requests"),
        ),
    ];
    kinds.into_iter().filter(|(count, _)| *count > 0).map(|(_, line)| line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_has_a_line() {
        assert!(lines(Unjudged::default()).is_empty());
        let some = Unjudged { rate_limited: 3, own_shortage: 2, ..Unjudged::default() };
        let want = [
            "status 429, the release limits the rate: 3 requests",
            "not judged, this host lacked files, ports or memory: 2 requests",
        ];
        assert_eq!(lines(some), want);
    }
}
