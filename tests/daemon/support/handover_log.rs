/// The daemons that took over, in order, by what their predecessors logged.
pub(crate) fn successor_pids(log: &str) -> Vec<i32> {
    let number = |line: &str| {
        let (before, _) = line.split_once(" took over; draining")?;
        let (_, number) = before.rsplit_once("process ")?;
        number.split(' ').next()?.parse().ok()
    };
    log.lines().filter_map(number).collect()
}
