use crate::systemd::{SystemdManager, UnitState, UnitWatcher};

/// Follows the unit of a release: what became of it since it was last looked at.
#[derive(Debug)]
pub struct UnitMonitor {
    watcher: UnitWatcher,
    unit: String,
    last: Option<UnitState>,
    stopping: bool,
}

/// What happened to a unit without our doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitEvent {
    /// It ended by itself; how, in words.
    Died(String),
    /// Somebody stopped it.
    Stopped,
    /// Somebody started it, or started it again.
    Started,
}

impl UnitMonitor {
    /// Follows a unit from the first call of [`Self::next`] on.
    pub fn new(bus: SystemdManager, unit: &str) -> Self {
        let watcher = UnitWatcher::new(bus, unit.to_owned());
        Self { watcher, unit: unit.to_owned(), last: None, stopping: false }
    }

    /// Waits for news, a few seconds at most: how it stands, and what happened on the way.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer. What happened meanwhile is told when it does.
    pub async fn next(&mut self) -> Result<(UnitState, Vec<UnitEvent>), String> {
        let (state, job) = self.watcher.next().await?;
        let events = self.events_since_last(&state, job);
        Ok((state, events))
    }

    /// Takes a state that we brought about for known.
    pub fn set_known_state(&mut self, state: UnitState) {
        self.watcher.ignore_finished_jobs();
        self.stopping = false;
        self.last = Some(state);
    }

    /// How a run ended that is over in this state, in words.
    pub fn describe_end(&self, state: &UnitState) -> String {
        describe_last_run(state, &self.unit)
    }

    fn events_since_last(&mut self, state: &UnitState, job: bool) -> Vec<UnitEvent> {
        let before = self.last.replace(state.clone());
        // A job that stops it ends when it is down. What starts it has one as well.
        let stopping = self.stopping || job && state.is_down();
        let events = match &before {
            Some(before) => derive_events(before, state, stopping, &self.unit),
            None => Vec::new(),
        };
        // It also ends what is left of a unit that died, ExecStop= included; without a job.
        self.stopping = state.active_state == "deactivating" && (self.stopping || state.has_job);
        events
    }
}

/// Deaths that are told at once at most; more say nothing more.
const DEATHS_REPORTED_MAX: u32 = 3;

