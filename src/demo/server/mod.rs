//! A small but real MCP server for both protocol eras, which fails on command.
//!
//! [`settings`] come from the environment. Each connection serves the [`endpoint`], which parses
//! [`message`]s, keeps [`sessions`], calls [`tools`] and builds [`response`]s.

mod endpoint;
mod message;
mod response;
mod sessions;
mod settings;
mod tools;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::demo::fault::Fault;
use crate::demo::server::endpoint::McpEndpoint;
use crate::demo::server::settings::env_var;
pub use crate::demo::server::settings::{ScheduledFault, ServerSettings};
pub use crate::demo::server::tools::VERSION_KEY;
use crate::model::Moment;

/// Connections at once; others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// Longest time for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server with a crash loop runs after each start.
const CRASH_AFTER: Duration = Duration::from_millis(200);
/// How often the server checks that the demo which started it still runs.
const OWNER_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Why the server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By a signal, or because the demo that started it exited.
    Stopped,
    /// By its fault.
    Crashed,
}

/// Serves `/mcp` on the listener, until a crash loop ends it. Dropping the future closes every
/// connection.
pub async fn serve(listener: TcpListener, settings: ServerSettings) {
    let clock = Clock::start(Moment(0));
    let crash_timer = crash_timer_for(settings.fault, clock.now());
    let endpoint = Arc::new(McpEndpoint::new(settings, clock));
    tokio::select! {
        () = accept(listener, endpoint) => {}
        () = crash_timer => {}
    }
}

/// Runs a server on 127.0.0.1, with the settings of the environment, until SIGTERM.
///
/// Besides [`ServerSettings`] it reads `PORT` and `DEMO_OWNER`, a process: the server ends when that
/// process does.
///
/// # Errors
/// When a variable is wrong, or the port is not available.
pub async fn run() -> Result<End, String> {
    let mut signals = signal_hook_tokio::Signals::new([SIGTERM, SIGINT])
        .map_err(|error| format!("cannot listen for signals: {error}"))?;
    let settings = ServerSettings::from_env()?;
    let port = env_var("PORT").ok_or("PORT is not set; set it to the port to listen on")?;
    let port: u16 =
        port.parse().map_err(|_| format!("PORT is {port:?}; write a number from 1 to 65535"))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let owner = env_var("DEMO_OWNER").and_then(|pid| pid.parse().ok());
    tokio::select! {
        () = serve(listener, settings) => Ok(End::Crashed),
        _ = signals.next() => Ok(End::Stopped),
        () = owner_exited(owner) => Ok(End::Stopped),
    }
}

async fn crash_timer_for(fault: Option<ScheduledFault>, now: Moment) {
    match fault {
        Some(ScheduledFault { fault: Fault::CrashLoop, at }) if at > now => {
            sleep(at.since(now)).await
        }
        Some(ScheduledFault { fault: Fault::CrashLoop, .. }) => sleep(CRASH_AFTER).await,
        _ => std::future::pending().await,
    }
}

/// Returns when the demo exited: the server must not survive it, even if its daemon was killed.
async fn owner_exited(owner: Option<i32>) {
    let Some(owner) = owner.and_then(rustix::process::Pid::from_raw) else {
        return std::future::pending().await;
    };
    while rustix::process::test_kill_process(owner) != Err(rustix::io::Errno::SRCH) {
        sleep(OWNER_POLL_INTERVAL).await;
    }
}

async fn accept(listener: TcpListener, endpoint: Arc<McpEndpoint>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, Arc::clone(&endpoint)));
                }
                // Probably out of file descriptors, until connections end.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
        }
    }
}

async fn serve_connection(stream: tokio::net::TcpStream, endpoint: Arc<McpEndpoint>) {
    // Without it a response can wait 40 ms for an acknowledgement.
    let _: io::Result<()> = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let endpoint = Arc::clone(&endpoint);
        async move { Ok::<_, std::convert::Infallible>(endpoint.handle(request).await) }
    });
    // An error here is a client that disconnected.
    let _: hyper::Result<()> = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
