//! The messages about incidents: what the incident verbs send and receive.

use serde::{Deserialize, Serialize};

use crate::incident::text::clean_text;
use crate::incident::utc::parse_date;
use crate::incident::{
    Action, ActionKind, FIELD_MAX, HistoryRow, HumanParts, PostMortem, Report, ReviewVerdict,
};
use crate::model::ReleaseNumber;

/// Incidents, deploys or action items of one answer, the newest.
pub const ROWS_MAX: usize = 1_000;

/// What a client asks about incidents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "about", rename_all = "snake_case", deny_unknown_fields)]
pub enum IncidentRequest {
    /// List incidents, newest first.
    List {
        /// One service; all by default.
        #[serde(default)]
        service: Option<String>,
        /// Only those that need a review.
        #[serde(default)]
        open: bool,
    },
    /// Show a post-mortem.
    Show {
        /// The service.
        service: String,
        /// The incident; the newest by default.
        #[serde(default)]
        incident: Option<ReleaseNumber>,
    },
    /// Replace what people wrote.
    Edit {
        /// The service.
        service: String,
        /// The incident.
        incident: ReleaseNumber,
        /// The version of the text that the editor began with.
        digest: String,
        /// The new texts.
        parts: HumanParts,
    },
    /// End the review.
    Close {
        /// The service.
        service: String,
        /// The incident.
        incident: ReleaseNumber,
        /// Whether the daemon was right.
        #[serde(default)]
        verdict: Option<ReviewVerdict>,
        /// Why no review is needed.
        #[serde(default)]
        no_review: Option<String>,
    },
    /// Acknowledge the page.
    Acknowledge {
        /// The service.
        service: String,
    },
    /// List the deploys of a service, newest first.
    History {
        /// The service.
        service: String,
    },
    /// Statistics over deploys and incidents.
    Report {
        /// One service; all by default.
        #[serde(default)]
        service: Option<String>,
        /// How far back, in seconds.
        since_s: u64,
    },
    /// List action items.
    Actions {
        /// One service; all by default.
        #[serde(default)]
        service: Option<String>,
        /// Only those that are not done.
        #[serde(default)]
        open: bool,
    },
    /// Add an action item.
    AddAction {
        /// The service.
        service: String,
        /// The incident.
        incident: ReleaseNumber,
        /// The item; the daemon sets its number.
        action: Action,
    },
    /// An action item is done.
    FinishAction {
        /// The service.
        service: String,
        /// The incident.
        incident: ReleaseNumber,
        /// The item.
        item: u32,
    },
}

/// One line of the response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "about", rename_all = "snake_case")]
pub enum IncidentReply {
    /// An incident in a row.
    Incident(IncidentRow),
    /// A post-mortem.
    PostMortem(Box<PostMortem>),
    /// A deploy in a row.
    Deploy(HistoryRow),
    /// Statistics over deploys and incidents.
    Report(Box<Report>),
    /// An action item.
    Action {
        /// The service.
        service: String,
        /// The incident.
        incident: ReleaseNumber,
        /// The item.
        action: Action,
    },
    /// The text was changed meanwhile: the present texts and their version.
    Conflict {
        /// The version.
        digest: String,
        /// The texts.
        parts: HumanParts,
    },
    /// It is done.
    Done {
        /// What was done.
        because: String,
    },
}

/// An incident in a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentRow {
    /// The service.
    pub service: String,
    /// The incident.
    pub incident: ReleaseNumber,
    /// The version that was deployed.
    pub version: String,
    /// `opened`, `draft`, `in review` or `closed`.
    pub state: String,
    /// What happened.
    pub title: String,
    /// When it was opened, UTC.
    pub opened: String,
    /// Seconds since it was opened.
    pub age_s: u64,
    /// Requests that failed, of all in the same time.
    pub failed: (u64, u64),
    /// Whether it waits for a person, who did not acknowledge it yet.
    pub waits_for_person: bool,
    /// The earlier incident with the same signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recurrence_of: Option<ReleaseNumber>,
    /// Open action items.
    #[serde(default)]
    pub open_actions: u64,
}

impl IncidentRequest {
    /// The service that the request names.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::List { service, .. }
            | Self::Report { service, .. }
            | Self::Actions { service, .. } => service.as_deref(),
            Self::Show { service, .. }
            | Self::Edit { service, .. }
            | Self::Close { service, .. }
            | Self::Acknowledge { service }
            | Self::History { service }
            | Self::AddAction { service, .. }
            | Self::FinishAction { service, .. } => Some(service),
        }
    }

    /// Whether the request only reads.
    pub fn is_read_only(&self) -> bool {
        matches!(
            self,
            Self::List { .. }
                | Self::Show { .. }
                | Self::History { .. }
                | Self::Report { .. }
                | Self::Actions { .. }
        )
    }

    /// Checks every field.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub(super) fn validate(&self) -> Result<(), String> {
        match self {
            Self::Edit { parts, .. } => parts.validate(),
            Self::Close { no_review: Some(why), .. } => validate_field("the reason", why, false),
            Self::AddAction { action, .. } => validate_action(action),
            _ => Ok(()),
        }
    }
}

fn validate_action(action: &Action) -> Result<(), String> {
    validate_field("the text", &action.text, false)?;
    validate_field("the owner", &action.owner, false)?;
    validate_field("the check", &action.check, true)?;
    validate_field("the link", &action.link, true)?;
    let is_web = |link: &str| link.starts_with("https://") || link.starts_with("http://");
    if !action.link.is_empty() && !is_web(&action.link) {
        return Err(format!("the link {} is no web address", shown(&action.link)));
    }
    // Every kind is allowed; the match names them, so that a new one is decided here.
    let (ActionKind::Prevent | ActionKind::Detect | ActionKind::Mitigate) = action.kind;
    match parse_date(&action.due) {
        Some(_) => Ok(()),
        None => Err(format!("{} is no date; write it as 2026-12-01", shown(&action.due))),
    }
}

fn shown(text: &str) -> String {
    clean_text(text, 60)
}

fn validate_field(name: &str, text: &str, may_be_empty: bool) -> Result<(), String> {
    if text.trim().is_empty() && !may_be_empty {
        return Err(format!("{name} is empty"));
    }
    if text.chars().count() > FIELD_MAX {
        return Err(format!("{name} is longer than {FIELD_MAX} characters"));
    }
    if text.contains(char::is_control) {
        return Err(format!("{name} {} contains a control character", shown(text)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_has_text_owner_and_date() {
        let action = |text: &str, owner: &str, due: &str, link: &str| {
            let (text, owner, due) = (text.into(), owner.into(), due.into());
            let (kind, check, link) = (ActionKind::Detect, String::new(), link.into());
            let action = Action { item: 0, kind, text, owner, due, check, link, done: false };
            let (service, incident) = ("weather".into(), ReleaseNumber(7));
            IncidentRequest::AddAction { service, incident, action }.validate()
        };
        assert_eq!(action("cover forecast", "team weather", "2026-12-01", ""), Ok(()));
        for (text, owner, due, link) in [
            ("", "team", "2026-12-01", ""),
            ("x", "", "2026-12-01", ""),
            ("x", "team", "tomorrow", ""),
            ("x\ny", "team", "2026-12-01", ""),
            ("x", "team", "2026-12-01", "javascript:alert(1)"),
        ] {
            action(text, owner, due, link).unwrap_err();
        }
    }
}
