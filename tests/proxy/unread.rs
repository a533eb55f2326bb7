//! A client that reads nothing of a large response while the proxy shuts down.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rollbackd::model::Moment;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use crate::fake_backend::{SSE_HEAD, read_request, scripted};
use crate::http_client::{RawConnection, open_request, tool_call};
use crate::{MEMORY_TEST_LOCK, RELEASE_A, wait_until};

/// Much more than all buffers on the path hold.
const LARGE: usize = 80 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_millis(50);

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Counts the panics of this thread from now on. All tasks of a test run on the thread of the test.
fn count_panics() {
    PANICS.set(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.set(PANICS.get() + 1);
        before(info);
    }));
}

/// A release with a large response, and the number of bytes read from it.
async fn large(events: bool) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let address = scripted(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            read_request(&mut stream).await;
            let head = match events {
                true => SSE_HEAD.to_owned(),
                false => format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                     Content-Length: {LARGE}\r\n\r\n"
                ),
            };
            let _ = stream.write_all(head.as_bytes()).await;
            let piece =
                if events { format!(": {}\n\n", "x".repeat(996)) } else { " ".repeat(1000) };
            while count.load(Ordering::Relaxed) < LARGE
                && stream.write_all(piece.as_bytes()).await.is_ok()
            {
                count.fetch_add(piece.len(), Ordering::Relaxed);
            }
        }
    })
    .await;
    (address, taken)
}

/// Waits until the number stands still.
async fn stalled(taken: &AtomicUsize) {
    let (mut last, mut same) = (0, 0);
    let stands = || {
        let now = taken.load(Ordering::Relaxed);
        same = if 0 < now && now == last { same + 1 } else { 0 };
        last = now;
        same > 5
    };
    wait_until("it stalls", stands, String::new).await;
    assert!(taken.load(Ordering::Relaxed) < LARGE);
}

#[tokio::test]
async fn no_task_panics_when_all_have_to_go() {
    let _quiet = MEMORY_TEST_LOCK.lock().await;
    count_panics();
    for (events, hand_over) in [(false, true), (true, true), (false, false), (true, false)] {
        let (release, taken) = large(events).await;
        // A handover waits for the response until its client has not read for this long.
        let unread_timeout = Duration::from_secs(2);
        let proxy = crate::proxy_with(release, |it| it.limits.unread_timeout = unread_timeout);
        let client: RawConnection =
            open_request(proxy.local_addr(), &tool_call("1", "echo", "{}"), "").await;
        stalled(&taken).await;
        if hand_over {
            proxy.drain_connections(PATIENCE, &CancellationToken::new()).await;
        } else {
            proxy.close_gracefully(PATIENCE, false).await;
            proxy.shut_down().await;
        }
        let open = || proxy.load(RELEASE_A, Moment(0)).in_flight;
        wait_until("its connection ends", || open() == 0, || open().to_string()).await;
        assert_eq!(PANICS.get(), 0, "events: {events}, hand over: {hand_over}");
        drop(client);
    }
}

#[tokio::test]
async fn a_response_that_its_client_does_not_read_ends() {
    // On HTTP/1 the connection closes.
    let (address, _) = large(true).await;
    let proxy =
        crate::proxy_with(address, |it| it.limits.unread_timeout = Duration::from_millis(400));
    let _client = open_request(proxy.local_addr(), &tool_call("1", "echo", "{}"), "").await;
    let in_flight = || proxy.load(RELEASE_A, Moment(0)).in_flight;
    wait_until("open", || in_flight() == 1, || in_flight().to_string()).await;
    wait_until("ended", || in_flight() == 0, || in_flight().to_string()).await;
}

#[tokio::test]
async fn an_unread_http2_stream_ends_alone() {
    let (address, _) = large(true).await;
    let proxy =
        crate::proxy_with(address, |it| it.limits.unread_timeout = Duration::from_millis(400));
    let stream = tokio::net::TcpStream::connect(proxy.local_addr()).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let uri = format!("http://{}/mcp", proxy.local_addr());
    let mut call = || {
        let request = http::Request::post(&uri).header("content-type", "application/json");
        let body = http_body_util::Full::new(bytes::Bytes::from(tool_call("1", "echo", "{}")));
        client.send_request(request.body(body).unwrap())
    };
    let unread = call().await.unwrap();
    let in_flight = || proxy.load(RELEASE_A, Moment(0)).in_flight;
    wait_until("open", || in_flight() == 1, || in_flight().to_string()).await;
    wait_until("ended", || in_flight() == 0, || in_flight().to_string()).await;
    assert_eq!(call().await.unwrap().status(), 200, "the connection is still good");
    drop(unread);
}
