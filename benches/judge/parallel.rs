//! Two threads that share the seeds; the order of the answers is that of the seeds.

/// What `work` makes of each of the first `count` seeds.
pub fn run_seeds<T: Send>(count: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let work = &work;
    let half = |first: u64| move || (first..count).step_by(2).map(work).collect::<Vec<T>>();
    let (even, odd) = std::thread::scope(|scope| {
        let odd = scope.spawn(half(1));
        let even = half(0)();
        (even, odd.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let mut odd = odd.into_iter();
    even.into_iter().flat_map(|it| [Some(it), odd.next()]).flatten().collect()
}
