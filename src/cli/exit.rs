//! The exit codes. They never change, so that scripts can rely on them.

use std::process::ExitCode;

use crate::control::RefusalCode;

/// Their description in `--help`.
pub(super) const HELP: &str = "\
Exit codes:
  0  done; with --wait: the release was accepted, or the rollback is complete
  1  failed for another reason, which is printed
  2  the arguments are not valid
  3  deploy --wait: the release was rolled back; backtest --labelled: a good release would now
     be rolled back
  4  deploy --wait: the release did not become ready, or drops what clients use (a protocol
     version; with --strict: tools, prompts, capabilities); the traffic did not move
  5  refused: blocked by a guard; postmortem --edit --strict: a text blames a person
  6  busy: another operation must end first
  7  no such service or deploy
  8  no daemon answers
  9  the configuration has errors
 10  the daemon cannot start: state directory, address or socket not available
 11  a breach was not rolled back: hold, freeze, observe mode, limit, shared outage, or the
     previous release cannot take over; backtest --labelled: a bad release is no longer found
 12  not allowed: reading needs the group rollbackd; acting needs root or the group
     rollbackd-admin
 13  deploy --wait: the release was accepted (unverified): too little traffic to judge it
130  interrupted while it waited; the daemon goes on";

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
    /// The release was accepted without evidence for it.
    Unverified,
    /// A signal ended the wait.
    Interrupted,
}

impl Exit {
    /// The number.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::InvalidArguments => 2,
            Self::RolledBack => 3,
            Self::NotReady => 4,
            Self::Refused => 5,
            Self::Busy => 6,
            Self::NotFound => 7,
            Self::NoDaemon => 8,
            Self::InvalidConfig => 9,
            Self::StartFailed => 10,
            Self::BreachNotRolledBack => 11,
            Self::Forbidden => 12,
            Self::Unverified => 13,
            // As a shell reports a process that SIGINT ended.
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
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
            RefusalCode::InvalidConfig => Self::InvalidConfig,
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
            Exit::Unverified => "unverified" Exit::Unverified;
            Exit::Interrupted => "interrupted" Exit::Interrupted;
        );
        let codes = one_of_each!(RefusalCode;
            RefusalCode::Busy => "busy" RefusalCode::Busy;
            RefusalCode::Refused => "refused" RefusalCode::Refused;
            RefusalCode::NotFound => "unknown" RefusalCode::NotFound;
            RefusalCode::Malformed => "malformed" RefusalCode::Malformed;
            RefusalCode::Failed => "failed" RefusalCode::Failed;
            RefusalCode::Forbidden => "forbidden" RefusalCode::Forbidden;
            RefusalCode::InvalidConfig => "invalid config" RefusalCode::InvalidConfig;
        );
        let exits = exits.iter().map(|(name, exit)| format!("{name}  {}\n", exit.code()));
        let replies = codes
            .iter()
            .map(|(name, code)| format!("reply {name}  {}\n", Exit::from(*code).code()));
        hold("exit-codes.txt", &exits.chain(replies).collect::<String>());
    }
}
