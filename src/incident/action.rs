//! Action items: what has to change, so that the same incident does not come back.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::ReleaseNumber;

/// Longest text of a field, in characters.
pub const FIELD_MAX: usize = 500;
/// Items of one incident.
pub const ACTIONS_MAX: usize = 50;

/// What an action item is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// The cause cannot return.
    Prevent,
    /// It is found earlier.
    Detect,
    /// It does less harm.
    Mitigate,
}

/// One action item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Counts the items of one incident, from 1.
    pub item: u32,
    /// What it is for.
    pub kind: ActionKind,
    /// What has to change.
    pub text: String,
    /// The team, role or person that does it.
    pub owner: String,
    /// The date until which it is done, such as `2026-12-01`.
    pub due: String,
    /// How one will know that it is done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub check: String,
    /// A ticket.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub link: String,
    /// Whether it is done.
    #[serde(default)]
    pub done: bool,
}

/// The name of an item: the incident and the number, such as `37-2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionId {
    /// The incident.
    pub incident: ReleaseNumber,
    /// The item.
    pub item: u32,
}

impl FromStr for ActionId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('-').and_then(|(incident, item)| {
            Some(Self { incident: ReleaseNumber(incident.parse().ok()?), item: item.parse().ok()? })
        });
        parts.ok_or_else(|| "write INCIDENT-ITEM, such as 37-2".to_owned())
    }
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.incident, self.item)
    }
}

impl ActionKind {
    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Prevent => "prevent",
            Self::Detect => "detect",
            Self::Mitigate => "mitigate",
        }
    }
}

impl FromStr for ActionKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Prevent, Self::Detect, Self::Mitigate]
            .into_iter()
            .find(|kind| kind.label() == text)
            .ok_or_else(|| "write prevent, detect or mitigate".to_owned())
    }
}

impl Action {
    /// Whether it is past its date, at `today` (such as `2026-11-27`).
    pub fn is_overdue(&self, today: &str) -> bool {
        // Dates of this form sort like their days.
        !self.done && self.due.as_str() < today
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_incident_and_item() {
        let id: ActionId = "37-2".parse().unwrap();
        assert_eq!((id.incident, id.item, id.to_string().as_str()), (ReleaseNumber(37), 2, "37-2"));
        for wrong in ["", "37", "37-", "a-1", "1-2-3"] {
            wrong.parse::<ActionId>().unwrap_err();
        }
    }
}
