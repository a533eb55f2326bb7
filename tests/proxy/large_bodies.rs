//! Large bodies and trailers.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake_backend::scripted;
use crate::http_client::{RawConnection, header};
use crate::{MEMORY_TEST_LOCK, RELEASE_A, proxy_to};

const MIB: usize = 1024 * 1024;
const SIZE: usize = 64 * MIB;

/// Memory of this process, in bytes.
pub(crate) fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Reads a head byte by byte, so that the body stays unread.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_stream_both_ways_in_bounded_memory() {
    let _quiet = MEMORY_TEST_LOCK.lock().await;
    // Echoes while it reads.
    let upstream = scripted(|mut stream| async move {
        let asked = read_head(&mut stream).await;
        assert_eq!(header(&asked, "content-length"), Some(SIZE.to_string().as_str()));
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {SIZE}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    })
    .await;
    let proxy = proxy_to(upstream);
    let stream = TcpStream::connect(proxy.local_addr()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let (start, end) = (r#"{"jsonrpc":"2.0","id":1,"result":{"x":""#, "\"},\"method\":\"x\"}");
    let before = resident_bytes();
    let sending = tokio::spawn(async move {
        let head =
            format!("POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SIZE}\r\n\r\n");
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(start.as_bytes()).await.unwrap();
        let mut left = SIZE - start.len() - end.len();
        let block = vec![b'x'; 256 * 1024];
        while left > 0 {
            let size = left.min(block.len());
            write.write_all(&block[..size]).await.unwrap();
            left -= size;
        }
        write.write_all(end.as_bytes()).await.unwrap();
        write
    });
    let (mut got, mut most, mut tail) = (0, 0, Vec::new());
    let mut block = vec![0; 256 * 1024];
    while !tail.ends_with(end.as_bytes()) {
        let size = tokio::time::timeout(Duration::from_secs(20), read.read(&mut block));
        let size = size.await.unwrap().unwrap();
        assert!(size > 0, "closed after {got} bytes");
        (got, most) = (got + size, most.max(resident_bytes()));
        tail = [&tail[tail.len().saturating_sub(64)..], &block[size.saturating_sub(64)..size]]
            .concat();
    }
    println!("64 MiB both ways: memory grew by {} KiB", most.saturating_sub(before) / 1024);
    assert!(got >= SIZE && most < before + 32 * MIB, "{got} {before} {most}");
    sending.await.unwrap();
    crate::wait_until(
        "one",
        || proxy.counts(RELEASE_A).ok == 1,
        || format!("{:?}", proxy.counts(RELEASE_A)),
    )
    .await;
}

#[tokio::test]
async fn trailers_are_forwarded_when_accepted() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTrailer: X-Sum\r\n\
        Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n";
    let upstream = crate::fake_backend::fixed_response(answer).await;
    let proxy = proxy_to(upstream);
    let mut wire = RawConnection::connect(proxy.local_addr()).await;
    wire.send("GET /file HTTP/1.1\r\nHost: localhost\r\nConnection: TE\r\nTE: trailers\r\n\r\n")
        .await;
    assert_eq!(wire.read_head().await.0, 200);
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        text.push_str(&wire.read_line().await);
    }
    assert_eq!(text.to_ascii_lowercase(), "3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n");
}
