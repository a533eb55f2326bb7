//! Prints the events of a deploy until it ends, and how it ended.

use futures_util::StreamExt as _;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::daemon_options::{DaemonOptions, connection_lost};
use crate::cli::exit::Exit;
use crate::cli::progress::Progress;
use crate::cli::reconnect::reconnect;
use crate::cli::{output, timeline};
use crate::control::{ControlClient, RefusalCode, Response};
use crate::model::{Guard, ReleaseNumber, TimelineEntry, TimelineEvent, Waiver};

/// The command whose responses are printed.
#[derive(Debug)]
pub(super) struct Followed {
    /// The service.
    pub(super) service: String,
    /// What the operator asked for.
    pub(super) goal: Goal,
    /// Whether to follow to the end.
    pub(super) wait: bool,
    /// Whether to print JSON.
    pub(super) json: bool,
}

/// What the operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// A new release.
    Deploy,
    /// The previous release.
    Rollback,
    /// Something that is done once it is recorded.
    Record,
}

/// What the events so far mean.
#[derive(Debug)]
struct Outcome {
    exit: Option<Exit>,
    rolling_back: bool,
    deploy: Option<ReleaseNumber>,
    /// A first release is accepted without a comparison.
    is_first: bool,
}

/// How a command ended, and the option that lets it pass where a guard refused it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) exit: Exit,
    pub(super) waiver: Option<Waiver>,
}

impl From<Exit> for Ended {
    fn from(exit: Exit) -> Self {
        Self { exit, waiver: None }
    }
}

/// Prints the responses to a command. Returns how the deploy ended, or without `wait` whether the
/// daemon accepted the command. Where the daemon hands over, or ends and starts again, the wait goes
/// on with the next one.
pub(super) async fn follow(
    mut client: ControlClient,
    daemon: &DaemonOptions,
    followed: &Followed,
) -> Ended {
    let Followed { wait, json, .. } = *followed;
    let mut outcome = Outcome::new(wait);
    let mut progress = Progress::new();
    // Without signals Ctrl-C ends the process at once, which is no worse than before.
    let mut signals =
        if wait { signal_hook_tokio::Signals::new([SIGINT, SIGTERM]).ok() } else { None };
    let mut last_seq = 0;
    loop {
        let response = tokio::select! {
            response = client.next_response() => response,
            () = next_signal(&mut signals) => {
                progress.clear();
                return interrupted(followed, &outcome).into();
            }
        };
        let lost = match response {
            Ok(Some(Response::Refused { code: RefusalCode::Failed, .. }))
                if wait && outcome.deploy.is_some() =>
            {
                None
            }
            Ok(Some(response)) => {
                progress.clear();
                match show(response, (wait, json), &mut progress) {
                    Shown::Deploy(number) => outcome.deploy = Some(number),
                    Shown::Event(entry) if last_seq < entry.seq => {
                        last_seq = entry.seq;
                        print_event(&entry, json);
                        outcome.observe(&entry);
                        if entry.event.completes_command() {
                            return outcome.finish(followed).into();
                        }
                    }
                    Shown::Event(_) | Shown::Other => (),
                    Shown::Unchanged => return Exit::Done.into(),
                    Shown::Refused(exit, waiver) => return Ended { exit, waiver },
                }
                continue;
            }
            Ok(None) => None,
            Err(error) => Some(error),
        };
        progress.clear();
        let next = match (outcome.exit, outcome.deploy, lost) {
            (Some(_), ..) => return outcome.finish(followed).into(),
            (None, Some(deploy), _) => tokio::select! {
                next = reconnect(daemon, &followed.service, Some(deploy)) => next,
                () = next_signal(&mut signals) => return interrupted(followed, &outcome).into(),
            },
            (None, None, Some(error)) => return connection_lost(&error).into(),
            (None, None, None) => None,
        };
        match next {
            Some(next) => client = next,
            None => return end_unknown(&followed.service).into(),
        }
    }
}

/// What a response was.
enum Shown {
    Deploy(ReleaseNumber),
    Event(Box<TimelineEntry>),
    Refused(Exit, Option<Waiver>),
    Unchanged,
    Other,
}

