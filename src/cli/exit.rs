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
            Exit::BadArguments => "bad arguments" Exit::BadArguments;
            Exit::RolledBack => "rolled back" Exit::RolledBack;
            Exit::NotReady => "not ready" Exit::NotReady;
            Exit::Refused => "refused" Exit::Refused;
            Exit::Busy => "busy" Exit::Busy;
            Exit::Unknown => "unknown" Exit::Unknown;
            Exit::NoDaemon => "no daemon" Exit::NoDaemon;
            Exit::BadConfig => "bad config" Exit::BadConfig;
            Exit::NoStart => "no start" Exit::NoStart;
            Exit::Held => "held" Exit::Held;
            Exit::Forbidden => "forbidden" Exit::Forbidden;
        );
        let codes = one_of_each!(Code;
            Code::Busy => "busy" Code::Busy;
            Code::Refused => "refused" Code::Refused;
            Code::Unknown => "unknown" Code::Unknown;
            Code::Malformed => "malformed" Code::Malformed;
            Code::Failed => "failed" Code::Failed;
            Code::Forbidden => "forbidden" Code::Forbidden;
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
