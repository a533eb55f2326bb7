// Compares what is sent or stored with the text files in tests/wire. Unit tests in src include this
// file, since the types that they check are private.

use std::fs;
use std::path::Path;

/// Compares `text` with a golden and shows a diff. `WIRE_BLESS=1` writes the golden instead.
#[track_caller]
pub(crate) fn hold(golden: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire").join(golden);
    if std::env::var_os("WIRE_BLESS").is_some() {
        fs::write(&path, text).unwrap();
        return;
    }
    let held = fs::read_to_string(&path).unwrap_or_default();
    let (held, now): (Vec<_>, Vec<_>) = (held.lines().collect(), text.lines().collect());
    assert!(
        held == now,
        "the wire differs from tests/wire/{golden} (- golden, + now):\n{}\nWIRE_BLESS=1 writes it down",
        diff(&held, &now)
    );
}

/// The lines that only one side contains, by the longest common subsequence.
fn diff(held: &[&str], now: &[&str]) -> String {
    let mut common = vec![vec![0_usize; now.len() + 1]; held.len() + 1];
    for (i, old) in held.iter().enumerate().rev() {
        for (j, new) in now.iter().enumerate().rev() {
            common[i][j] = match old == new {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < held.len() || j < now.len() {
        if i < held.len() && j < now.len() && held[i] == now[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == now.len() || (i < held.len() && common[i + 1][j] >= common[i][j + 1]) {
            text += &format!("- {}\n", held[i]);
            i += 1;
        } else {
            text += &format!("+ {}\n", now[j]);
            j += 1;
        }
    }
    text
}
