//! How soon the judge finds trouble and how often it is wrong, beside its peers, on the same
//! seeded streams.
//!
//! `cargo bench --bench judge` runs everything; `-- quick` a twentieth of it; `-- delays`,
//! `-- nulls`, `-- cost` and `-- trial` a part. Times of detection are simulated, so only the costs
//! depend on the machine.
//!
//! Of the randomized trial, `-- harm`, `-- false`, `-- one-sided` and `-- total-failure` print a table
//! each; `-- hold-out` the seeds and scenes that no parameter was chosen on. `-- trial long` has 10,000
//! bakes a row of the scenes at the promise; it takes hours.
#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "a benchmark prints")]

#[expect(dead_code, unreachable_pub, reason = "the tests use the rest")]
#[path = "judge/mod.rs"]
mod judge;

use judge::trial::{report, scenes};
use judge::{cpu_cost, detection_delay, false_rollbacks};

const PARTS: [&str; 9] =
    ["delays", "nulls", "cost", "trial", "harm", "false", "one-sided", "total-failure", "hold-out"];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let content = |word: &str| words.iter().any(|it| it == word);
    let part = |word: &str| content(word) || !PARTS.into_iter().any(content);
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
    run_trial(&content, part("trial"), 400 / scale);
}

/// The tables of the randomized trial.
fn run_trial(content: &dyn Fn(&str) -> bool, all: bool, bakes: u64) {
    let quarter = (bakes / 4).max(1);
    if content("long") {
        return report::false_rollbacks(&scenes::HEALTHY_SCENES[..4], &report::SIZES, 10_000, 0);
    }
    if content("harm") || all {
        report::harm(scenes::BROKEN, &report::SIZES, if all { quarter } else { bakes }, 0);
    }
    if content("false") || all {
        let bakes = if all { quarter } else { bakes };
        report::false_rollbacks(scenes::HEALTHY_SCENES, &report::SIZES, bakes, 0);
    }
    if content("one-sided") {
        report::false_rollbacks(scenes::ONE_SIDED, &report::SIZES[..4], bakes, 0);
    }
    if content("total-failure") {
        report::total_failure(bakes);
    }
    if content("hold-out") {
        report::hold_out(bakes);
    }
}
