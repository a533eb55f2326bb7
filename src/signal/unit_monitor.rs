//! Turns the states of a release's unit into events: it died, or another process stopped or started it.

use crate::systemd::{MainExit, SystemdManager, UnitChange, UnitState, UnitWatcher};

const SIGTERM: i32 = 15;

/// Follows the unit of a release and reports what happened to it.
#[derive(Debug)]
pub struct UnitMonitor {
    watcher: UnitWatcher,
    unit: String,
    last: Option<UnitState>,
    stopping: bool,
}

/// A change of a unit that this daemon did not cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitEvent {
    /// It ended by itself; how.
    Died(String),
    /// An operator or a dependency stopped it.
    Stopped,
    /// An operator or a dependency started or restarted it.
    Started,
}

impl UnitMonitor {
    /// Follows a unit from the first call of [`Self::next`] on.
    pub fn new(manager: SystemdManager, unit: &str) -> Self {
        let watcher = UnitWatcher::new(manager, unit.to_owned());
        Self { watcher, unit: unit.to_owned(), last: None, stopping: false }
    }

    /// Waits for a signal about the unit, or five seconds, then returns its state and the events
    /// since the last call.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer. A later call reports the events of the meantime.
    pub async fn next(&mut self) -> Result<(UnitState, Vec<UnitEvent>), String> {
        let UnitChange { state, job_ended } = self.watcher.next().await?;
        let events = self.events_since_last(&state, job_ended);
        Ok((state, events))
    }

    /// Sets a state that the daemon itself caused: it is no event.
    pub fn set_known_state(&mut self, state: UnitState) {
        self.watcher.ignore_finished_jobs();
        self.stopping = false;
        self.last = Some(state);
    }

    /// Describes how the last run of this state ended.
    pub fn describe_end(&self, state: &UnitState) -> String {
        describe_last_run(state, &self.unit)
    }

    fn events_since_last(&mut self, state: &UnitState, job_ended: bool) -> Vec<UnitEvent> {
        let before = self.last.replace(state.clone());
        // A stop job ends when the unit is down. Start jobs end, too, but not in this state.
        let stopping = self.stopping || job_ended && state.is_down();
        let events = match &before {
            Some(before) => derive_events(before, state, stopping, &self.unit),
            None => Vec::new(),
        };
        // systemd also deactivates a unit that died, to run ExecStop=, but without a job.
        self.stopping = state.active_state == "deactivating" && (self.stopping || state.has_job);
        events
    }
}

/// Deaths that one call reports at most.
const DEATHS_REPORTED_MAX: u32 = 3;

/// The events between two states. `stopping`: a stop job was seen.
fn derive_events(
    before: &UnitState,
    after: &UnitState,
    stopping: bool,
    unit: &str,
) -> Vec<UnitEvent> {
    let new_run = before.invocation_id != after.invocation_id;
    // systemd unloads units that ended well, and how they ended with them.
    let forgotten = after.invocation_id.is_empty() && before.is_up();
    let stopped = stopping || forgotten || !new_run && was_stopped(after);
    let ended =
        |state: &UnitState, stopped: bool| state.restarts + u32::from(has_ended(state) && !stopped);
    if after.is_down() && stopped {
        return if before.is_down() { Vec::new() } else { vec![UnitEvent::Stopped] };
    }
    // A start by a job resets the counter of systemd.
    let deaths = ended(after, false).checked_sub(ended(before, was_stopped(before)));
    match deaths {
        Some(deaths @ 1..) => vec![
            UnitEvent::Died(describe_last_run(after, unit));
            deaths.min(DEATHS_REPORTED_MAX) as usize
        ],
        _ if new_run && after.is_up() && after.restarts <= before.restarts => {
            vec![UnitEvent::Started]
        }
        _ => Vec::new(),
    }
}

/// Whether its last run ended and no other began.
fn has_ended(state: &UnitState) -> bool {
    state.is_down() && !state.invocation_id.is_empty() || state.sub_state == "auto-restart"
}

/// Whether SIGTERM ended it: a process sent that. A release that exits with 0 may have ended by
/// itself.
fn was_stopped(state: &UnitState) -> bool {
    state.active_state == "inactive"
        && state.result == "success"
        && state.main_exit == MainExit::Killed(SIGTERM)
}

