use crate::bus::{Bus, Changes, State};

/// Follows the unit of a release: what became of it since it was last looked at.
#[derive(Debug)]
pub struct Follower {
    changes: Changes,
    unit: String,
    last: Option<State>,
    stopping: bool,
}

/// What happened to a unit without our doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// It ended by itself; how, in words.
    Died(String),
    /// Somebody stopped it.
    Stopped,
    /// Somebody started it, or started it again.
    Started,
}

impl Follower {
    /// Follows a unit from the first call of [`Self::next`] on.
    pub fn new(bus: Bus, unit: &str) -> Self {
        let changes = Changes::new(bus, unit.to_owned());
        Self { changes, unit: unit.to_owned(), last: None, stopping: false }
    }

    /// Waits for news, a few seconds at most: how it stands, and what happened on the way.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer. What happened meanwhile is told when it does.
    pub async fn next(&mut self) -> Result<(State, Vec<Turn>), String> {
        let (state, job) = self.changes.next().await?;
        let turns = self.turn(&state, job);
        Ok((state, turns))
    }

    /// Takes a state that we brought about for known.
    pub fn knows(&mut self, state: State) {
        self.changes.own_jobs();
        self.stopping = false;
        self.last = Some(state);
    }

    /// How a run ended that is over in this state, in words.
    pub fn ended(&self, state: &State) -> String {
        how(state, &self.unit)
    }

    fn turn(&mut self, state: &State, job: bool) -> Vec<Turn> {
        let before = self.last.replace(state.clone());
        // A job that stops it ends when it is down. What starts it has one as well.
        let stopping = self.stopping || job && state.is_down();
        let turns = match &before {
            Some(before) => compare(before, state, stopping, &self.unit),
            None => Vec::new(),
        };
        // It also ends what is left of a unit that died, ExecStop= included; without a job.
        self.stopping = state.active == "deactivating" && (self.stopping || state.job);
        turns
    }
}

/// Deaths that are told at once at most; more say nothing more.
const DEATHS_MAX: u32 = 3;

/// What happened between two looks. `stopping`: a stop was seen to begin.
fn compare(before: &State, after: &State, stopping: bool, unit: &str) -> Vec<Turn> {
    let another = before.invocation != after.invocation;
    // systemd forgets units that ended well. Nothing tells then who ended them.
    let forgotten = after.invocation.is_empty() && before.is_up();
    let stopped = stopping || forgotten || !another && was_stopped(after);
    let ended = |state: &State, stopped: bool| state.restarts + u32::from(lies(state) && !stopped);
    if after.is_down() && stopped {
        return if before.is_down() { Vec::new() } else { vec![Turn::Stopped] };
    }
    // systemd counts from nothing again when somebody else starts a unit.
    let deaths = ended(after, false).checked_sub(ended(before, was_stopped(before)));
    match deaths {
        Some(deaths @ 1..) => vec![Turn::Died(how(after, unit)); deaths.min(DEATHS_MAX) as usize],
        _ if another && after.is_up() && after.restarts <= before.restarts => vec![Turn::Started],
        _ => Vec::new(),
    }
}

/// Whether a run of it ended and no other one began.
fn lies(state: &State) -> bool {
    state.is_down() && !state.invocation.is_empty() || state.sub == "auto-restart"
}

/// SIGTERM ends a unit well only where somebody sent it; what exits with 0 may have done so by itself.
fn was_stopped(state: &State) -> bool {
    const KILLED: i32 = 2;
    const SIGTERM: i32 = 15;
    state.active == "inactive" && state.result == "success" && state.exit == (KILLED, SIGTERM)
}

/// How the last run ended.
fn how(state: &State, unit: &str) -> String {
    if !lies(state) {
        return format!("it ended, and systemd started it again (see `journalctl -u {unit}`)");
    }
    let (code, status) = state.exit;
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

    fn state(active: &str, sub: &str, run: &str, restarts: u32) -> State {
        let text = str::to_owned;
        State {
            active: text(active),
            sub: text(sub),
            invocation: text(run),
            restarts,
            result: text("success"),
            ..State::default()
        }
    }

    fn ended(active: &str, sub: &str, run: &str, restarts: u32, result: &str) -> State {
        let exit = if result == "oom-kill" { (2, 9) } else { (1, 3) };
        State { result: result.to_owned(), exit, ..state(active, sub, run, restarts) }
    }

    /// Tells how often it died, was stopped and started on a way through states.
    fn walk(states: &[State]) -> (u32, u32, u32, String) {
        let mut follower = Follower::new(Bus::default(), UNIT);
        let (mut died, mut stopped, mut started, mut last) = (0, 0, 0, String::new());
        for state in states {
            for turn in follower.turn(state, false) {
                match turn {
                    Turn::Died(how) => (died, last) = (died + 1, how),
                    Turn::Stopped => stopped += 1,
                    Turn::Started => started += 1,
                }
            }
        }
        (died, stopped, started, last)
    }

    fn running(run: &str, restarts: u32) -> State {
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
        assert_eq!(walk(&[running("a", 0), running("z", 90)]).0, DEATHS_MAX);
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
        let stopping = State { job: true, ..state("deactivating", "stop-sigterm", "a", 1) };
        let dead = State { exit: (1, 0), ..state("inactive", "dead", "a", 1) };
        let (died, stopped, started, _) =
            walk(&[running("a", 1), stopping, dead.clone(), dead, running("b", 0)]);
        assert_eq!((died, stopped, started), (0, 1, 1));
        let killed = State { exit: (2, 15), ..state("inactive", "dead", "a", 0) };
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
        let dead = State { exit: (1, 0), ..state("inactive", "dead", "a", 0) };
        let mut follower = Follower::new(Bus::default(), UNIT);
        assert_eq!(follower.turn(&running("a", 0), true), []);
        assert_eq!(follower.turn(&dead, true), [Turn::Stopped]);
        assert_eq!(follower.turn(&dead, false), []);
    }

    #[test]
    fn a_restart_by_a_person_is_a_start() {
        let stopping = State { job: true, ..state("deactivating", "stop-sigterm", "a", 0) };
        let (died, stopped, started, _) = walk(&[running("a", 0), stopping, running("b", 0)]);
        assert_eq!((died, stopped, started), (0, 0, 1));
        assert_eq!(walk(&[running("a", 3), running("b", 0)]).2, 1);
    }

    #[test]
    fn a_release_that_ends_well_by_itself_has_ended_all_the_same() {
        let over = State { exit: (1, 0), ..state("inactive", "dead", "a", 0) };
        let (died, _, _, how) = walk(&[running("a", 0), over]);
        assert!(died == 1 && how.contains("exit code 0"), "{how}");
    }
}
