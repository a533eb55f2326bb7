//! Reminds of reviews and action items that are due, and tells a deploy about them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::config::normal_value;
use crate::daemon::incidents::Incidents;
use crate::daemon::incidents::gather::settings;
use crate::incident::{
    FollowUp, IncidentEvent, follow_up, is_overdue, is_reminder_due, notice_of_reminder,
};
use crate::model::ReleaseNumber;

/// How often the daemon looks for what is due.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Warnings of one deploy.
const WARNINGS_MAX: usize = 10;

impl Incidents {
    /// Reminds of what is due, and removes what is not kept. Never returns.
    pub(in crate::daemon) async fn remind(self) {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let settings = self.settings();
            for name in self.0.services.keys() {
                if let Some(after) = settings.incidents.remind {
                    self.remind_of_service(name, after);
                }
                if let Some(keep) = settings.incidents.keep
                    && let Some(mut incidents) = self.service(name)
                {
                    tokio::task::block_in_place(|| incidents.keep_newest_closed(keep));
                }
            }
        }
    }

    fn remind_of_service(&self, name: &str, after: Duration) {
        let now = self.0.clock.now();
        let due: Vec<_> = match self.service(name) {
            Some(incidents) => {
                let due = incidents.all().filter(|it| is_reminder_due(it, now, after));
                due.map(|it| it.number).collect()
            }
            None => return,
        };
        for number in due {
            // The notice first: one that is queued twice has the same id.
            self.notify_of(name, number, |it, at| Some(notice_of_reminder(it, at)));
            self.record(name, number, IncidentEvent::Reminded);
        }
    }

    /// What a deploy should know of earlier incidents: overdue reviews, and action items that are not so.
    /// An item that is marked as done and is not so is open again.
    ///
    /// # Errors
    /// A review is overdue, and `require_review` is set: why the deploy is refused, unless it is forced.
    pub(in crate::daemon) fn review_before_deploy(
        &self,
        name: &str,
        forced: bool,
    ) -> Result<Vec<String>, String> {
        let all = self.settings();
        let within = all.incidents.review_within();
        let settings = all.services.get(name).map(settings).unwrap_or_default();
        let (mut warnings, overdue, found) = self.find_due(name, within, &settings);
        if let Some(first) = overdue.first()
            && all.incidents.require_review
            && !forced
        {
            return Err(format!(
                "refused: the review of incident {first} is overdue, and require_review is set; \
                 `rollbackd postmortem {name} {first} --edit`, or --force"
            ));
        }
        for (number, FollowUp { item, text, reopens }) in found {
            if reopens {
                let because = text.clone();
                self.record(name, number, IncidentEvent::ActionReopened { item, because });
            }
            warnings.push(text);
        }
        warnings.truncate(WARNINGS_MAX);
        Ok(warnings)
    }

    /// Warnings about overdue reviews, the incidents that have them, and what action items want.
    fn find_due(
        &self,
        name: &str,
        within: Duration,
        settings: &BTreeMap<String, String>,
    ) -> (Vec<String>, Vec<ReleaseNumber>, Vec<(ReleaseNumber, FollowUp)>) {
        let now = self.0.clock.now();
        let Some(incidents) = self.service(name) else { return Default::default() };
        let overdue: Vec<_> =
            incidents.open().filter(|it| is_overdue(it, now, within)).map(|it| it.number).collect();
        let warnings = overdue.iter().map(|number| {
            format!(
                "the review of incident {number} is overdue: `rollbackd postmortem {name} {number} \
                 --edit`"
            )
        });
        let found = incidents.all().flat_map(|incident| {
            let found = follow_up(incident, settings, normal_value, now).into_iter();
            found.map(|it| (incident.number, it))
        });
        (warnings.collect(), overdue.clone(), found.take(WARNINGS_MAX).collect())
    }
}
