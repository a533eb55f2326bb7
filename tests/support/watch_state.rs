use rollbackd::decide::Watch;

/// Everything a watch stores, except for what a restart may change: deadlines, the ticket, and how
/// long it took.
pub(crate) fn state(watch: &Watch) -> String {
    let mut text = format!("{watch:#?}");
    for field in ["until: Moment(", "no_data_since: Some(", "ticket: Ticket("] {
        let parts: Vec<_> = text.split(field).map(str::to_owned).collect();
        let rest = parts.iter().skip(1).map(|it| it.split_once(')').unwrap().1);
        text = parts[0].clone() + &rest.collect::<String>();
    }
    let is_kept = |line: &&str| !line.trim_start().starts_with("downtime: ");
    text.lines().filter(is_kept).collect::<Vec<_>>().join("\n")
}
