//! The faults that the demo can show.

use std::fmt;
use std::str::FromStr;

/// What goes wrong in the demo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Every request gets HTTP 500, also probes.
    Total,
    /// This share of the calls, in percent, gets a JSON-RPC error. Probes succeed.
    Errors(f64),
    /// Every call takes 1.5 s.
    Slow,
    /// No call is answered.
    Hang,
    /// Every call returns a result with `isError`.
    ToolErrors,
    /// Every call of the tool `weather` returns a result with `isError`; the other tools work.
    OneTool,
    /// Every call of both releases returns a result with `isError` for five seconds, as if a service
    /// behind them were down.
    SharedOutage,
    /// Nothing.
    None,
    /// The process exits, and exits again after each start.
    CrashLoop,
}

const EXPECTED: &str = "write total, errors=20%, slow, hang, tool-errors, one-tool, crash-loop, \
                        shared-outage or none";

impl Fault {
    /// Whether the release on trial is to blame, so that the daemon has to roll back.
    pub fn is_of_the_release(self) -> bool {
        !matches!(self, Self::SharedOutage | Self::None)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "total" => Ok(Self::Total),
            "slow" => Ok(Self::Slow),
            "hang" => Ok(Self::Hang),
            "tool-errors" => Ok(Self::ToolErrors),
            "crash-loop" => Ok(Self::CrashLoop),
            "one-tool" => Ok(Self::OneTool),
            "shared-outage" => Ok(Self::SharedOutage),
            "none" => Ok(Self::None),
            _ => {
                let Some(share) = text.strip_prefix("errors=") else {
                    return Err(format!("unknown fault {text:?}; {EXPECTED}"));
                };
                let percent = share.strip_suffix('%').and_then(|share| share.parse::<f64>().ok());
                percent
                    .filter(|percent| *percent > 0.0 && *percent <= 100.0)
                    .map(Self::Errors)
                    .ok_or_else(|| {
                        format!(
                            "{share:?} is not a share of the calls; write a number above 0 and up \
                             to 100 with a percent sign, such as errors=20%"
                        )
                    })
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total => f.write_str("total"),
            Self::Errors(percent) => write!(f, "errors={percent}%"),
            Self::Slow => f.write_str("slow"),
            Self::Hang => f.write_str("hang"),
            Self::ToolErrors => f.write_str("tool-errors"),
            Self::CrashLoop => f.write_str("crash-loop"),
            Self::OneTool => f.write_str("one-tool"),
            Self::SharedOutage => f.write_str("shared-outage"),
            Self::None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_reads_back_what_it_prints() {
        let words = ["total", "errors=20%", "errors=0.5%", "slow", "hang", "tool-errors"];
        for text in words.into_iter().chain(["one-tool", "crash-loop", "shared-outage", "none"]) {
            assert_eq!(text.parse::<Fault>().map(|fault| fault.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn the_error_for_a_wrong_fault_lists_the_faults() {
        let unknown = "totl".parse::<Fault>().unwrap_err();
        assert!(unknown.contains("total, errors=20%, slow, hang"), "{unknown}");
        for text in ["errors=20", "errors=0%", "errors=101%", "errors=NaN%", "errors=%"] {
            let why = text.parse::<Fault>().unwrap_err();
            assert!(why.contains("errors=20%"), "{why}");
        }
    }
}
