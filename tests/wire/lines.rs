// Files of lines, each of which starts with a name. Unit tests in src include this file.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes `name  JSON`, one line for each example.
pub(crate) fn lines<T: Serialize>(examples: &[(&str, T)]) -> String {
    let line = |(name, it): &(&str, T)| format!("{name}  {}\n", serde_json::to_string(it).unwrap());
    examples.iter().map(line).collect()
}

/// Checks that every line of `old` parses, and equals the example of the same name.
#[track_caller]
pub(crate) fn still_read<T>(old: &str, examples: &[(&str, T)])
where
    T: DeserializeOwned + Debug,
{
    assert!(!old.is_empty());
    for line in old.lines() {
        let (name, json) = line.split_once("  ").unwrap();
        let read: T = serde_json::from_str(json).unwrap_or_else(|it| panic!("{line}: {it}"));
        let example = examples.iter().find(|(it, _)| *it == name);
        let (_, example) = example.unwrap_or_else(|| panic!("no example is called {name}"));
        // Some types do not implement `PartialEq`. Their debug output contains every field.
        assert_eq!(format!("{read:?}"), format!("{example:?}"), "{line}");
    }
}
