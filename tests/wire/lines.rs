// Files of lines, each of which begins with a name. Unit tests in src include this file.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// `name  JSON`, a line for each example.
pub(crate) fn lines<T: Serialize>(examples: &[(&str, T)]) -> String {
    let line = |(name, it): &(&str, T)| format!("{name}  {}\n", serde_json::to_string(it).unwrap());
    examples.iter().map(line).collect()
}

/// Every line of `old` is still read, and means what the example of the same name says.
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
        // Some types cannot be compared; each of them prints all that it holds.
        assert_eq!(format!("{read:?}"), format!("{example:?}"), "{line}");
    }
}
