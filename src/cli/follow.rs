//! Prints the events of a deploy until it ends.

use crate::cli::daemon_options::connection_lost;
use crate::cli::exit::Exit;
use crate::cli::progress::Progress;
use crate::cli::{output, timeline};
use crate::control::{ControlClient, Response};
use crate::model::{Guard, TimelineEntry, TimelineEvent};

/// What the events so far mean.
#[derive(Debug)]
struct Outcome {
    exit: Option<Exit>,
    rolling_back: bool,
}

/// Prints the responses to a command. Returns how the deploy ended, or with `wait` unset whether
/// the daemon accepted the command.
pub(super) async fn follow(mut client: ControlClient, wait: bool, json: bool) -> Exit {
    let mut outcome = Outcome { exit: (!wait).then_some(Exit::Done), rolling_back: false };
    let mut progress = Progress::new();
    loop {
        let response = match client.next_response().await {
            Ok(Some(response)) => response,
            Ok(None) => return outcome.exit.unwrap_or_else(end_unknown),
            Err(error) => return connection_lost(&error),
        };
        progress.clear();
        if json && !matches!(response, Response::Status(_)) {
            output::json_line(&response);
        }
        match response {
            Response::Accepted { deploy, because } if !wait && !json => {
                output::stdout_line(&format!("deploy {deploy}: {because}"));
            }
            Response::Refused { code, because } => {
                output::error_line(&because);
                return code.into();
            }
            Response::Event(entry) => {
                if !json {
                    output::stdout_line(&timeline::event_line(&entry));
                }
                outcome.observe(&entry);
            }
            Response::Status(status) => progress.show(&status),
            Response::Accepted { .. } => (),
        }
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
