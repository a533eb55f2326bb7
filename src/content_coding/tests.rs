use async_compression::tokio::write::{
    BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder,
};
use http_body_util::{BodyExt as _, StreamBody};
use tokio::io::AsyncWriteExt as _;

use super::*;

/// The codings, with the names that servers give them.
async fn coded(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    macro_rules! with {
        ($encoder:ident) => {{
            let mut encoder = $encoder::new(Vec::new());
            encoder.write_all(text).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }};
    }
    vec![
        ("gzip", with!(GzipEncoder)),
        ("X-GZIP", with!(GzipEncoder)),
        ("deflate", with!(ZlibEncoder)),
        ("deflate", with!(DeflateEncoder)),
        ("br", with!(BrotliEncoder)),
        ("identity, zstd", with!(ZstdEncoder)),
    ]
}

fn headers(coding: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-encoding", coding),
        ("content-length", "5"),
        ("content-type", "application/json"),
        ("etag", "\"a\""),
        ("repr-digest", "x"),
        ("vary", "accept-encoding"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

async fn decoded(coding: &'static str, body: &[u8], piece: usize) -> io::Result<Vec<u8>> {
    let pieces: Vec<_> = body.chunks(piece).map(Bytes::copy_from_slice).collect();
    let frames = pieces.into_iter().map(|it| Ok::<_, io::Error>(Frame::data(it)));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let body = decode(StatusCode::OK, &mut headers(coding), body);
    body.collect().await.map(|it| it.to_bytes().to_vec())
}

#[tokio::test]
async fn each_coding_is_decoded_however_its_pieces_fall() {
    let text = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.repeat(3_000);
    for (coding, body) in coded(text.as_bytes()).await {
        for piece in [1, 7, 100_000] {
            assert_eq!(decoded(coding, &body, piece).await.unwrap(), text.as_bytes(), "{coding}");
        }
    }
}

#[tokio::test]
async fn several_members_are_one_body() {
    for (coding, body) in coded(b"abc").await.into_iter().filter(|it| it.0.contains('z')) {
        assert_eq!(decoded(coding, &body.repeat(2), 3).await.unwrap(), b"abcabc", "{coding}");
    }
}

#[tokio::test]
async fn what_is_broken_or_cut_is_an_error() {
    let text: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
    for (coding, body) in coded(&text).await {
        let half = body.get(..body.len() / 2).unwrap();
        assert!(decoded(coding, half, 100).await.is_err(), "{coding}");
        let error = decoded(coding, b"\xff\xffno", 100).await.unwrap_err();
        assert!(!is_over_limit(&error), "{coding}");
    }
}

/// A few kilobytes that become gigabytes. Deflate cannot.
#[tokio::test]
async fn a_body_that_grows_without_end_is_an_error_of_its_own() {
    let zeros = vec![0; 40 << 20];
    for (coding, body) in coded(&zeros).await {
        let grows = body.len() * 1_100 < zeros.len();
        let end = decoded(coding, &body, 100_000).await;
        assert_eq!(end.is_err_and(|error| is_over_limit(&error)), grows, "{coding}");
    }
}

#[test]
fn the_headers_describe_the_decoded_body() {
    let full = || http_body_util::Full::new(Bytes::from_static(b"x"));
    let mut head = headers("gzip");
    assert!(matches!(decode(StatusCode::OK, &mut head, full()), PlainBody::Decoded(_)));
    let mut names: Vec<_> = head.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "etag", "vary"]);
    assert_eq!(head[header::ETAG], "W/\"a\"");
    for coding in ["compress", "gzip, br", "identity", ""] {
        let (mut head, before) = (headers(coding), headers(coding));
        assert!(matches!(decode(StatusCode::OK, &mut head, full()), PlainBody::AsSent(_)));
        assert_eq!(head, before, "{coding}");
    }
    let (mut head, before) = (headers("gzip"), headers("gzip"));
    let part = decode(StatusCode::PARTIAL_CONTENT, &mut head, full());
    assert!(matches!(part, PlainBody::AsSent(_)));
    let none = http_body_util::Empty::<Bytes>::new();
    assert!(matches!(decode(StatusCode::OK, &mut head, none), PlainBody::AsSent(_)));
    assert_eq!(head, before);
}
