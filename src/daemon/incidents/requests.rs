//! Answers the requests about incidents.

use std::io;

use nix::unistd::{Uid, User};

use crate::control::server::ReplyWriter;
use crate::control::{IncidentReply, IncidentRequest, ROWS_MAX, RefusalCode, Response};
use crate::daemon::incidents::Incidents;
use crate::daemon::services::ServiceHandles;
use crate::incident::{
    ACTIONS_MAX, Action, Author, HumanParts, IncidentEvent, ReviewVerdict, missing,
    notice_of_acknowledgement, notice_of_close,
};
use crate::model::{Actor, ReleaseNumber, TimelineEvent};

/// Why a request changed nothing.
pub(super) type Refusal = (RefusalCode, String);

impl Incidents {
    /// Answers a request of a user who may make it.
    pub(in crate::daemon) async fn answer(
        &self,
        actor: &Actor,
        request: IncidentRequest,
        handles: &ServiceHandles,
        replies: &mut ReplyWriter,
    ) -> io::Result<()> {
        let answered = match self.check_service(request.service()) {
            Ok(()) => self.handle(actor, request, handles).await,
            Err(refusal) => Err(refusal),
        };
        match answered {
            Ok(lines) => {
                for reply in lines {
                    replies.send(&Response::Incident { reply }).await?;
                }
                Ok(())
            }
            Err((code, because)) => replies.send(&Response::refused(code, because)).await,
        }
    }

    fn check_service(&self, name: Option<&str>) -> Result<(), Refusal> {
        let Some(name) = name else { return Ok(()) };
        if self.0.services.contains_key(name) {
            return Ok(());
        }
        let known: Vec<_> = self.0.services.keys().map(String::as_str).collect();
        let name = crate::control::printable(name);
        let because = format!("no service {name}; there are {}", known.join(", "));
        Err((RefusalCode::NotFound, because))
    }

    async fn handle(
        &self,
        actor: &Actor,
        request: IncidentRequest,
        handles: &ServiceHandles,
    ) -> Result<Vec<IncidentReply>, Refusal> {
        match request {
            IncidentRequest::List { service, open } => Ok(self.list(service.as_deref(), open)),
            IncidentRequest::Show { service, incident } => self.show(&service, incident),
            IncidentRequest::History { service } => self.history(&service, handles).await,
            IncidentRequest::Report { service, since_s } => {
                self.report(service.as_deref(), since_s, handles).await
            }
            IncidentRequest::Actions { service, open } => {
                Ok(self.actions(service.as_deref(), open))
            }
            IncidentRequest::Edit { service, incident, digest, parts } => {
                let by = author(actor).await;
                self.edit(&service, incident, &digest, parts, by)
            }
            IncidentRequest::Close { service, incident, verdict, no_review } => {
                let by = author(actor).await;
                self.close(&service, incident, (verdict, no_review), by)
            }
            IncidentRequest::Acknowledge { service } => {
                let by = author(actor).await;
                let (numbers, reply) = self.acknowledge(&service, by)?;
                for number in numbers {
                    self.notify_of(&service, number, |incident, at| {
                        Some(notice_of_acknowledgement(incident, at))
                    });
                    if let Some(handle) = handles.get(&service) {
                        let because = format!("acknowledged by {actor}");
                        let event = TimelineEvent::Acknowledged { by: actor.clone() };
                        handle.record_fact(number, event, because).await;
                    }
                }
                Ok(vec![reply])
            }
            IncidentRequest::AddAction { service, incident, action } => {
                let by = author(actor).await;
                self.add_action(&service, incident, action, by)
            }
            IncidentRequest::FinishAction { service, incident, item } => {
                let by = author(actor).await;
                self.finish_action(&service, incident, item, by)
            }
        }
    }

