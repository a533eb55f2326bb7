//! What a person says about the daemon's verdict when the review ends.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whether the verdict was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReviewVerdict {
    /// The release was bad, and the deploy was to blame.
    Right,
    /// The release was healthy.
    FalseAlarm,
    /// The release was bad for this many minutes before the daemon found it.
    Missed(u32),
    /// The service failed, but not because of the deploy.
    NotTheDeploy,
}

/// How each is written on the command line.
pub const EXPECTED: &str = "write right, false-alarm, missed=MINUTES or not-the-deploy";

impl FromStr for ReviewVerdict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "right" => Ok(Self::Right),
            "false-alarm" => Ok(Self::FalseAlarm),
            "not-the-deploy" => Ok(Self::NotTheDeploy),
            _ => {
                let minutes = text.strip_prefix("missed=").and_then(|it| it.parse().ok());
                minutes.map(Self::Missed).ok_or_else(|| {
                    let shown: String = text.chars().take(40).collect();
                    format!("{shown:?} is not a verdict; {EXPECTED}")
                })
            }
        }
    }
}

impl fmt::Display for ReviewVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Right => f.write_str("right"),
            Self::FalseAlarm => f.write_str("false-alarm"),
            Self::Missed(minutes) => write!(f, "missed={minutes}"),
            Self::NotTheDeploy => f.write_str("not-the-deploy"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_reads_back_what_it_prints() {
        for text in ["right", "false-alarm", "missed=12", "not-the-deploy"] {
            assert_eq!(text.parse::<ReviewVerdict>().map(|it| it.to_string()), Ok(text.to_owned()));
        }
        for wrong in ["", "missed", "missed=-1", "wrong"] {
            assert!(wrong.parse::<ReviewVerdict>().unwrap_err().contains("not-the-deploy"));
        }
    }
}
