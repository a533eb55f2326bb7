//! Limits how long clients cache the lists of a release on trial.
//!
//! `ttlMs` (2026-07-28) lets a client cache a list for hours. After a rollback the client would call
//! tools that no longer exist. So while a release is on trial, the proxy shortens the hint to
//! [`TTL_MAX`] and leaves the rest of the response byte for byte as it is. Compressed bodies and
//! SSE events over 1 MiB pass unchanged.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The longest `ttlMs` of a release on trial, in milliseconds.
const TTL_MAX: u32 = 5000;

/// The response with `ttlMs` shortened; `None` if it has none above [`TTL_MAX`].
pub(crate) fn clamp_ttl(message: &[u8]) -> Option<Vec<u8>> {
    let Range { start, end } = find_long_ttl(message)?;
    let mut out = message.get(..start)?.to_vec();
    out.extend(TTL_MAX.to_string().bytes());
    out.extend(message.get(end..)?);
    Some(out)
}

/// The range of a `ttlMs` value above [`TTL_MAX`].
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
    let text = message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message);
    let ttl = serde_json::from_slice::<ListResponse<'_>>(text).ok()?.result.ttl.get();
    if ttl.parse::<f64>().ok()? <= f64::from(TTL_MAX) {
        return None;
    }
    // The value borrows from the message, so the difference of the addresses is its offset.
    let start = ttl.as_ptr().addr().checked_sub(message.as_ptr().addr())?;
    Some(start..start + ttl.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_ttl_is_shortened_and_nothing_else_changes() {
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
}