    fn list(&self, service: Option<&str>, open: bool) -> Vec<IncidentReply> {
        let now = self.0.clock.now();
        let mut rows = Vec::new();
        for name in self.0.services.keys().filter(|name| service.is_none_or(|it| it == *name)) {
            let Some(incidents) = self.service(name) else { continue };
            let selected = incidents.all().filter(|it| !open || it.is_open());
            rows.extend(selected.map(|it| incidents.row(it, now)));
        }
        rows.sort_by_key(|row| row.age_s);
        rows.truncate(ROWS_MAX);
        rows.into_iter().map(IncidentReply::Incident).collect()
    }

    fn show(
        &self,
        service: &str,
        number: Option<ReleaseNumber>,
    ) -> Result<Vec<IncidentReply>, Refusal> {
        let incidents = self.service(service).ok_or_else(gone)?;
        let newest = || incidents.all().next().map(|it| it.number);
        let Some(number) = number.or_else(newest) else {
            return Err((RefusalCode::NotFound, format!("{service} has no incident")));
        };
        if incidents.get(number).is_none() {
            return Err((RefusalCode::NotFound, incidents.no_incident(number)));
        }
        let document =
            tokio::task::block_in_place(|| incidents.document(number)).map_err(failed)?;
        Ok(vec![IncidentReply::PostMortem(Box::new(document))])
    }

    fn actions(&self, service: Option<&str>, open: bool) -> Vec<IncidentReply> {
        let mut replies = Vec::new();
        for name in self.0.services.keys().filter(|name| service.is_none_or(|it| it == *name)) {
            let Some(incidents) = self.service(name) else { continue };
            for incident in incidents.all() {
                let selected = incident.actions.iter().filter(|it| !open || !it.done);
                replies.extend(selected.map(|action| IncidentReply::Action {
                    service: name.clone(),
                    incident: incident.number,
                    action: action.clone(),
                }));
            }
        }
        replies.truncate(ROWS_MAX);
        replies
    }

    fn edit(
        &self,
        service: &str,
        number: ReleaseNumber,
        digest: &str,
        parts: HumanParts,
        by: Author,
    ) -> Result<Vec<IncidentReply>, Refusal> {
        let at = (self.0.clock.now(), self.0.clock.wall_time());
        let mut incidents = self.service(service).ok_or_else(gone)?;
        if incidents.get(number).is_none() {
            return Err((RefusalCode::NotFound, incidents.no_incident(number)));
        }
        tokio::task::block_in_place(|| {
            let present = incidents.human(number).map_err(failed)?;
            let present_digest = present.digest();
            if present_digest != digest {
                let digest = present_digest;
                return Ok(vec![IncidentReply::Conflict { digest, parts: present }]);
            }
            let changed = parts.changed(&present);
            if changed.is_empty() {
                return Ok(vec![done("nothing changed".to_owned())]);
            }
            let because = format!("saved {} of post-mortem {number}", changed.join(", "));
            // The text first: a record of an edit that was lost would be worse than none.
            incidents.write_document(number, parts.clone()).map_err(failed)?;
            let event = IncidentEvent::Edited { by, digest: parts.digest(), parts: changed };
            incidents.record(number, at, event).map_err(|error| failed(error.to_string()))?;
            // The state in the document is the one after the edit.
            incidents.write_document(number, parts).map_err(failed)?;
            Ok(vec![done(because)])
        })
    }

    fn close(
        &self,
        service: &str,
        number: ReleaseNumber,
        (verdict, no_review): (Option<ReviewVerdict>, Option<String>),
        by: Author,
    ) -> Result<Vec<IncidentReply>, Refusal> {
        {
            let incidents = self.service(service).ok_or_else(gone)?;
            let Some(incident) = incidents.get(number) else {
                return Err((RefusalCode::NotFound, incidents.no_incident(number)));
            };
            if !incident.is_open() {
                return Err((RefusalCode::Refused, format!("incident {number} is closed")));
            }
            let human = tokio::task::block_in_place(|| incidents.human(number)).map_err(failed)?;
            let missing = missing(incident, &human);
            if no_review.is_none() && !missing.is_empty() {
                let because = format!(
                    "incident {number} is not complete: {} missing; write it with `rollbackd \
                     postmortem {service} {number} --edit` and `rollbackd action add`, or close it \
                     with --no-review WHY",
                    missing.join(", ")
                );
                return Err((RefusalCode::Refused, because));
            }
        }
        self.change(service, number, IncidentEvent::Closed { by, verdict, no_review })?;
        self.notify_of(service, number, notice_of_close);
        Ok(vec![done(format!("incident {number} of {service} is closed"))])
    }