/// What happened between two looks. `stopping`: a stop was seen to begin.
fn derive_events(
    before: &UnitState,
    after: &UnitState,
    stopping: bool,
    unit: &str,
) -> Vec<UnitEvent> {
    let new_run = before.invocation_id != after.invocation_id;
    // systemd forgets units that ended well. Nothing tells then who ended them.
    let forgotten = after.invocation_id.is_empty() && before.is_up();
    let stopped = stopping || forgotten || !new_run && was_stopped(after);
    let ended =
        |state: &UnitState, stopped: bool| state.restarts + u32::from(has_ended(state) && !stopped);
    if after.is_down() && stopped {
        return if before.is_down() { Vec::new() } else { vec![UnitEvent::Stopped] };
    }
    // systemd counts from nothing again when somebody else starts a unit.
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

/// Whether a run of it ended and no other one began.
fn has_ended(state: &UnitState) -> bool {
    state.is_down() && !state.invocation_id.is_empty() || state.sub_state == "auto-restart"
}

/// SIGTERM ends a unit well only where somebody sent it; what exits with 0 may have done so by itself.
fn was_stopped(state: &UnitState) -> bool {
    const KILLED: i32 = 2;
    const SIGTERM: i32 = 15;
    state.active_state == "inactive"
        && state.result == "success"
        && state.main_exit == (KILLED, SIGTERM)
}

/// How the last run ended.
fn describe_last_run(state: &UnitState, unit: &str) -> String {
    if !has_ended(state) {
        return format!("it ended, and systemd started it again (see `journalctl -u {unit}`)");
    }
    let (code, status) = state.main_exit;
    let exit = match code {
        1 => format!("exit code {status}"),
        _ => format!("killed by signal {status}"),
    };
    let what = match state.result.as_str() {
        "success" | "exit-code" | "signal" => exit,
        "core-dump" => format!("{exit}, with a core dump"),
        "oom-kill" => "killed for lack of memory (oom-kill)".to_owned(),
        "watchdog" => "its watchdog was not fed in time".to_owned(),
        "timeout" => "it did not start, or stop, in time".to_owned(),
        "start-limit-hit" => {
            format!("{exit}; systemd does not start it any more (start-limit-hit)")
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
        let exit = if result == "oom-kill" { (2, 9) } else { (1, 3) };
        UnitState {
            result: result.to_owned(),
            main_exit: exit,
            ..state(active, sub, run, restarts)
        }
    }

    /// Tells how often it died, was stopped and started on a way through states.
    fn walk(states: &[UnitState]) -> (u32, u32, u32, String) {
        let mut follower = UnitMonitor::new(SystemdManager::default(), UNIT);
        let (mut died, mut stopped, mut started, mut last) = (0, 0, 0, String::new());
        for state in states {
            for turn in follower.events_since_last(state, false) {
                match turn {
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
    fn each_death_of_a_crash_loop_is_told_once_whether_it_is_seen_or_not() {
        let lies = |run, restarts| ended("activating", "auto-restart", run, restarts, "exit-code");
        let seen = [running("a", 0), lies("a", 0), running("b", 1), lies("b", 1), running("c", 2)];
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
    fn lack_of_memory_is_named() {
        let oom = ended("failed", "failed", "a", 0, "oom-kill");
        let (died, _, _, how) = walk(&[running("a", 0), oom]);
        assert!(died == 1 && how.contains("lack of memory"), "{how}");
    }

    #[test]
    fn a_stop_by_a_person_is_no_death() {
        let stopping = UnitState { has_job: true, ..state("deactivating", "stop-sigterm", "a", 1) };
        let dead = UnitState { main_exit: (1, 0), ..state("inactive", "dead", "a", 1) };
        let (died, stopped, started, _) =
            walk(&[running("a", 1), stopping, dead.clone(), dead, running("b", 0)]);
        assert_eq!((died, stopped, started), (0, 1, 1));
        let killed = UnitState { main_exit: (2, 15), ..state("inactive", "dead", "a", 0) };
        assert_eq!(walk(&[running("a", 0), killed.clone(), killed]), (0, 1, 0, String::new()));
    }

    #[test]
    fn a_death_after_which_systemd_stops_the_rest_is_no_stop_by_a_person() {
        let stop = state("deactivating", "stop", "a", 0);
        let (died, stopped, _, how) =
            walk(&[running("a", 0), stop, ended("failed", "failed", "a", 0, "exit-code")]);
        assert_eq!((died, stopped), (1, 0), "{how}");
    }

    #[test]
    fn a_stop_that_is_over_before_it_is_looked_at_is_known_by_its_job() {
        let dead = UnitState { main_exit: (1, 0), ..state("inactive", "dead", "a", 0) };
        let mut follower = UnitMonitor::new(SystemdManager::default(), UNIT);
        assert_eq!(follower.events_since_last(&running("a", 0), true), []);
        assert_eq!(follower.events_since_last(&dead, true), [UnitEvent::Stopped]);
        assert_eq!(follower.events_since_last(&dead, false), []);
    }

    #[test]
    fn a_restart_by_a_person_is_a_start() {
        let stopping = UnitState { has_job: true, ..state("deactivating", "stop-sigterm", "a", 0) };
        let (died, stopped, started, _) = walk(&[running("a", 0), stopping, running("b", 0)]);
        assert_eq!((died, stopped, started), (0, 0, 1));
        assert_eq!(walk(&[running("a", 3), running("b", 0)]).2, 1);
    }

    #[test]
    fn a_release_that_ends_well_by_itself_has_ended_all_the_same() {
        let over = UnitState { main_exit: (1, 0), ..state("inactive", "dead", "a", 0) };
        let (died, _, _, how) = walk(&[running("a", 0), over]);
        assert!(died == 1 && how.contains("exit code 0"), "{how}");
    }
}
