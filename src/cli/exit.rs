//! Exit codes that a script can trust.

use std::process::ExitCode;

use crate::control::Code;

/// What `--help` says about them.
pub(super) const HELP: &str = "\
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
pub(super) enum Exit {
    /// Done.
    Done,
    /// For another reason.
    Failed,
    /// The arguments make no sense.
    BadArguments,
    /// The release was rolled back.
    RolledBack,
    /// The release never became ready.
    NotReady,
    /// A guard stands against it.
    Refused,
    /// Something else has to end first.
    Busy,
    /// No such service or deploy.
    Unknown,
    /// No daemon answers.
    NoDaemon,
    /// The configuration has errors.
    BadConfig,
    /// The daemon can not start.
    NoStart,
    /// A breach without a rollback.
    Held,
    /// Not in the group that it takes.
    Forbidden,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::BadArguments => 2,
            Exit::RolledBack => 3,
            Exit::NotReady => 4,
            Exit::Refused => 5,
            Exit::Busy => 6,
            Exit::Unknown => 7,
            Exit::NoDaemon => 8,
            Exit::BadConfig => 9,
            Exit::NoStart => 10,
            Exit::Held => 11,
            Exit::Forbidden => 12,
        })
    }
}

impl From<Code> for Exit {
    fn from(code: Code) -> Self {
        match code {
            Code::Busy => Self::Busy,
            Code::Refused => Self::Refused,
            Code::Unknown => Self::Unknown,
            Code::Malformed => Self::BadArguments,
            Code::Failed => Self::Failed,
            Code::Forbidden => Self::Forbidden,
        }
    }
}