    /// Acknowledges the open incidents: their numbers, and the reply.
    fn acknowledge(
        &self,
        service: &str,
        by: Author,
    ) -> Result<(Vec<ReleaseNumber>, IncidentReply), Refusal> {
        let waiting: Vec<_> = {
            let incidents = self.service(service).ok_or_else(gone)?;
            let open = || incidents.open().filter(|it| it.acknowledged.is_none());
            // A person who answers a page does not take over what was settled before.
            let pages: Vec<_> = open().filter(|it| it.waits_for_person()).collect();
            let waiting = if pages.is_empty() { open().collect() } else { pages };
            waiting.iter().map(|it| it.number).collect()
        };
        if waiting.is_empty() {
            let because = format!("{service} has no incident that waits for an acknowledgement");
            return Err((RefusalCode::NotFound, because));
        }
        for number in &waiting {
            self.change(service, *number, IncidentEvent::Acknowledged { by: by.clone() })?;
        }
        let numbers: Vec<_> = waiting.iter().map(ToString::to_string).collect();
        let because = format!("acknowledged: incident {} of {service}", numbers.join(", "));
        Ok((waiting, done(because)))
    }

    fn add_action(
        &self,
        service: &str,
        number: ReleaseNumber,
        action: Action,
        by: Author,
    ) -> Result<Vec<IncidentReply>, Refusal> {
        let action = {
            let incidents = self.service(service).ok_or_else(gone)?;
            let Some(incident) = incidents.get(number) else {
                return Err((RefusalCode::NotFound, incidents.no_incident(number)));
            };
            if incident.actions.len() >= ACTIONS_MAX {
                let because = format!("incident {number} has {ACTIONS_MAX} action items already");
                return Err((RefusalCode::Refused, because));
            }
            Action { item: incident.next_item(), done: false, ..action }
        };
        let because = format!("added action item {number}-{}", action.item);
        self.change(service, number, IncidentEvent::ActionAdded { by, action })?;
        Ok(vec![done(because)])
    }

    fn finish_action(
        &self,
        service: &str,
        number: ReleaseNumber,
        item: u32,
        by: Author,
    ) -> Result<Vec<IncidentReply>, Refusal> {
        {
            let incidents = self.service(service).ok_or_else(gone)?;
            let known = incidents.get(number).is_some_and(|incident| {
                incident.actions.iter().any(|it| it.item == item && !it.done)
            });
            if !known {
                let because = format!("no open action item {number}-{item} of {service}");
                return Err((RefusalCode::NotFound, because));
            }
        }
        self.change(service, number, IncidentEvent::ActionDone { by, item })?;
        Ok(vec![done(format!("action item {number}-{item} is done"))])
    }

    /// Records a change, and writes the document again.
    fn change(
        &self,
        service: &str,
        number: ReleaseNumber,
        event: IncidentEvent,
    ) -> Result<(), Refusal> {
        if !self.record(service, number, event) {
            return Err(failed(format!("cannot write the record of incident {number}")));
        }
        self.rewrite(service, number);
        Ok(())
    }
}

/// The user's name; the system's user database can be slow.
async fn author(actor: &Actor) -> Author {
    let uid = actor.uid;
    let name = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid)));
    let name = tokio::time::timeout(std::time::Duration::from_secs(2), name).await;
    let user = name.ok().and_then(Result::ok).and_then(Result::ok).flatten();
    Author { uid, name: user.map(|it| it.name).unwrap_or_default() }
}

fn done(because: String) -> IncidentReply {
    IncidentReply::Done { because }
}

pub(super) fn failed(because: String) -> Refusal {
    (RefusalCode::Failed, because)
}

pub(super) fn gone() -> Refusal {
    failed("the daemon is stopping".to_owned())
}
