//! Thousands of connections that do nothing.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;

use crate::client::{call, post};
use crate::upstream::Mcp;
use crate::{QUIET, before};

const CROWD: usize = 5_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_idle_connections_do_not_keep_others_out() {
    let _quiet = QUIET.lock().await;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let proxy = before(Mcp::start("a").await.address);
    let mut idle = Vec::new();
    for _ in 0..CROWD {
        idle.push(TcpStream::connect(proxy.local_addr()).await.unwrap());
    }
    for n in 0..20 {
        let reply = post(proxy.local_addr(), &call(&n.to_string(), "echo", "{}"), "").await;
        assert_eq!(reply.json()["result"]["release"], "a");
    }
    drop(idle);
}
