//! `alertmanager`: alerts of the API v2, `POST /api/v2/alerts`.
//!
//! An alert is identified by its labels; a resolved notice ends the alerts of the kinds that were sent.
//! Alertmanager forgets an alert that is not sent again, unless it has an end: this is far away.

use std::time::Duration;

use serde_json::{Value, json};

use crate::incident::{Notice, NoticeKind, utc};
use crate::model::Moment;
use crate::notify::json::insert;

/// How long an alert fires that nothing resolves.
const FIRES_FOR: Duration = Duration::from_hours(24 * 7);
/// The same for what needs no end: news, reminders and tests.
const SHOWN_FOR: Duration = Duration::from_hours(1);

/// The alerts of a notice; none for an acknowledgement, which the API does not have.
pub(super) fn alerts(notice: &Notice) -> Vec<Value> {
    if notice.acknowledged {
        return Vec::new();
    }
    if notice.kind == NoticeKind::Resolved {
        return notice.resolves.iter().map(|kind| alert(notice, *kind, Duration::ZERO)).collect();
    }
    let fires_for = match notice.kind {
        NoticeKind::Page | NoticeKind::Warn if !notice.test => FIRES_FOR,
        _ => SHOWN_FOR,
    };
    vec![alert(notice, notice.kind, fires_for)]
}

fn alert(notice: &Notice, kind: NoticeKind, fires_for: Duration) -> Value {
    let severity = match kind {
        _ if notice.test => "info",
        NoticeKind::Page => "critical",
        NoticeKind::Warn => "warning",
        NoticeKind::Info | NoticeKind::Resolved | NoticeKind::Reminder => "info",
    };
    let name = match kind {
        _ if notice.test => "RollbackdTest",
        NoticeKind::Reminder => "RollbackdReminder",
        _ => "RollbackdIncident",
    };
    let ends = rfc3339(notice.moment + fires_for);
    let mut alert = json!({
        "labels": {
            "alertname": name,
            "severity": severity,
            "instance": notice.host,
            "service": notice.service,
            "incident": notice.incident.to_string(),
        },
        "annotations": {
            "summary": notice.title,
            "description": notice.text,
            "notice": notice.id,
            "command": notice.command,
        },
        "endsAt": ends,
    });
    if fires_for > Duration::ZERO {
        insert(&mut alert, "startsAt", json!(rfc3339(notice.moment)));
    }
    if let Some(url) = &notice.url {
        insert(&mut alert, "generatorURL", json!(url));
    }
    alert
}

fn rfc3339(moment: Moment) -> String {
    utc::format_time(moment).replacen(' ', "T", 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::example::hostile;

    #[test]
    fn an_alert_ends_under_the_labels_of_its_begin() {
        let mut notice = hostile();
        let firing = alerts(&notice).remove(0);
        assert_eq!(firing["labels"]["severity"], "critical");
        assert_eq!(firing["startsAt"], "2026-11-27T10:00:00Z");
        assert_eq!(firing["endsAt"], "2026-12-04T10:00:00Z");
        notice.kind = NoticeKind::Resolved;
        notice.resolves = vec![NoticeKind::Page, NoticeKind::Warn];
        let ended = alerts(&notice);
        assert_eq!(ended.len(), 2);
        assert_eq!(ended[0]["labels"], firing["labels"]);
        assert_eq!(ended[0]["endsAt"], "2026-11-27T10:00:00Z");
        notice.acknowledged = true;
        assert!(alerts(&notice).is_empty());
    }
}
