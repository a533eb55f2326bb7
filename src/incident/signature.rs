//! What two occurrences of the same incident have in common.

use serde::{Deserialize, Serialize};

/// The same service, fault, call, error code and new line of output: the same incident again.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Signature {
    /// The fault kind: `server fault`, `tool fault`, `down`, `never ready` and so on.
    pub fault: String,
    /// The call with most faults, such as `tools/call forecast`; empty where there is none.
    #[serde(default)]
    pub call: String,
    /// Its most frequent error code or HTTP status, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// The most frequent line of output that the previous release never printed, as a template.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

impl Signature {
    /// Whether both are the same incident. A part that one of them does not know does not decide,
    /// but a signature without a call and without output identifies nothing.
    pub fn matches(&self, other: &Self) -> bool {
        let agree = |a: &str, b: &str| a.is_empty() || b.is_empty() || a == b;
        let codes_agree = match (self.code, other.code) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        let is_specific = |it: &Self| !it.call.is_empty() || !it.output.is_empty();
        let share_a_part = (!self.call.is_empty() && self.call == other.call)
            || (!self.output.is_empty() && self.output == other.output);
        self.fault == other.fault
            && is_specific(self)
            && share_a_part
            && agree(&self.call, &other.call)
            && codes_agree
            && agree(&self.output, &other.output)
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.fault)?;
        if !self.call.is_empty() {
            write!(f, " of {}", self.call)?;
        }
        if let Some(code) = self.code {
            write!(f, " with {code}")?;
        }
        if !self.output.is_empty() {
            write!(f, ", output {:?}", self.output)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(fault: &str, call: &str, code: Option<i64>, output: &str) -> Signature {
        Signature { fault: fault.into(), call: call.into(), code, output: output.into() }
    }

    #[test]
    fn the_same_call_with_the_same_code_is_the_same_incident() {
        let first = signature("server fault", "tools/call forecast", Some(-32603), "");
        assert!(first.matches(&first));
        assert!(first.matches(&signature(
            "server fault",
            "tools/call forecast",
            None,
            "KeyError <*>"
        )));
        for other in [
            signature("tool fault", "tools/call forecast", Some(-32603), ""),
            signature("server fault", "tools/call alerts", Some(-32603), ""),
            signature("server fault", "tools/call forecast", Some(-32000), ""),
            signature("server fault", "", None, "KeyError <*>"),
        ] {
            assert!(!first.matches(&other), "{other}");
        }
        let unspecific = signature("down", "", None, "");
        assert!(!unspecific.matches(&unspecific));
    }
}
