use proptest::prelude::*;

use super::*;

fn scan(chunks: &[&[u8]]) -> (Vec<Message>, bool) {
    let (mut scan, mut found) = (Scan::default(), Vec::new());
    for chunk in chunks {
        scan.feed(chunk, |message| found.push(message));
    }
    (found, scan.step == Step::Done)
}

fn one(text: &str) -> Message {
    let (found, complete) = scan(&[text.as_bytes()]);
    assert!(complete, "{text}");
    found.into_iter().next().unwrap()
}

#[test]
fn picks_out_a_request() {
    let message =
        one(r#"{"params":{"arguments":{"name":"no","id":1},"name":"echo","_meta":[{"x":"}\""}]},
           "jsonrpc":"2.0", "method" : "tools/call","id":"a-7"}"#);
    assert_eq!(message.method.as_deref(), Some("tools/call"));
    assert_eq!(message.name.as_deref(), Some("echo"));
    assert_eq!(message.id.as_deref(), Some("\"a-7\""));
    assert!(!message.is_answer());
}

#[test]
fn picks_out_answers() {
    let fault = one(r#"{"jsonrpc":"2.0","id":3,"error":{"message":"x","code":-32603}}"#);
    assert_eq!((fault.code, fault.error, fault.id.as_deref()), (Some(-32603), true, Some("3")));
    let tool = one(r#"{"id":3,"result":{"content":[{"isError":false}],"isError": true}}"#);
    assert!(tool.is_error && tool.result && !tool.error);
    let plain = one(r#"{"id":3,"result":[1,2]}"#);
    assert!(plain.result && !plain.is_error);
    let null = one(r#"{"id":null,"result":null,"error":null}"#);
    assert!(null.result && !null.error && null.id.is_none());
    assert!(one(r#"{"result":{"resultType":"input_required"},"id":1}"#).input_required);
}

#[test]
fn reads_batches_and_refuses_what_is_no_message() {
    assert_eq!(scan(&[br#"[{"id":1},{"method":"x"}] "#]).0.len(), 2);
    for text in ["", "x", "{", "[1]", "{}[]", "[]{}", "{\"a\" 1}", "nonsense", "[{}", "{1:2}"] {
        assert!(!scan(&[text.as_bytes()]).1, "{text}");
    }
    assert!(scan(&[b"[]"]).1);
    assert_eq!(scan(&[br#"{"method":"x"} "#, br#"{"id":1}"#]).0.len(), 2);
}

#[test]
fn depth_and_size_cost_no_memory() {
    let deep = format!(r#"{{"a":{}{},"id":5}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(one(&deep).id.as_deref(), Some("5"));
    let long = format!(r#"{{"method":"{}","id":5}}"#, "m".repeat(1 << 20));
    assert_eq!(one(&long).method, None);
}

proptest! {
    #[test]
    fn never_panics(bytes: Vec<u8>) {
        scan(&[&bytes]);
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
        prop_assert_eq!(scan(&chunks), scan(&[bytes]));
        prop_assert_eq!(one(&text).id, Some(id.to_string().into_boxed_str()));
    }
}
