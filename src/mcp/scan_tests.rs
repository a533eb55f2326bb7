use proptest::prelude::*;

use super::*;

fn scan_chunks(chunks: &[&[u8]]) -> (Vec<Message>, bool) {
    let (mut scanner, mut found) = (MessageScanner::default(), Vec::new());
    for chunk in chunks {
        scanner.feed(chunk, |message| found.push(message));
    }
    (found, scanner.expect == Expect::Done)
}

fn scan_one(text: &str) -> Message {
    let (found, complete) = scan_chunks(&[text.as_bytes()]);
    assert!(complete, "{text}");
    found.into_iter().next().unwrap()
}

#[test]
fn picks_out_a_request() {
    let message = scan_one(
        r#"{"params":{"arguments":{"name":"no","id":1},"name":"echo","_meta":[{"x":"}\""}]},
           "jsonrpc":"2.0", "method" : "tools/call","id":"a-7"}"#,
    );
    assert_eq!(message.method.as_deref(), Some("tools/call"));
    assert_eq!(message.name.as_deref(), Some("echo"));
    assert_eq!(message.id.as_deref(), Some("\"a-7\""));
    assert!(!message.is_response());
}

#[test]
fn picks_out_answers() {
    let error = scan_one(r#"{"jsonrpc":"2.0","id":3,"error":{"message":"x","code":-32603}}"#);
    assert_eq!(
        (error.error_code, error.has_error, error.id.as_deref()),
        (Some(-32603), true, Some("3"))
    );
    let tool = scan_one(r#"{"id":3,"result":{"content":[{"isError":false}],"isError": true}}"#);
    assert!(tool.is_tool_error && tool.has_result && !tool.has_error);
    let plain = scan_one(r#"{"id":3,"result":[1,2]}"#);
    assert!(plain.has_result && !plain.is_tool_error);
    let null = scan_one(r#"{"id":null,"result":null,"error":null}"#);
    assert!(null.has_result && !null.has_error && null.id.is_none());
    assert!(scan_one(r#"{"result":{"resultType":"input_required"},"id":1}"#).input_required);
}

#[test]
fn reads_batches_and_refuses_what_is_no_message() {
    assert_eq!(scan_chunks(&[br#"[{"id":1},{"method":"x"}] "#]).0.len(), 2);
    for text in ["", "x", "{", "[1]", "{}[]", "[]{}", "{\"a\" 1}", "nonsense", "[{}", "{1:2}"] {
        assert!(!scan_chunks(&[text.as_bytes()]).1, "{text}");
    }
    assert!(scan_chunks(&[b"[]"]).1);
    assert_eq!(scan_chunks(&[br#"{"method":"x"} "#, br#"{"id":1}"#]).0.len(), 2);
}

#[test]
fn depth_and_size_cost_no_memory() {
    let deep = format!(r#"{{"a":{}{},"id":5}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(scan_one(&deep).id.as_deref(), Some("5"));
    let long = format!(r#"{{"method":"{}","id":5}}"#, "m".repeat(1 << 20));
    assert_eq!(scan_one(&long).method, None);
}

proptest! {
    #[test]
    fn never_panics(bytes: Vec<u8>) {
        scan_chunks(&[&bytes]);
    }

    #[test]
    fn chunks_make_no_difference(
        id in 0..1000_u32,
        name in "[a-z\"\\\\\u{e4}]{0,12}",
        cuts in proptest::collection::vec(0..400_usize, 0..6),
    ) {
        let text = serde_json::json!({
            "jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {"name": name, "arguments": {"a": [name, {"b": [[], {}]}]}},
        })
        .to_string();
        let bytes = text.as_bytes();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % bytes.len()).collect();
        cuts.sort_unstable();
        let mut from = 0;
        let mut chunks = Vec::new();
        for cut in cuts {
            chunks.push(&bytes[from..cut]);
            from = cut;
        }
        chunks.push(&bytes[from..]);
        prop_assert_eq!(scan_chunks(&chunks), scan_chunks(&[bytes]));
        prop_assert_eq!(scan_one(&text).id, Some(id.to_string().into_boxed_str()));
    }
}

#[test]
fn the_content_of_a_result_is_measured() {
    let bytes = |result: &str| {
        let text = format!(r#"{{"jsonrpc":"2.0","result":{result},"id":1}}"#);
        let whole = scan_one(&text).content_bytes;
        let pieces: Vec<_> = text.as_bytes().chunks(3).collect();
        assert_eq!(scan_chunks(&pieces).0[0].content_bytes, whole, "{text}");
        whole
    };
    for (result, expected) in [
        ("{}", None),
        (r#"{"_meta":{"a":[1]},"nextCursor":"x"}"#, None),
        (r#"{"content":[]}"#, Some(0)),
        (r#"{"content":[{"type":"text","text":""}],"structuredContent":{"result":[]}}"#, Some(0)),
        (r#"{"content":[],"structuredContent":{"n":1}}"#, Some(7)),
        (r#"{"tools":[{"name":"a"}]}"#, Some(14)),
        (r#"{"content":null}"#, Some(0)),
        (r#"{"content":"text"}"#, Some(4)),
        (r#"{"other":{"content":[1]}}"#, None),
    ] {
        assert_eq!(bytes(result), expected, "{result}");
    }
    assert_eq!(scan_one(r#"{"params":{"content":[1]},"method":"x"}"#).content_bytes, None);
}
