//! The clients of the demo: a steady load on the public address, and what became of it.

mod book;
mod caller;
mod sessions;
mod subscription;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::clock::Clock;
use crate::model::{Era, Moment};
use book::Book;
use caller::{Caller, Question};
use sessions::Regular;

pub use book::{Report, Sessions};

/// Requests without an answer, at most. A request that finds no room is not sent, and is counted.
const IN_FLIGHT_MAX: usize = 512;
/// Sessions that live as long as the load does: half of them begin with it, the others at the
/// second release.
const REGULARS: usize = 16;
/// Streams of `subscriptions/listen`.
const LISTENERS: usize = 2;
/// How long the end waits for answers: one request, and a little.
const LAST_ANSWERS: Duration = Duration::from_secs(6);

/// Clients at work. They stop when this is dropped.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    welcome: watch::Sender<bool>,
    book: Arc<Book>,
    driver: JoinHandle<()>,
}

impl Load {
    /// Sends `rate` requests a second to `http://address/mcp`, each at its time, whether or not
    /// the ones before it were answered.
    pub fn start(address: SocketAddr, rate: u32, clock: Clock) -> Self {
        let (stop, stopped) = watch::channel(false);
        let book = Arc::new(Book::new(clock));
        let caller = Arc::new(Caller::new(address, Arc::clone(&book)));
        let (welcome, welcomed) = watch::channel(false);
        let driver = tokio::spawn(drive(caller, rate, stopped, welcomed));
        Self { stop, welcome, book, driver }
    }

    /// The second release has the traffic: the sessions that waited for it begin.
    pub fn welcome(&self) {
        self.welcome.send_replace(true);
    }

    /// Sends nothing more, waits for the answers that are out, and asks each session whether it is
    /// still there; 12 s at most. `deployed` is when the deploy began that the report is about.
    pub async fn stop(mut self, deployed: Moment) -> Report {
        self.stop.send_replace(true);
        // Whatever is missing after that was recorded as bad, or is given up.
        let _: Result<_, _> = timeout(LAST_ANSWERS * 2, &mut self.driver).await;
        self.book.report(deployed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn drive(
    caller: Arc<Caller>,
    rate: u32,
    mut stopped: watch::Receiver<bool>,
    welcomed: watch::Receiver<bool>,
) {
    let mut keepers = JoinSet::new();
    let regulars: Vec<_> = (0..REGULARS).map(|_| Arc::new(Regular::default())).collect();
    for (number, regular) in regulars.iter().enumerate() {
        let (caller, regular) = (Arc::clone(&caller), Arc::clone(regular));
        let mut welcomed = welcomed.clone();
        keepers.spawn(async move {
            // An error: nobody will be welcomed any more.
            if number < REGULARS / 2 || welcomed.wait_for(|it| *it).await.is_ok() {
                sessions::keep(caller, regular).await;
            }
        });
    }
    for _ in 0..LISTENERS {
        keepers.spawn(subscription::keep(Arc::clone(&caller)));
    }
    let mut sent = JoinSet::new();
    let room = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut ticks = interval(Duration::from_secs(1) / rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut arrivals = interval(Duration::from_secs(1));
    let mut turn = 0_usize;
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = sent.join_next(), if !sent.is_empty() => {}
            _ = arrivals.tick() => match Arc::clone(&room).try_acquire_owned() {
                Ok(place) => {
                    let caller = Arc::clone(&caller);
                    sent.spawn(async move { sessions::visit(&caller).await; drop(place); });
                }
                Err(_) => caller.book.not_sent(),
            },
            _ = ticks.tick() => match Arc::clone(&room).try_acquire_owned() {
                Ok(place) => {
                    let caller = Arc::clone(&caller);
                    let regular = pick(&regulars, turn);
                    let question = Question::call(turn / 2);
                    turn = turn.wrapping_add(1);
                    sent.spawn(async move {
                        match regular {
                            Some(regular) => regular.ask(&caller, question).await,
                            None => { caller.ask(Era::Modern, None, question).await; }
                        }
                        drop(place);
                    });
                }
                Err(_) => caller.book.not_sent(),
            },
        }
    }
    let _: Result<(), _> =
        timeout(LAST_ANSWERS, async { while sent.join_next().await.is_some() {} }).await;
    let mut last = JoinSet::new();
    for regular in regulars {
        let caller = Arc::clone(&caller);
        last.spawn(async move { regular.ask(&caller, Question::ping()).await });
    }
    let _: Result<(), _> =
        timeout(LAST_ANSWERS, async { while last.join_next().await.is_some() {} }).await;
}

/// Every second request belongs to a session, as long as one is open.
fn pick(regulars: &[Arc<Regular>], turn: usize) -> Option<Arc<Regular>> {
    let legacy = turn.is_multiple_of(2);
    let first = turn / 2;
    let mut from_first =
        (0..regulars.len()).filter_map(|at| regulars.get((first + at) % regulars.len()));
    legacy.then(|| from_first.find(|regular| regular.is_open()).cloned()).flatten()
}
