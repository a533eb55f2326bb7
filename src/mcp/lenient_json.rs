//! Reads JSON as lenient as the official SDKs do: with a byte order mark, which servers on .NET write,
//! and with NaN and Infinity, which those in Python write.

use serde_json::Value;

/// The byte order mark, which some clients and servers write first.
pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";
/// Numbers that JSON does not have.
const NOT_FINITE: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// A document. Numbers that JSON does not have become `null`.
///
/// # Errors
/// When it is no JSON all the same.
pub(crate) fn parse(text: &[u8]) -> serde_json::Result<Value> {
    let text = without_bom(text);
    serde_json::from_slice(text).or_else(|error| {
        let finite = without_infinite(text);
        finite.ok_or(error).and_then(|finite| serde_json::from_slice(&finite))
    })
}

/// The text after its byte order mark.
pub(crate) fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(BOM).unwrap_or(text)
}

/// The text with `null` in place of NaN and Infinity; `None` if it has none.
fn without_infinite(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut rest, mut in_string, mut found) = (text, false, false);
    while let Some((first, after)) = rest.split_first() {
        let token = NOT_FINITE.iter().find(|token| !in_string && rest.starts_with(token));
        if let Some(token) = token {
            out.extend_from_slice(b"null");
            rest = rest.get(token.len()..).unwrap_or_default();
            found = true;
            continue;
        }
        out.push(*first);
        rest = after;
        match first {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                if let Some((escaped, after)) = rest.split_first() {
                    out.push(*escaped);
                    rest = after;
                }
            }
            _ => (),
        }
    }
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_official_sdks_read_is_read() {
        let read = |text: &str| parse(text.as_bytes()).ok();
        assert_eq!(read("\u{feff}{\"a\":1}"), Some(json!({"a": 1})));
        let text = r#"{"a":[NaN,-Infinity , Infinity,-1],"b\"NaN":"Infinity\\","c":NaN}"#;
        let want = json!({"a": [null, null, null, -1], "b\"NaN": "Infinity\\", "c": null});
        assert_eq!(read(text), Some(want));
        for text in ["NaNa", "{\"a\":--Infinity}", "{", "\u{feff}\u{feff}1", "{\"a\":\"NaN}"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
