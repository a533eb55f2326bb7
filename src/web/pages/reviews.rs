//! Open reviews of incidents, and the channels that notify people.

use maud::{Markup, html};

use crate::control::{ChannelStatus, IncidentStatus, Status};
use crate::web::format::{count, plain, seconds};

/// Channels that the page lists.
const CHANNELS_SHOWN: usize = 20;

/// The section.
pub(super) fn reviews(service: &str, status: &Status) -> Markup {
    html! {
        h2 { "Incidents and notification" }
        @match &status.incidents {
            Some(incidents) => (open_reviews(service, incidents)),
            None => p.empty { "No review is open." },
        }
        @if let Some(error) = &status.notify_error { p.soon { "Notices can be lost: " (plain(error)) } }
        @if status.channels.is_empty() {
            p.empty { "No channel is configured: the daemon notifies no person." }
        } @else {
            (channels(&status.channels))
        }
    }
}

fn open_reviews(service: &str, incidents: &IncidentStatus) -> Markup {
    let (oldest, age_s) = incidents.oldest;
    html! {
        ul.guards {
            @if incidents.open > 0 {
                li class=[incidents.overdue.then_some("soon")] {
                    (count(incidents.open)) " open, the oldest is incident " (oldest) ", from "
                    (seconds(age_s as f64)) " ago" @if incidents.overdue { ", and overdue" } ". `rollbackd postmortem "
                    (service) " " (oldest) "` shows it."
                }
            }
            @if let Some(number) = incidents.unacknowledged {
                li.now { "Incident " (number) " waits for a person. `rollbackd ack " (service) "` acknowledges it." }
            }
            @if let Some(error) = &incidents.error { li.now { "Incidents are not recorded: " (plain(error)) } }
        }
    }
}

fn channels(channels: &[ChannelStatus]) -> Markup {
    let more = channels.len().saturating_sub(CHANNELS_SHOWN);
    html! {
        div.scroll tabindex="0" role="region" aria-label="Channels" {
            table {
                thead {
                    tr {
                        th scope="col" { "Channel" } th scope="col" { "Type" } th scope="col" { "State" }
                        th scope="col" { "Delivered" } th scope="col" { "Failed" } th scope="col" { "Waiting" }
                    }
                }
                tbody {
                    @for it in channels.iter().take(CHANNELS_SHOWN) {
                        tr {
                            th scope="row" { (plain(&it.name)) }
                            td { (plain(&it.channel_type)) }
                            td class=[it.failing_s.map(|_| "soon")] { (state(it)) }
                            td { (count(it.delivered)) } td { (count(it.failed)) } td { (count(it.waiting)) }
                        }
                    }
                }
            }
        }
        @if more > 0 { p { (more) " more" } }
    }
}

fn state(channel: &ChannelStatus) -> String {
    let error = channel.error.as_deref().map(plain);
    match (channel.failing_s, error) {
        (Some(failing), error) => {
            let why = error.map_or(String::new(), |it| format!(": {it}"));
            format!("fails for {}{why}", seconds(failing as f64))
        }
        (None, Some(error)) => format!("the last delivery failed: {error}"),
        (None, None) => "works".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::web::pages::tests::status;

    #[test]
    fn reviews_and_channels_have_their_states() {
        let mut status = status();
        let text = reviews("weather", &status).into_string();
        assert!(
            text.contains("No review is open.") && text.contains("notifies no person"),
            "{text}"
        );
        status.incidents = serde_json::from_value(json!({
            "open": 2, "oldest": [7, 345_600], "overdue": true, "unacknowledged": 9
        }))
        .unwrap();
        status.channels = serde_json::from_value(json!([
            {"name": "chat", "type": "slack", "waiting": 0, "delivered": 12, "failed": 0},
            {"name": "pager", "type": "pagerduty", "waiting": 3, "delivered": 0, "failed": 4,
             "failing_s": 90, "error": "status <503>"},
        ]))
        .unwrap();
        let text = reviews("weather", &status).into_string();
        for part in [
            "2 open, the oldest is incident 7, from 4 days ago, and overdue",
            "Incident 9 waits for a person",
            "fails for 90 s: status &lt;503&gt;",
            "<td>works</td>",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
