//! The clients of the demo: steady traffic on the public address, and its statistics.
//!
//! [`mcp_client`] sends requests, [`sessions`] and [`subscription`] keep streams open, and each of
//! them records outcomes in [`statistics`].

mod mcp_client;
mod sessions;
mod statistics;
mod subscription;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::clock::Clock;
use crate::demo::traffic::mcp_client::{McpClient, McpRequest};
use crate::demo::traffic::sessions::LongSession;
use crate::demo::traffic::statistics::Statistics;
pub use crate::demo::traffic::statistics::{
    FailedRequest, LiveCounts, SessionCounts, TrafficReport,
};
use crate::model::Moment;

/// Most requests in flight. Above it, a request is not sent but counted.
const IN_FLIGHT_MAX: usize = 512;
/// Sessions that last as long as the traffic. Half of them begin with it, the others when the
/// second release has the traffic.
const LONG_SESSIONS: usize = 16;
/// Streams of `subscriptions/listen`.
const SUBSCRIPTIONS: usize = 2;
/// How long the end waits for responses: longer than one request takes.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);

/// Running clients. They stop when this is dropped.
#[derive(Debug)]
pub struct TrafficGenerator {
    stop: watch::Sender<bool>,
    second_wave: watch::Sender<bool>,
    statistics: Arc<Statistics>,
    driver: JoinHandle<()>,
}

impl TrafficGenerator {
    /// Sends `rate` requests a second to `http://address/mcp`, without waiting for responses.
    pub fn start(address: SocketAddr, rate: u32, clock: Clock) -> Self {
        let (stop, stop_signal) = watch::channel(false);
        let statistics = Arc::new(Statistics::new(clock));
        let client = Arc::new(McpClient::new(address, Arc::clone(&statistics)));
        let (second_wave, second_wave_signal) = watch::channel(false);
        let driver = tokio::spawn(generate(client, rate, stop_signal, second_wave_signal));
        Self { stop, second_wave, statistics, driver }
    }

    /// Starts the sessions that wait for the second release.
    pub fn start_second_wave(&self) {
        self.second_wave.send_replace(true);
    }

    /// Counts what the clients saw until it is called.
    pub fn counter(&self) -> impl Fn() -> LiveCounts + use<> {
        let statistics = Arc::clone(&self.statistics);
        move || statistics.counts()
    }

    /// Lists the failed requests until it is called.
    pub fn failures(&self) -> impl Fn() -> Vec<FailedRequest> + use<> {
        let statistics = Arc::clone(&self.statistics);
        move || statistics.failures()
    }

    /// Stops sending, waits for the responses, and pings each session; at most 12 s. `deployed` is
    /// when the deploy of the report began.
    pub async fn stop(mut self, deployed: Moment) -> TrafficReport {
        self.stop.send_replace(true);
        // A response that is still missing then is recorded as bad, or not at all.
        let _: Result<_, _> = timeout(DRAIN_TIMEOUT * 2, &mut self.driver).await;
        self.statistics.report(deployed)
    }
}

impl Drop for TrafficGenerator {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn generate(
    client: Arc<McpClient>,
    rate: u32,
    mut stop_signal: watch::Receiver<bool>,
    second_wave_signal: watch::Receiver<bool>,
) {
    let mut background = JoinSet::new();
    let long_sessions = Vec::from_iter((0..LONG_SESSIONS).map(|_| Arc::<LongSession>::default()));
    for (number, session) in long_sessions.iter().enumerate() {
        let (client, session) = (Arc::clone(&client), Arc::clone(session));
        let mut second_wave_signal = second_wave_signal.clone();
        background.spawn(async move {
            if number < LONG_SESSIONS / 2 || second_wave_signal.wait_for(|it| *it).await.is_ok() {
                sessions::maintain(client, session).await;
            }
        });
    }
    for _ in 0..SUBSCRIPTIONS {
        background.spawn(subscription::maintain(Arc::clone(&client)));
    }
    let mut in_flight = JoinSet::new();
    let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut request_ticks = interval(Duration::from_secs(1) / rate.max(1));
    request_ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut session_ticks = interval(Duration::from_secs(1));
    let mut sequence = 0_usize;
    loop {
        tokio::select! {
            _ = stop_signal.changed() => break,
            Some(_) = in_flight.join_next(), if !in_flight.is_empty() => {}
            _ = session_ticks.tick() => match Arc::clone(&permits).try_acquire_owned() {
                Ok(permit) => {
                    let client = Arc::clone(&client);
                    in_flight.spawn(async move { sessions::run_short_session(&client).await; drop(permit); });
                }
                Err(_) => client.statistics.record_not_sent(),
            },
            _ = request_ticks.tick() => match Arc::clone(&permits).try_acquire_owned() {
                Ok(permit) => {
                    let client = Arc::clone(&client);
                    let session = pick_session(&long_sessions, sequence);
                    let request = McpRequest::tool_call(sequence / 2);
                    sequence = sequence.wrapping_add(1);
                    in_flight.spawn(async move {
                        match session {
                            Some(session) => session.request(&client, request).await,
                            None => { client.request(None, request).await; }
                        }
                        drop(permit);
                    });
                }
                Err(_) => client.statistics.record_not_sent(),
            },
        }
    }
    let _: Result<(), _> =
        timeout(DRAIN_TIMEOUT, async { while in_flight.join_next().await.is_some() {} }).await;
    let mut final_pings = JoinSet::new();
    for session in long_sessions {
        let client = Arc::clone(&client);
        final_pings.spawn(async move { session.request(&client, McpRequest::ping()).await });
    }
    let _: Result<(), _> =
        timeout(DRAIN_TIMEOUT, async { while final_pings.join_next().await.is_some() {} }).await;
}

/// Every second request belongs to a session, if one is open.
fn pick_session(sessions: &[Arc<LongSession>], sequence: usize) -> Option<Arc<LongSession>> {
    let legacy = sequence.is_multiple_of(2);
    let first = sequence / 2;
    let mut rotated =
        (0..sessions.len()).filter_map(|at| sessions.get((first + at) % sessions.len()));
    legacy.then(|| rotated.find(|session| session.is_open()).cloned()).flatten()
}
