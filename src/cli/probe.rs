//! `rollbackd probe`

use std::time::Duration;

use clap::Args;
use futures_util::StreamExt as _;
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::terminal::{Terminal, fit};
use crate::signal::{EndpointClient, EndpointRequest};

/// How long a response can take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The time between two lines of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Speak to an MCP server as a client does, once or again and again.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The endpoint, such as http://127.0.0.1:8080/mcp
    url: String,
    /// A tool to call; without it the server lists its tools.
    #[arg(long)]
    tool: Option<String>,
    /// The arguments of the tool, a JSON object.
    #[arg(long, value_name = "JSON", default_value = "{}", requires = "tool", value_parser = object)]
    arguments: Value,
    /// Go on until Ctrl-C, with a line each second.
    #[arg(long)]
    watch: bool,
    /// With --watch: requests a second, one after the other.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100), requires = "watch")]
    rate: u32,
    /// With --watch: open a new session each second. Otherwise all requests are in one.
    #[arg(long, requires = "watch")]
    reconnect: bool,
}

fn object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err("it is not an object; write one such as {\"message\": \"hello\"}".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Requests and their outcomes.
#[derive(Debug, Default)]
struct ProbeCounts {
    sent: u64,
    failed: u64,
    /// The last good answer, or the last failure if there was one.
    text: String,
}

pub(super) async fn run(options: Options) -> Exit {
    let request = match options.tool {
        Some(tool) => EndpointRequest::Call { tool, arguments: options.arguments },
        None => EndpointRequest::Probe,
    };
    let mut client = match EndpointClient::new(&options.url, TIMEOUT) {
        Ok(client) => client,
        Err(why) => {
            output::error_line(&why);
            return Exit::InvalidArguments;
        }
    };
    let mut watch =
        Watch { client: &mut client, request, rate: options.rate, reconnect: options.reconnect };
    let total = if options.watch {
        match watch.run().await {
            Ok(total) => total,
            Err(why) => {
                output::error_line(&why);
                return Exit::Failed;
            }
        }
    } else {
        let mut total = ProbeCounts::default();
        watch.ask(&mut total).await;
        print_line(if total.failed == 0 { "ok" } else { "FAILED" }, &total.text);
        total
    };
    client.close().await;
    if total.failed == 0 { Exit::Done } else { Exit::Failed }
}

/// Asks again and again.
struct Watch<'a> {
    client: &'a mut EndpointClient,
    request: EndpointRequest,
    rate: u32,
    reconnect: bool,
}

impl Watch<'_> {
    /// Prints a line a second until a signal, and then the sums.
    async fn run(&mut self) -> Result<ProbeCounts, String> {
        let mut signals = signal_hook_tokio::Signals::new([SIGTERM, SIGINT])
            .map_err(|error| format!("cannot listen for signals: {error}"))?;
        let mut ticks = interval(WATCH_INTERVAL / self.rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut total, mut second) = (ProbeCounts::default(), ProbeCounts::default());
        loop {
            tokio::select! {
                _ = signals.next() => break,
                () = self.step(&mut ticks, &mut second) => {}
            }
            if second.sent == u64::from(self.rate) {
                let ProbeCounts { sent, failed, text } = std::mem::take(&mut second);
                print_line(&format!("{} ok, {failed} failed", sent - failed), &text);
                total.sent += sent;
                total.failed += failed;
                if self.reconnect {
                    self.client.close().await;
                }
            }
        }
        let ProbeCounts { sent, failed, .. } = total;
        let lost = self.client.sessions_lost();
        print_line(&format!("{sent} requests, {failed} failed"), &format!("{lost} sessions lost"));
        Ok(total)
    }

    async fn step(&mut self, ticks: &mut Interval, second: &mut ProbeCounts) {
        ticks.tick().await;
        self.ask(second).await;
    }

    /// Sends one request.
    async fn ask(&mut self, counts: &mut ProbeCounts) {
        let answered = self.client.request(&self.request).await;
        counts.sent += 1;
        match answered {
            Ok(text) if counts.failed == 0 => counts.text = text,
            Ok(_) => {}
            Err(why) => {
                counts.failed += 1;
                counts.text = why;
            }
        }
    }
}

fn print_line(counts: &str, text: &str) {
    output::stdout_line(&fit(&format!("{counts}: {text}"), Terminal::stdout().width));
}
