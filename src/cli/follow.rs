//! Prints the events of a deploy until it ends.

use crate::cli::daemon_options::{DaemonOptions, connection_lost};
use crate::cli::exit::Exit;
use crate::cli::progress::Progress;
use crate::cli::reconnect::reconnect;
use crate::cli::{output, timeline};
use crate::control::{ControlClient, RefusalCode, Response};
use crate::model::{Guard, ReleaseNumber, TimelineEntry, TimelineEvent};

/// What the events so far mean.
#[derive(Debug)]
struct Outcome {
    exit: Option<Exit>,
    rolling_back: bool,
}

/// Prints the responses to a command for a service. Returns how the deploy ended, or with `wait` unset
/// whether the daemon accepted the command. Where the daemon hands over, or ends and starts again, the
/// wait goes on with the next one.
pub(super) async fn follow(
    mut client: ControlClient,
    (daemon, service): (&DaemonOptions, &str),
    wait: bool,
    json: bool,
) -> Exit {
    let mut outcome = Outcome { exit: (!wait).then_some(Exit::Done), rolling_back: false };
    let mut progress = Progress::new();
    // The deploy that the daemon accepted, and its last event.
    let (mut deploy, mut last_seq) = (None, 0);
    loop {
        let lost = match client.next_response().await {
            Ok(Some(Response::Refused { code: RefusalCode::Failed, .. }))
                if wait && deploy.is_some() =>
            {
                None
            }
            Ok(Some(response)) => {
                progress.clear();
                match show(response, (wait, json), &mut progress) {
                    Shown::Deploy(number) => deploy = Some(number),
                    Shown::Event(entry) if last_seq < entry.seq => {
                        last_seq = entry.seq;
                        print_event(&entry, json);
                        outcome.observe(&entry);
                        if entry.event.completes_command() {
                            return outcome.exit.unwrap_or_else(end_unknown);
                        }
                    }
                    Shown::Event(_) | Shown::Other => (),
                    Shown::Refused(exit) => return exit,
                }
                continue;
            }
            Ok(None) => None,
            Err(error) => Some(error),
        };
        progress.clear();
        let next = match (outcome.exit, deploy, lost) {
            (Some(exit), ..) => return exit,
            (None, Some(deploy), _) => reconnect(daemon, service, Some(deploy)).await,
            (None, None, Some(error)) => return connection_lost(&error),
            (None, None, None) => None,
        };
        match next {
            Some(next) => client = next,
            None => return end_unknown(),
        }
    }
}

/// What a response was.
enum Shown {
    Deploy(ReleaseNumber),
    Event(Box<TimelineEntry>),
    Refused(Exit),
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
        Response::Refused { code, because } => {
            if json {
                output::json_line(&Response::Refused { code, because: because.clone() });
            }
            output::error_line(&because);
            Shown::Refused(code.into())
        }
        Response::Event(entry) => Shown::Event(entry),
        Response::Incident { .. } => Shown::Other,
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

fn end_unknown() -> Exit {
    output::error_line(
        "the end was not seen: the daemon stopped, or another deploy began; `rollbackd timeline` \
         prints what happens next",
    );
    Exit::Failed
}

impl Outcome {
    fn observe(&mut self, entry: &TimelineEntry) {
        self.rolling_back |= matches!(entry.event, TimelineEvent::Decided { .. });
        let exit = match entry.event {
            TimelineEvent::Accepted { .. } => Some(Exit::Done),
            TimelineEvent::Failed => Some(Exit::NotReady),
            TimelineEvent::Recovered if self.rolling_back => Some(Exit::RolledBack),
            TimelineEvent::Blocked { guard: Guard::NoData, .. } => None,
            TimelineEvent::Unrecovered
            | TimelineEvent::Abandoned
            | TimelineEvent::Blocked { .. } => Some(Exit::BreachNotRolledBack),
            _ => None,
        };
        self.exit = exit.or(self.exit);
    }
}
