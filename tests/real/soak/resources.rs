//! What the daemon uses.

use crate::pids::{memory_kib, open_files};

/// Kernel and allocator round up, and each daemon has another layout; a leak of 1 KiB in each of a hundred
/// thousand requests would be ten times as much.
const MEMORY_GROWTH_MAX: f64 = 1.10;
/// The programs of the clients keep some connections more or less, each with one at a release behind it. A
/// third of half an hour has some hundred sessions and thousands of calls: a leak in either is far more.
const FILES_GROWTH_MAX: f64 = 30.0;
/// With fewer samples in each third chance decides.
const SAMPLES_MIN: usize = 30;

#[derive(Debug, Default)]
pub(super) struct Resources(Vec<(u64, usize)>);

impl Resources {
    pub(super) fn sample(&mut self, pid: i32) {
        self.0.push((memory_kib(pid, "VmRSS"), open_files(pid)));
    }

    /// What grew from the middle third to the last one. The first third fills caches and tables.
    pub(super) fn growth(&self) -> (String, Vec<String>) {
        let third = self.0.len() / 3;
        let (middle, last) = (&self.0[third..2 * third], &self.0[2 * third..]);
        let memory = |of: &[(u64, usize)]| mean(of.iter().map(|it| it.0 as f64));
        let files = |of: &[(u64, usize)]| mean(of.iter().map(|it| it.1 as f64));
        let text = format!(
            "the daemon: {:.0} KiB, then {:.0} KiB; {:.1} open files, then {:.1}; {} samples",
            memory(middle),
            memory(last),
            files(middle),
            files(last),
            self.0.len()
        );
        let grew = memory(last) > memory(middle) * MEMORY_GROWTH_MAX
            || files(last) > files(middle) + FILES_GROWTH_MAX;
        let wrong = (grew && third >= SAMPLES_MIN).then(|| format!("it grows: {text}"));
        (text, wrong.into_iter().collect())
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}
