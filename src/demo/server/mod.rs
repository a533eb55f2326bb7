//! A small but real MCP server, of both protocol eras, that fails on command.

mod endpoint;
mod message;
mod response;
mod sessions;
mod tools;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
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
use crate::demo::Fault;
use crate::demo::server::endpoint::McpEndpoint;
pub use crate::demo::server::tools::VERSION_KEY;
use crate::model::Moment;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// How long a client may take over the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a crash-looping server runs after it was started anew.
const CRASH_AFTER: Duration = Duration::from_millis(200);
/// How often a server looks whether the demo that it belongs to is still there.
const OWNER_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// What one demo server is, and when it goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSettings {
    /// Its version, as its clients see it.
    pub version: String,
    /// What it does wrong, and from which moment of the wall's clock on.
    pub fault: Option<(Fault, Moment)>,
    /// A tool that it does not list.
    pub hidden_tool: Option<String>,
}

/// The verb `demo-server`: a server on 127.0.0.1 as the environment says, until SIGTERM.
///
/// Reads `PORT`, `ROLLBACKD_VERSION`, `DEMO_FAULT`, `DEMO_FAULT_AT` (Unix time in milliseconds; at
/// once by default), `DEMO_WITHOUT` (a tool that it does not list) and `DEMO_OWNER` (a process id:
/// the server ends when that process does).
#[expect(clippy::print_stderr, reason = "a verb prints")]
pub async fn main() -> ExitCode {
    match run().await {
        Ok(code) => code,
        Err(why) => {
            eprintln!("demo-server: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Serves `/mcp` on the listener. Returns only when a crash loop makes it end; whoever wants it to
/// end earlier drops the future, which closes every connection.
pub async fn serve(listener: TcpListener, settings: ServerSettings) {
    let clock = Clock::start(Moment(0));
    let crash_timer = crash_timer_for(settings.fault, clock.now());
    let endpoint = Arc::new(McpEndpoint::new(settings, clock));
    tokio::select! {
        () = accept(listener, endpoint) => {}
        () = crash_timer => {}
    }
}

async fn run() -> Result<ExitCode, String> {
    let mut signals = signal_hook_tokio::Signals::new([SIGTERM, SIGINT])
        .map_err(|error| format!("can not listen for signals: {error}"))?;
    let settings = ServerSettings {
        version: env_var("ROLLBACKD_VERSION").unwrap_or_else(|| "dev".to_owned()),
        fault: fault_from_env()?,
        hidden_tool: env_var("DEMO_WITHOUT"),
    };
    let port = env_var("PORT").ok_or("PORT is not set; set it to the port to listen on")?;
    let port: u16 = port
        .parse()
        .map_err(|_| format!("PORT is {port:?}; it has to be a number from 1 to 65535"))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("can not listen on {address}: {error}"))?;
    let owner = env_var("DEMO_OWNER").and_then(|pid| pid.parse().ok());
    tokio::select! {
        () = serve(listener, settings) => Ok(ExitCode::FAILURE),
        _ = signals.next() => Ok(ExitCode::SUCCESS),
        () = owner_exited(owner) => Ok(ExitCode::SUCCESS),
    }
}

fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn fault_from_env() -> Result<Option<(Fault, Moment)>, String> {
    let Some(fault) = env_var("DEMO_FAULT") else { return Ok(None) };
    let fault = fault.parse().map_err(|why| format!("DEMO_FAULT: {why}"))?;
    let at = env_var("DEMO_FAULT_AT").unwrap_or_else(|| "0".to_owned());
    let at = at.parse().map_err(|_| {
        format!("DEMO_FAULT_AT is {at:?}; it has to be a Unix time in whole milliseconds")
    })?;
    Ok(Some((fault, Moment(at))))
}

async fn crash_timer_for(fault: Option<(Fault, Moment)>, now: Moment) {
    match fault {
        Some((Fault::CrashLoop, at)) if at > now => sleep(at.since(now)).await,
        Some((Fault::CrashLoop, _)) => sleep(CRASH_AFTER).await,
        _ => std::future::pending().await,
    }
}

/// Ends when the demo is gone, so that nothing is left behind even when its daemon was killed.
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
                // Out of file descriptors, most likely: some come back when connections end.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
        }
    }
}

async fn serve_connection(stream: tokio::net::TcpStream, endpoint: Arc<McpEndpoint>) {
    // Without it an answer may wait 40 ms for an acknowledgement; with an error it merely does.
    let _: io::Result<()> = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let endpoint = Arc::clone(&endpoint);
        async move { Ok::<_, std::convert::Infallible>(endpoint.handle(request).await) }
    });
    // An error here is a client that left.
    let _: hyper::Result<()> = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
