use std::collections::{BTreeMap, BTreeSet};

use crate::model::active_users::ActiveUsers;
use crate::model::contract::Contract;
use crate::model::contract_diff::ContractDiff;
use crate::model::outcome::CallKey;

/// What a deploy learned before the new release got traffic.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReadinessReport {
    /// The contract of the new release. `None` where the probe does not speak MCP.
    pub new: Option<Contract>,
    /// What the active one offers.
    pub active: Option<Contract>,
    /// Protocol versions that live sessions of the active one have negotiated.
    pub protocols_in_use: BTreeSet<String>,
    /// What clients asked for in the last hour, and how often.
    pub call_usage: BTreeMap<CallKey, u64>,
    /// Live sessions of the active one, and those of them that cannot move.
    pub sessions: u64,
    /// See above.
    pub sessions_pinned: u64,
    /// Those that would meet the new release in a ramp.
    pub users: ActiveUsers,
}

impl ReadinessReport {
    /// What the new release changes; `None` where one of the two contracts is unknown.
    pub fn contract_diff(&self) -> Option<ContractDiff> {
        let (new, active) = (self.new.as_ref()?, self.active.as_ref()?);
        Some(ContractDiff::compare(active, new, &self.call_usage))
    }
}
