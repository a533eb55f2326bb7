//! How long clients may keep what a release on trial lists.
//!
//! `ttlMs` (2026-07-28) lets a client keep a list for hours. Should the release go, the client would
//! call what is not there any more. So while a release is on trial, no hint is longer than a few
//! seconds; the rest of the answer stays as it is, byte for byte.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The longest hint of a release on trial, in milliseconds.
const TTL_MAX: u32 = 5000;

/// Whether an answer to this method may carry a hint.
pub(crate) fn may_carry_ttl(method: &str) -> bool {
    matches!(method, "server/discover" | "resources/read") || method.ends_with("/list")
}

/// The answer with a shorter hint; `None` where it has none that is too long.
pub(crate) fn clamp_ttl(message: &[u8]) -> Option<Vec<u8>> {
    let Range { start, end } = find_long_ttl(message)?;
    let mut out = message.get(..start)?.to_vec();
    out.extend(TTL_MAX.to_string().bytes());
    out.extend(message.get(end..)?);
    Some(out)
}

/// Where a hint stands that is too long.
fn find_long_ttl(message: &[u8]) -> Option<Range<usize>> {
    #[derive(Deserialize)]
    struct ListResponse<'a> {
        #[serde(borrow)]
        result: CacheableResult<'a>,
    }
    #[derive(Deserialize)]
    struct CacheableResult<'a> {
        #[serde(borrow, rename = "ttlMs")]
        ttl: &'a RawValue,
    }
    memchr::memmem::find(message, b"\"ttlMs\"")?;
    let ttl = serde_json::from_slice::<ListResponse<'_>>(message).ok()?.result.ttl.get();
    if ttl.parse::<f64>().ok()? <= f64::from(TTL_MAX) {
        return None;
    }
    // It is a piece of the message, so the distance of their addresses is its place.
    let start = ttl.as_ptr().addr().checked_sub(message.as_ptr().addr())?;
    Some(start..start + ttl.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_hint_is_shortened_and_nothing_else_changes() {
        let original = r#"{"id":1, "result":{"tools":[{"ttlMs":9e9}],"ttlMs": 3600000 ,"x":1.0}}"#;
        let shortened = clamp_ttl(original.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(shortened).unwrap(), original.replace("3600000", "5000"));
        for unchanged in [
            r#"{"id":1,"result":{"ttlMs":5000}}"#,
            r#"{"id":1,"result":{"ttlMs":"x"}}"#,
            r#"{"id":1,"result":{"tools":[{"ttlMs":9000}]}}"#,
            r#"{"id":1,"error":{"ttlMs":9000}}"#,
            r#"{"id":1,"result":{"ttlMs":9000}"#,
            "[]",
        ] {
            assert_eq!(clamp_ttl(unchanged.as_bytes()), None, "{unchanged}");
        }
    }

    #[test]
    fn lists_reads_and_discoveries_carry_hints() {
        for method in
            ["server/discover", "tools/list", "resources/templates/list", "resources/read"]
        {
            assert!(may_carry_ttl(method));
        }
        assert!(!may_carry_ttl("tools/call"));
    }
}
