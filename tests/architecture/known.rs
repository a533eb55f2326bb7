//! What does not hold yet: a list that may only shrink, and is empty in the end.

use std::collections::BTreeSet;
use std::fs;

const KNOWN: &str = "tests/architecture/known.txt";

/// Compares what was found with the entries of one kind. Nothing may be added; what is gone must
/// be deleted from the list. `UPDATE=1` deletes it.
pub(crate) fn assert_known(kind: &str, found: &BTreeSet<String>) {
    let text = fs::read_to_string(KNOWN).unwrap();
    let prefix = format!("{kind} ");
    let entries = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    let known: BTreeSet<String> = entries.map(str::to_owned).collect();
    let new: Vec<_> = found.difference(&known).collect();
    assert!(new.is_empty(), "new {kind}: {new:#?}");
    let gone: Vec<_> = known.difference(found).collect();
    if std::env::var_os("UPDATE").is_some() && !gone.is_empty() {
        let is_gone = |line: &str| {
            line.strip_prefix(&prefix).is_some_and(|entry| gone.iter().any(|it| *it == entry))
        };
        let left: Vec<_> = text.lines().filter(|line| !is_gone(line)).collect();
        fs::write(KNOWN, left.join("\n") + "\n").unwrap();
    } else {
        assert!(gone.is_empty(), "delete from {KNOWN}, or set UPDATE=1: {kind} {gone:#?}");
    }
}
