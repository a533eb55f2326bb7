use rollbackd::decide::Watch;

/// Everything a watch stores, except for what a restart may change: deadlines and the ticket.
pub(crate) fn state(watch: &Watch) -> String {
    let mut text = format!("{watch:#?}");
    for field in ["until: Moment(", "no_data_since: Some(", "ticket: Ticket("] {
        let parts: Vec<_> = text.split(field).map(str::to_owned).collect();
        let rest = parts.iter().skip(1).map(|it| it.split_once(')').unwrap().1);
        text = parts[0].clone() + &rest.collect::<String>();
    }
    text
}
