//! The exit codes. They never change, so that scripts can rely on them.

use std::process::ExitCode;

use crate::control::RefusalCode;

/// Their description in `--help`.
pub(super) const HELP: &str = "\
Exit codes:
  0  done; with --wait: the release was accepted, or the rollback is complete
  1  failed for another reason, which is printed
  2  the arguments are not valid
  3  deploy --wait: the release was rolled back
  4  deploy --wait: the release did not become ready, or drops what clients use (a protocol
     version; with --strict: tools, prompts, capabilities); the traffic did not move
  5  refused: blocked by a guard
  6  busy: another operation must end first
  7  no such service or deploy
  8  no daemon answers
  9  the configuration has errors
 10  the daemon cannot start: state directory, address or socket not available
 11  a breach was not rolled back: hold, freeze, observe mode, limit, shared outage, or the
     previous release cannot take over
 12  not allowed: reading needs the group rollbackd; acting needs root or the group
     rollbackd-admin";

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done.
    Done,
    /// It failed for another reason.
    Failed,
    /// The arguments are not valid.
    InvalidArguments,
    /// The release was rolled back.
    RolledBack,
    /// The release did not become ready.
    NotReady,
    /// A guard blocks it.
    Refused,
    /// Another operation must end first.
    Busy,
    /// No such service or deploy.
    NotFound,
    /// No daemon answers.
    NoDaemon,
    /// The configuration has errors.
    InvalidConfig,
    /// The daemon cannot start.
    StartFailed,
    /// A breach without a rollback, or a rollback that did not succeed.
    BreachNotRolledBack,
    /// The user is not in the required group.
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

    /// `ExitCode` has no accessor for its number.
    fn number(exit: Exit) -> u8 {
        let shown = |code: ExitCode| format!("{code:?}");
        let same = |number: &u8| shown(ExitCode::from(*number)) == shown(exit.into());
        (0..=u8::MAX).find(same).unwrap()
    }
}
