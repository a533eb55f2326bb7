//! Whether the deploy is to blame: the warm release is probed in the same seconds.
//!
//! Today probes of both releases speak; concurrent traffic, history and paired shadow calls are to
//! join them here.

use std::time::Duration;

use crate::model::{Moment, Number, Reply, Seen, Signal};

/// A failed probe of the warm release says something about this long.
const FRESH: Duration = Duration::from_secs(5);

/// What is known about the release that could take over.
#[derive(Debug, Clone)]
pub struct Attribution {
    warm: Option<Number>,
    failed: Option<(Moment, Reply)>,
    dead: bool,
}

impl Attribution {
    /// Listens for signals of `warm`.
    pub fn new(warm: Option<Number>) -> Self {
        Self { warm, failed: None, dead: false }
    }

    /// Takes one signal in; those of other releases are ignored.
    pub fn hear(&mut self, now: Moment, signal: &Signal) {
        if Some(signal.release) != self.warm {
            return;
        }
        match &signal.seen {
            Seen::Probe(Reply::Ok) => (self.failed, self.dead) = (None, false),
            Seen::Probe(reply) => self.failed = Some((now, reply.clone())),
            // A warm process that died by itself says nothing about what both depend on.
            Seen::Exited(_) => self.dead = true,
            Seen::Block(..) | Seen::Calls(_) | Seen::Shadow(..) | Seen::Scraped(_) => (),
        }
    }

    /// Why a failure now is not the deploy's fault, if it is not.
    pub fn shared(&self, now: Moment) -> Option<String> {
        let (at, reply) = self.failed.as_ref()?;
        let fresh = !self.dead && now.since(*at) <= FRESH;
        fresh.then(|| format!("the warm release fails too: {reply}"))
    }
}
