//! A daemon with real servers and real clients for a long time: a deploy of every kind, one after the other,
//! with handovers and kills of the daemon in between.
//!
//! `SOAK_COUNT=30 cargo test --test real soak -- --nocapture` takes 30 minutes: 30 deploys, one a minute.
//! `SOAK_EVERY` is the time from one to the next in seconds, `SOAK_SEED` replays. Without `SOAK_COUNT` there
//! are a few, one right after the other. A table is printed at the end. No client sees an error without a
//! fault that explains it, the right release is in charge after each deploy, and what the daemon uses does
//! not grow.

mod faults;
mod kinds;
mod resources;
mod stage;

use std::time::Duration;

use kinds::{ALL, Interruption, Kind, SHORT};
use stage::SoakStage;

use super::rng::Rng;
use super::servers::ServerKind;

/// Seconds from one deploy to the next in a long run.
const EVERY_S: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn soak_with_servers_of_typescript() {
    soak(ServerKind::Everything).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn soak_with_servers_of_python() {
    soak(ServerKind::Python).await;
}

async fn soak(server: ServerKind) {
    let variable = |name: &str| std::env::var(name).ok().map(|it| it.parse::<u64>().unwrap());
    let mut rng = Rng(variable("SOAK_SEED").unwrap_or(1));
    let rounds = match variable("SOAK_COUNT") {
        None => SHORT.to_vec(),
        Some(count) => choose(usize::try_from(count).unwrap(), &mut rng),
    };
    let is_long = variable("SOAK_COUNT").is_some();
    let every = if is_long { variable("SOAK_EVERY").unwrap_or(EVERY_S) } else { 0 };
    let mut stage = SoakStage::start(server, is_long, rng).await;
    for (kind, interruption) in rounds {
        stage.play(kind, interruption, Duration::from_secs(every)).await;
    }
    stage.finish().await;
}

/// Each kind once, in a random order, and again; a third of them without an interruption.
fn choose(count: usize, rng: &mut Rng) -> Vec<(Kind, Interruption)> {
    let mut left: Vec<Kind> = Vec::new();
    let mut rounds = Vec::new();
    for number in 0..count {
        if left.is_empty() {
            left = ALL.to_vec();
        }
        let next = usize::try_from(rng.below(left.len() as u64)).unwrap();
        // Those of one kind meet another interruption the next time.
        let turn = number + number / ALL.len();
        rounds.push((left.remove(next), Interruption::ALL[turn % Interruption::ALL.len()]));
    }
    rounds
}