fn show(response: Response, (wait, json): (bool, bool), progress: &mut Progress) -> Shown {
    match response {
        Response::Accepted { deploy, because } => {
            if json {
                output::json_line(&Response::Accepted { deploy, because });
            } else if !wait {
                output::stdout_line(&format!("deploy {deploy}: {because}"));
            }
            Shown::Deploy(deploy)
        }
        Response::Unchanged { deploy, because } => {
            if json {
                output::json_line(&Response::Unchanged { deploy, because });
            } else {
                output::stdout_line(&because);
            }
            Shown::Unchanged
        }
        Response::Refused { code, because, waiver } => {
            if json {
                let because = because.clone();
                output::json_line(&Response::Refused { code, because, waiver });
            }
            output::error_line(&because);
            Shown::Refused(code.into(), waiver)
        }
        Response::Event(entry) => Shown::Event(entry),
        Response::Warning { because } => {
            output::stderr_line(&format!("warning: {because}"));
            Shown::Other
        }
        Response::Incident { .. }
        | Response::Notified { .. }
        | Response::Explanation { .. }
        | Response::Reloaded { .. } => Shown::Other,
        Response::Status(status) => {
            progress.show(&status);
            Shown::Other
        }
    }
}

fn print_event(entry: &TimelineEntry, json: bool) {
    if json {
        output::json_line(&Response::Event(Box::new(entry.clone())));
    } else {
        output::stdout_line(&timeline::event_line(entry));
    }
}

/// The next signal; without signals it waits for ever.
async fn next_signal(signals: &mut Option<signal_hook_tokio::Signals>) {
    match signals {
        Some(signals) => _ = signals.next().await,
        None => std::future::pending().await,
    }
}

/// The daemon does not need the command that waits.
fn interrupted(followed: &Followed, outcome: &Outcome) -> Exit {
    let service = &followed.service;
    let what = match (followed.goal, outcome.deploy) {
        (Goal::Rollback, _) => format!("the rollback of {service}"),
        (_, Some(deploy)) => format!("deploy {deploy} of {service}"),
        (_, None) => format!("the deploy of {service}"),
    };
    output::error_line(&format!(
        "interrupted: {what} goes on in the daemon\n  see it with `rollbackd status {service}` or \
         `rollbackd timeline {service} --follow`"
    ));
    if followed.goal == Goal::Deploy {
        output::stderr_line(&format!("  end it with `rollbackd rollback {service}`"));
    }
    Exit::Interrupted
}

fn end_unknown(service: &str) -> Exit {
    output::error_line(&format!(
        "the end was not seen: the daemon stopped, or another deploy began; `rollbackd timeline \
         {service}` prints what happens next"
    ));
    Exit::Failed
}

impl Outcome {
    fn new(wait: bool) -> Self {
        let exit = (!wait).then_some(Exit::Done);
        Self { exit, rolling_back: false, deploy: None, is_first: false }
    }

    fn observe(&mut self, entry: &TimelineEntry) {
        self.rolling_back |= matches!(entry.event, TimelineEvent::Decided { .. });
        if let TimelineEvent::Deployed { carried_over, .. } = &entry.event {
            self.is_first = carried_over.active.is_none();
        }
        let exit = match entry.event {
            TimelineEvent::Accepted { verified } if verified || self.is_first => Some(Exit::Done),
            TimelineEvent::Accepted { .. } => Some(Exit::Unverified),
            TimelineEvent::Failed => Some(Exit::NotReady),
            TimelineEvent::Recovered if self.rolling_back => Some(Exit::RolledBack),
            TimelineEvent::Blocked {
                guard: Guard::NoData | Guard::OneUser | Guard::Differs,
                ..
            } => None,
            TimelineEvent::Unrecovered
            | TimelineEvent::Abandoned
            | TimelineEvent::Blocked { .. } => Some(Exit::BreachNotRolledBack),
            _ => None,
        };
        self.exit = exit.or(self.exit);
    }

    /// Prints how it ended, in a word and with the exit code.
    fn finish(&self, followed: &Followed) -> Exit {
        let Some(end) = self.exit else { return end_unknown(&followed.service) };
        let (word, exit) = followed.goal.result(end);
        if followed.wait && !followed.json {
            output::stdout_line(&format!("=> {word} (exit code {})", exit.code()));
        }
        exit
    }
}

impl Goal {
    /// The end in a word, and its exit code. Who asks for a rollback has it with the end of a deploy.
    fn result(self, end: Exit) -> (&'static str, Exit) {
        match (self, end) {
            (Self::Deploy, Exit::Done) => ("accepted", end),
            (Self::Rollback, Exit::RolledBack) => ("rolled back", Exit::Done),
            (Self::Rollback, Exit::NotReady) => ("the deploy was ended", Exit::Done),
            (Self::Rollback, Exit::BreachNotRolledBack) => ("not rolled back", end),
            (_, Exit::RolledBack) => ("rolled back", end),
            (_, Exit::NotReady) => ("not ready, the traffic did not move", end),
            (_, Exit::Unverified) => ("accepted (unverified): too little traffic to judge it", end),
            (_, Exit::BreachNotRolledBack) => ("in breach and not rolled back", end),
            _ => ("done", end),
        }
    }
}