/// How the last run ended.
fn describe_last_run(state: &UnitState, unit: &str) -> String {
    if !has_ended(state) {
        return format!("{unit} ended, and systemd restarted it (see `journalctl -u {unit}`)");
    }
    let exit = match state.main_exit {
        MainExit::None => "it had no main process".to_owned(),
        MainExit::Exited(code) => format!("exit code {code}"),
        MainExit::Killed(signal) | MainExit::Dumped(signal) => format!("killed by signal {signal}"),
    };
    let what = match state.result.as_str() {
        "success" | "exit-code" | "signal" => exit,
        "core-dump" => format!("{exit}, with a core dump"),
        "oom-kill" => "killed for lack of memory (oom-kill)".to_owned(),
        "watchdog" => "watchdog timeout".to_owned(),
        "timeout" => "it did not start or stop in time".to_owned(),
        "start-limit-hit" => {
            format!("{exit}; systemd does not restart it again (start-limit-hit)")
        }
        other => format!("{exit} ({other})"),
    };
    format!("{unit} ended: {what} (see `journalctl -u {unit}`)")
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "mcp@blue.service";

    fn state(active: &str, sub: &str, run: &str, restarts: u32) -> UnitState {
        let text = str::to_owned;
        UnitState {
            active_state: text(active),
            sub_state: text(sub),
            invocation_id: text(run),
            restarts,
            result: text("success"),
            ..UnitState::default()
        }
    }

    fn ended(active: &str, sub: &str, run: &str, restarts: u32, result: &str) -> UnitState {
        let exit = match result {
            "oom-kill" => MainExit::Killed(9),
            _ => MainExit::Exited(3),
        };
        UnitState {
            result: result.to_owned(),
            main_exit: exit,
            ..state(active, sub, run, restarts)
        }
    }

    /// How often it died, was stopped and started over a sequence of states.
    fn walk(states: &[UnitState]) -> (u32, u32, u32, String) {
        let mut monitor = UnitMonitor::new(SystemdManager::default(), UNIT);
        let (mut died, mut stopped, mut started, mut last) = (0, 0, 0, String::new());
        for state in states {
            for event in monitor.events_since_last(state, false) {
                match event {
                    UnitEvent::Died(how) => (died, last) = (died + 1, how),
                    UnitEvent::Stopped => stopped += 1,
                    UnitEvent::Started => started += 1,
                }
            }
        }
        (died, stopped, started, last)
    }

    fn running(run: &str, restarts: u32) -> UnitState {
        state("active", "running", run, restarts)
    }

    #[test]
    fn each_death_of_a_crash_loop_is_reported_once_even_between_two_polls() {
        let crash = |run, restarts| ended("activating", "auto-restart", run, restarts, "exit-code");
        let seen =
            [running("a", 0), crash("a", 0), running("b", 1), crash("b", 1), running("c", 2)];
        let (died, stopped, started, how) = walk(&seen);
        assert_eq!((died, stopped, started), (2, 0, 0));
        assert!(how.contains("exit code 3"), "{how}");
        let missed = [running("a", 0), running("c", 2)];
        assert_eq!(walk(&missed).0, 2);
        assert_eq!(walk(&[running("a", 0), running("z", 90)]).0, DEATHS_REPORTED_MAX);
        let given_up = [running("a", 4), ended("failed", "failed", "a", 4, "start-limit-hit")];
        assert_eq!(walk(&given_up).0, 1);
    }

    #[test]
    fn an_oom_kill_is_named() {
        let oom = ended("failed", "failed", "a", 0, "oom-kill");
        let (died, _, _, how) = walk(&[running("a", 0), oom]);
        assert!(died == 1 && how.contains("lack of memory"), "{how}");
    }

    #[test]
    fn a_stop_by_an_operator_is_no_death() {
        let stopping = UnitState { has_job: true, ..state("deactivating", "stop-sigterm", "a", 1) };
        let dead =
            UnitState { main_exit: MainExit::Exited(0), ..state("inactive", "dead", "a", 1) };
        let (died, stopped, started, _) =
            walk(&[running("a", 1), stopping, dead.clone(), dead, running("b", 0)]);
        assert_eq!((died, stopped, started), (0, 1, 1));
        let killed =
            UnitState { main_exit: MainExit::Killed(SIGTERM), ..state("inactive", "dead", "a", 0) };
        assert_eq!(walk(&[running("a", 0), killed.clone(), killed]), (0, 1, 0, String::new()));
    }

    #[test]
    fn a_death_after_which_systemd_stops_the_rest_is_no_stop_by_an_operator() {
        let stop = state("deactivating", "stop", "a", 0);
        let (died, stopped, _, how) =
            walk(&[running("a", 0), stop, ended("failed", "failed", "a", 0, "exit-code")]);
        assert_eq!((died, stopped), (1, 0), "{how}");
    }

    #[test]
    fn a_stop_between_two_polls_is_known_by_its_job() {
        let dead =
            UnitState { main_exit: MainExit::Exited(0), ..state("inactive", "dead", "a", 0) };
        let mut monitor = UnitMonitor::new(SystemdManager::default(), UNIT);
        assert_eq!(monitor.events_since_last(&running("a", 0), true), []);
        assert_eq!(monitor.events_since_last(&dead, true), [UnitEvent::Stopped]);
        assert_eq!(monitor.events_since_last(&dead, false), []);
    }

    #[test]
    fn a_restart_by_an_operator_is_a_start() {
        let stopping = UnitState { has_job: true, ..state("deactivating", "stop-sigterm", "a", 0) };
        let (died, stopped, started, _) = walk(&[running("a", 0), stopping, running("b", 0)]);
        assert_eq!((died, stopped, started), (0, 0, 1));
        assert_eq!(walk(&[running("a", 3), running("b", 0)]).2, 1);
    }

    #[test]
    fn a_release_that_exits_with_0_has_died() {
        let over =
            UnitState { main_exit: MainExit::Exited(0), ..state("inactive", "dead", "a", 0) };
        let (died, _, _, how) = walk(&[running("a", 0), over]);
        assert!(died == 1 && how.contains("exit code 0"), "{how}");
    }
}
