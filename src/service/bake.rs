//! The signal log of the current bake, and the opening of its judge.

use std::path::PathBuf;

use crate::machine::BakeOpening;
use crate::model::{History, Moment, Observation, ReleaseNumber, Signal};
use crate::record::{SignalLog, SignalLogHeader, SignalLogWriter};
use crate::service::service_loop::ServiceLoop;
use crate::service::traffic_window::TrafficWindow;

/// The signals of the current bake, on disk.
#[derive(Debug)]
pub(crate) struct BakeLog {
    writer: Option<SignalLogWriter>,
    /// The folder of the service.
    dir: PathBuf,
}

impl BakeLog {
    /// A log in the folder of a service. No bake is open.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { writer: None, dir }
    }

    /// Appends a signal, if a bake is open.
    pub(crate) fn append(&mut self, now: Moment, signal: &Signal) {
        self.writer.iter_mut().for_each(|writer| writer.append(now, signal));
    }

    /// Opens the log of a bake. Returns what a daemon before a restart recorded of the same bake.
    fn open(
        &mut self,
        service: &str,
        deploy: ReleaseNumber,
        header: &SignalLogHeader,
    ) -> Option<SignalLog> {
        let opened =
            tokio::task::block_in_place(|| SignalLogWriter::open(&self.dir, deploy, header));
        match opened {
            Ok((writer, resumed)) => {
                self.writer = Some(writer);
                resumed
            }
            Err(error) => {
                tracing::warn!(service, "cannot record the signals of the bake: {error}");
                None
            }
        }
    }
}

impl ServiceLoop {
    /// Opens the bake that the phase asks for, and closes the log of one that is over.
    pub(super) fn sync_bake(&mut self, now: Moment) {
        if let Some((release, warm)) = self.machine.bake_to_open() {
            let history = warm.map(|warm| self.history(warm)).unwrap_or_default();
            let header = SignalLogHeader { release, warm, opened: now, history };
            let deploy = self.watch().deploy();
            let resumed = self.bake_log.open(&self.service.name, deploy, &header);
            let SignalLogHeader { opened, history, .. } =
                resumed.as_ref().map_or(header, |log| log.header.clone());
            let opening = BakeOpening { release, warm, opened, history };
            let replay = resumed.iter().flat_map(SignalLog::signals);
            self.machine.open_bake(now, opening, replay);
            if let Some(ramp) = self.watch().phase().ramp() {
                // The judge knows it; a restart finds it in the log.
                let observation = Observation::Step(ramp.step);
                self.bake_log.append(now, &Signal { release, observation });
            }
        }
        if self.machine.judge().is_none() {
            self.bake_log.writer = None;
        }
    }

    /// What a release has done so far.
    fn history(&self, number: ReleaseNumber) -> History {
        let window = self.traffic.get(&number);
        History {
            last_hour: window.map(TrafficWindow::hour_since_first_answer).unwrap_or_default(),
            worst_five_minutes: window.map(TrafficWindow::worst_window).unwrap_or_default(),
            calls: self.proxy.counts_by_call(number).into_iter().collect(),
        }
    }
}
