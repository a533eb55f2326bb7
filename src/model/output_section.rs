//! The line that separates the runs of releases in the output file of a slot.

use crate::model::release::{Release, ReleaseNumber};

const PREFIX: &str = "--- rollbackd starts deploy ";
const SUFFIX: &str = " ---";

/// The line before the output of a release, without its line break.
pub fn output_section(release: &Release) -> String {
    format!("{PREFIX}{}: {}{SUFFIX}", release.number, release.version)
}

/// The release whose output begins after this line, if it is such a line.
pub fn parse_output_section(line: &str) -> Option<ReleaseNumber> {
    let (number, _) = line.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once(": ")?;
    number.parse().ok().map(ReleaseNumber)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Slot;

    #[test]
    fn a_section_reads_back() {
        let release = Release {
            version: "v2".into(),
            number: ReleaseNumber(7),
            slot: Slot("blue".into()),
            artifact: None,
            digest: None,
            environment: BTreeMap::new(),
            same_version: false,
        };
        assert_eq!(parse_output_section(&output_section(&release)), Some(ReleaseNumber(7)));
        for other in ["", "--- rollbackd starts deploy x: v2 ---", "deploy 7: v2"] {
            assert_eq!(parse_output_section(other), None, "{other}");
        }
    }
}
