//! Thousands of idle connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;

use crate::fake_backend::FakeMcpServer;
use crate::http_client::{post, tool_call};
use crate::{MEMORY_TEST_LOCK, proxy_to};

const CONNECTIONS: usize = 5_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_do_not_block_new_ones() {
    let _quiet = MEMORY_TEST_LOCK.lock().await;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let proxy = proxy_to(FakeMcpServer::start("a").await.address);
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(TcpStream::connect(proxy.local_addr()).await.unwrap());
    }
    for n in 0..20 {
        let reply = post(proxy.local_addr(), &tool_call(&n.to_string(), "echo", "{}"), "").await;
        assert_eq!(reply.json()["result"]["release"], "a");
    }
    drop(idle);
}
