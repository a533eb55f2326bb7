use serde::{Deserialize, Serialize};

use crate::model::actor::Actor;
use crate::model::strategy::Strategy;
use crate::model::verdict::{Finding, Severity, Verdict};

/// What starts a rollback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "TriggerFields", into = "TriggerFields")]
pub enum Trigger {
    /// The judge found a breach.
    Verdict(Box<Verdict>),
    /// An operator ordered it.
    Operator {
        /// Who.
        by: Actor,
        /// How the traffic leaves.
        strategy: Strategy,
        /// Whether a target whose artifact changed is accepted.
        forced: bool,
    },
}

impl Trigger {
    /// The verdict; `None` when an operator ordered the rollback.
    pub fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Verdict(verdict) => Some(verdict),
            Self::Operator { .. } => None,
        }
    }

    /// Whether an operator ordered it.
    pub fn is_operator(&self) -> bool {
        matches!(self, Self::Operator { .. })
    }

    /// Whether a target whose artifact changed is accepted.
    pub fn is_forced(&self) -> bool {
        matches!(self, Self::Operator { forced: true, .. })
    }

    /// The severity. A rollback that an operator ordered counts as degraded.
    pub fn severity(&self) -> Severity {
        match self.verdict().map(|verdict| verdict.finding) {
            Some(Finding::Breach(severity)) => severity,
            _ => Severity::Degraded,
        }
    }
}

/// The fields in the timeline, as version 0.1.0 wrote them.
#[derive(Serialize, Deserialize)]
struct TriggerFields {
    verdict: Option<Verdict>,
    order: Option<(Actor, Strategy)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    forced: bool,
}

impl From<TriggerFields> for Trigger {
    /// A line without verdict and order is an order whose giver is not known.
    fn from(TriggerFields { verdict, order, forced }: TriggerFields) -> Self {
        match (verdict, order) {
            (Some(verdict), None) => Self::Verdict(Box::new(verdict)),
            (_, order) => {
                let (by, strategy) = order.unwrap_or((Actor::default(), Strategy::Drain));
                Self::Operator { by, strategy, forced }
            }
        }
    }
}

impl From<Trigger> for TriggerFields {
    fn from(trigger: Trigger) -> Self {
        match trigger {
            Trigger::Verdict(verdict) => {
                Self { verdict: Some(*verdict), order: None, forced: false }
            }
            Trigger::Operator { by, strategy, forced } => {
                Self { verdict: None, order: Some((by, strategy)), forced }
            }
        }
    }
}
