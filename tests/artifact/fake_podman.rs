use rollbackd::artifact::{ArtifactKind, Podman, Verifier, VerifyError, resolve};
use rollbackd::model::ReleaseNumber;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

const IMAGE: &str =
    "localhost/weather@sha256:46e1f5615905a1697fa5c1de3d6c0f45a0d9b6a5a1ed7dbd7c60760654dc1aef";

/// Something that gives each request the same answer, or none.
fn fake_podman(answer: Option<Vec<u8>>) -> (TempDir, Podman) {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("podman.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let Some(answer) = &answer else {
                silent.push(stream);
                continue;
            };
            _ = stream.read(&mut [0; 4096]).await;
            _ = stream.write_all(answer).await;
        }
    });
    (home, Podman::new(&socket).unwrap())
}

fn http_response(status: &str, body: &str) -> Option<Vec<u8>> {
    let length = body.len();
    let text =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    Some([text.as_bytes(), body.as_bytes()].concat())
}

/// The error for such an answer: never that the image is missing, or present.
async fn resolve_error(answer: Option<Vec<u8>>) -> String {
    let (_home, podman) = fake_podman(answer);
    let digest = IMAGE.split_once('@').unwrap().1.parse().unwrap();
    let doubt = Verifier::new(IMAGE, digest, Some(podman.clone())).verify().await.unwrap_err();
    let VerifyError::Unreadable { why, .. } = doubt else { panic!("{doubt}") };
    assert_eq!(resolve(ArtifactKind::Image, IMAGE, Some(&podman)).await.unwrap_err(), why);
    why
}

#[tokio::test]
async fn invalid_podman_response_is_an_error() {
    let large = "[".repeat(5 << 20);
    for (status, body) in [
        ("404 Not Found", "<html>404 page not found</html>"),
        ("404 Not Found", "{\"message\":\"page not found\"}"),
        ("200 OK", "OK"),
        ("200 OK", ""),
        ("200 OK", "{\"Id\":\"12\"}"),
        ("200 OK", &large),
        ("200 OK", &large[..100_000]),
        ("302 Found", ""),
    ] {
        let said = resolve_error(http_response(status, body)).await;
        assert!(said.contains("does not answer as podman 4 or later does"), "{said}");
    }
    let broken =
        resolve_error(Some(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}".to_vec())).await;
    assert!(broken.starts_with("podman broke off at /"), "{broken}");
    resolve_error(Some(b"no HTTP\r\n\r\n".to_vec())).await;
    resolve_error(Some(Vec::new())).await;
}

#[tokio::test]
async fn podman_error_is_shortened_to_one_line() {
    let body = format!("{{\"message\":\"no\\nspace {}\",\"response\":500}}", "x".repeat(9999));
    let said = resolve_error(http_response("500 Internal Server Error", &body)).await;
    assert!(said.starts_with("podman answered 500: no space xxx"), "{said}");
    assert!(said.len() < 400, "{said}");
    let (_home, podman) =
        fake_podman(http_response("409 Conflict", "{\"message\":\"in use\",\"response\":409}"));
    let said = podman.pin("weather", ReleaseNumber(1), IMAGE).await.unwrap_err();
    assert_eq!(said, "podman answered 409: in use");
    assert_eq!(podman.unpin_except("weather", &[]).await.unwrap_err(), said);
}

#[tokio::test]
async fn podman_timeout_and_missing_socket_are_distinguished() {
    let silent = resolve_error(None).await;
    assert!(silent.contains("within 10 s"), "{silent}");
    let home = tempfile::tempdir().unwrap();
    let podman = Podman::new(&home.path().join("none.sock")).unwrap();
    let said = resolve(ArtifactKind::Image, IMAGE, Some(&podman)).await.unwrap_err();
    assert!(said.starts_with("podman does not listen at /"), "{said}");
}
