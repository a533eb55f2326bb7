//! Exit codes that a script can trust.

use std::process::ExitCode;

use crate::control::RefusalCode;

/// What `--help` says about them.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done; with --wait: the release was accepted, or the rollback is complete
  1  failed for another reason, which is printed
  2  the arguments make no sense
  3  deploy --wait: the release was rolled back
  4  deploy --wait: the release never became ready, or drops what clients use (a protocol version;
     with --strict: tools, prompts, capabilities); the traffic was not moved
  5  refused: a guard stands against it
  6  busy: something else has to end first
  7  no such service or deploy
  8  no daemon answers
  9  the configuration has errors
 10  the daemon can not start: state folder, address or socket not to be had
 11  a breach was found but not rolled back: hold, freeze, observe, limit, shared outage, or the
     previous release can not take over
 12  not allowed: to look takes the group rollbackd, to act root or the group rollbackd-admin";

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// For another reason.
    Failed,
    /// The arguments make no sense.
    InvalidArguments,
    /// The release was rolled back.
    RolledBack,
    /// The release never became ready.
    NotReady,
    /// A guard stands against it.
    Refused,
    /// Something else has to end first.
    Busy,
    /// No such service or deploy.
    NotFound,
    /// No daemon answers.
    NoDaemon,
    /// The configuration has errors.
    InvalidConfig,
    /// The daemon can not start.
    StartFailed,
    /// A breach without a rollback.
    BreachNotRolledBack,
    /// Not in the group that it takes.
    Forbidden,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::InvalidArguments => 2,
            Exit::RolledBack => 3,
            Exit::NotReady => 4,
            Exit::Refused => 5,
            Exit::Busy => 6,
            Exit::NotFound => 7,
            Exit::NoDaemon => 8,
            Exit::InvalidConfig => 9,
            Exit::StartFailed => 10,
            Exit::BreachNotRolledBack => 11,
            Exit::Forbidden => 12,
        })
    }
}

impl From<RefusalCode> for Exit {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::Busy => Self::Busy,
            RefusalCode::Refused => Self::Refused,
            RefusalCode::NotFound => Self::NotFound,
            RefusalCode::Malformed => Self::InvalidArguments,
            RefusalCode::Failed => Self::Failed,
            RefusalCode::Forbidden => Self::Forbidden,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/golden.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/each.rs"));

    #[test]
    fn every_exit_code_is_as_it_was() {
        let exits = one_of_each!(Exit;
            Exit::Done => "done" Exit::Done;
            Exit::Failed => "failed" Exit::Failed;
            Exit::InvalidArguments => "bad arguments" Exit::InvalidArguments;
            Exit::RolledBack => "rolled back" Exit::RolledBack;
            Exit::NotReady => "not ready" Exit::NotReady;
            Exit::Refused => "refused" Exit::Refused;
            Exit::Busy => "busy" Exit::Busy;
            Exit::NotFound => "unknown" Exit::NotFound;
            Exit::NoDaemon => "no daemon" Exit::NoDaemon;
            Exit::InvalidConfig => "bad config" Exit::InvalidConfig;
            Exit::StartFailed => "no start" Exit::StartFailed;
            Exit::BreachNotRolledBack => "held" Exit::BreachNotRolledBack;
            Exit::Forbidden => "forbidden" Exit::Forbidden;
        );
        let codes = one_of_each!(RefusalCode;
            RefusalCode::Busy => "busy" RefusalCode::Busy;
            RefusalCode::Refused => "refused" RefusalCode::Refused;
            RefusalCode::NotFound => "unknown" RefusalCode::NotFound;
            RefusalCode::Malformed => "malformed" RefusalCode::Malformed;
            RefusalCode::Failed => "failed" RefusalCode::Failed;
            RefusalCode::Forbidden => "forbidden" RefusalCode::Forbidden;
        );
        let exits = exits.iter().map(|(name, exit)| format!("{name}  {}\n", number(*exit)));
        let replies =
            codes.iter().map(|(name, code)| format!("reply {name}  {}\n", number((*code).into())));
        hold("exit-codes.txt", &exits.chain(replies).collect::<String>());
    }

    /// An exit code shows its number only to people.
    fn number(exit: Exit) -> u8 {
        let shown = |code: ExitCode| format!("{code:?}");
        let same = |number: &u8| shown(ExitCode::from(*number)) == shown(exit.into());
        (0..=u8::MAX).find(same).unwrap()
    }
}
