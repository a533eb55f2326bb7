//! The end of a block of time: what the proxy counted in it goes to the machine.

use crate::judge::BLOCK_MS;
use crate::machine::Input;
use crate::model::{Moment, Observation, ReleaseNumber, Signal};
use crate::service::call_usage::SNAPSHOT_BLOCKS;
use crate::service::service_loop::ServiceLoop;

/// Blocks between two updates of unit weights.
const UNIT_WEIGHTS_BLOCKS: u64 = 4;
/// Blocks between two sweeps of expired sessions.
const SESSION_SWEEP_BLOCKS: u64 = 120;

impl ServiceLoop {
    /// At the end of a block: the machine gets the counts of all releases, then the end of the block.
    pub(super) fn on_block(&mut self) {
        let now = self.clock.now();
        self.heartbeat.beat();
        self.recorder.write_late_entries(&self.service.name);
        self.heartbeat.set_status(format!("{}: {}", self.service.name, self.watch().phase()));
        self.observe_cells(now);
        self.observe_traffic(now);
        let rate_max = self.service.limits.shadow_calls_per_second;
        let (machine, traffic, proxy) = (&self.machine, &self.traffic, &self.proxy);
        let shadow = self.shadow_controller.on_block(now, rate_max, machine, traffic, proxy);
        shadow.into_iter().for_each(|signal| self.observe(now, signal));
        if let Some(release) = self.machine.calls_due() {
            let calls = self.proxy.counts_by_call(release);
            let signal = self.machine.calls_since_last(release, calls);
            self.observe(now, signal);
        }
        self.input(Input::EndOfBlock);
        self.settle();
        self.proxy.migrate_sessions_from(self.machine.routing_hints().migrate_from);
        self.ticks += 1;
        if self.ticks.is_multiple_of(UNIT_WEIGHTS_BLOCKS) {
            self.update_unit_weights();
            self.proxy.log_near_bounds();
        }
        if self.ticks.is_multiple_of(SESSION_SWEEP_BLOCKS) {
            self.proxy.expire_sessions(now);
        }
    }

    /// A bake is over: its record ends with the counts of this moment, in all and by call. The last block
    /// and the last count by call are up to a second apart.
    pub(super) fn record_last_counts(&mut self, now: Moment, release: ReleaseNumber) {
        let counts = self.proxy.counts(release);
        let block = self.traffic.get(&release).map_or(counts, |it| it.since_last_block(counts));
        let block = Signal { release, observation: Observation::Block(BLOCK_MS, block) };
        let calls = self.machine.calls_since_last(release, self.proxy.counts_by_call(release));
        [block, calls].iter().for_each(|signal| self.bake_log.append(now, signal));
    }

    /// What ended on each release, and where its failures come from.
    fn observe_traffic(&mut self, now: Moment) {
        let numbers: Vec<_> =
            self.watch().phase().required_releases().iter().map(|it| it.number).collect();
        self.traffic.retain(|number, _| numbers.contains(number));
        self.call_usage.retain(&numbers);
        for release in numbers {
            let sources = self.proxy.take_failing_sources(release);
            let window = self.traffic.entry(release).or_default();
            let counts = window.add_block(self.proxy.counts(release), &sources);
            if !sources.is_empty() {
                self.observe(now, Signal { release, observation: Observation::Sources(sources) });
            }
            let observation = Observation::Block(BLOCK_MS, counts);
            self.observe(now, Signal { release, observation });
            if (self.ticks + 1).is_multiple_of(SNAPSHOT_BLOCKS) {
                self.call_usage.snapshot(release, self.proxy.counts_by_call(release));
            }
        }
    }
}
