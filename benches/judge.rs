//! How soon the judge finds trouble and how often it is wrong, beside its peers, on the same
//! seeded streams.
//!
//! `cargo bench --bench judge` runs everything; `-- quick` a twentieth of it; `-- delays`,
//! `-- nulls` and `-- cost` a part. Times of detection are simulated, so only the costs depend on
//! the machine.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

#[expect(dead_code, unreachable_pub, reason = "the tests use the rest")]
#[path = "judge/mod.rs"]
mod judge;

use judge::{cpu_cost, detection_delay, false_rollbacks};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let content = |word: &str| words.iter().any(|it| it == word);
    let part = |word: &str| content(word) || !["delays", "nulls", "cost"].into_iter().any(content);
    let scale = if content("quick") { 20 } else { 1 };
    if part("delays") {
        println!("{}", detection_delay::report(400 / scale));
        println!("{}", detection_delay::attribution_report(400 / scale));
    }
    if part("nulls") {
        false_rollbacks::report(10_000 / scale, |row| println!("{row}"));
    }
    if part("cost") {
        println!("{}", cpu_cost::report());
    }
}
