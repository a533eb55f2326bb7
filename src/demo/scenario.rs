//! What the demo shows.

use std::time::Duration;

use crate::demo::fault::Fault;

/// Time from the deploy command to the fault.
pub(super) const FAULT_DELAY: Duration = Duration::from_secs(3);
/// How long the outage of both releases lasts.
pub(super) const OUTAGE_DURATION: Duration = Duration::from_secs(5);

/// What the demo shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scenario {
    /// What goes wrong.
    pub fault: Fault,
    /// Requests a second that the clients send.
    pub rate: u32,
    /// The sessions hold a state that no other release can take over.
    pub sticky: bool,
    /// The daemon serves its status page.
    pub page: bool,
}

impl Scenario {
    /// Says what will happen once v2 is deployed.
    pub(super) fn announcement(&self) -> String {
        let seconds = FAULT_DELAY.as_secs();
        match self.fault {
            Fault::None => "v2 has no fault".to_owned(),
            Fault::SharedOutage => format!(
                "in {seconds} s a service behind v1 and v2 will be down for {} s",
                OUTAGE_DURATION.as_secs()
            ),
            fault => format!("v2 will have the fault {fault} in {seconds} s"),
        }
    }
}
