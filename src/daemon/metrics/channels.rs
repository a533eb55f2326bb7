//! The metrics of the notification channels. Channels are configured, so their names are few.

use std::collections::BTreeMap;

use crate::control::{ChannelStatus, Status};
use crate::daemon::metrics::encoder::{Encoder, MetricKind};
use crate::service::traffic_window::to_f64;

/// A channel serves several services, each of which reports it: it is written once.
pub(super) fn write(encoder: &mut Encoder, statuses: &[&Status]) {
    let channels: BTreeMap<&str, &ChannelStatus> = statuses
        .iter()
        .flat_map(|status| status.channels.iter().map(|it| (it.name.as_str(), it)))
        .collect();
    let name = "rollbackd_channel_up";
    let help = "Whether a notification channel works: 0 after failed deliveries.";
    encoder.family(name, MetricKind::Gauge, help);
    for (channel, status) in &channels {
        let up = if status.failing_s.is_none() { 1.0 } else { 0.0 };
        encoder.sample(name, &[("channel", channel), ("type", &status.channel_type)], up);
    }
    let name = "rollbackd_notices_waiting";
    encoder.family(name, MetricKind::Gauge, "Notices that wait for a channel.");
    for (channel, status) in &channels {
        encoder.sample(name, &[("channel", channel)], to_f64(status.waiting));
    }
    let name = "rollbackd_deliveries_total";
    encoder.family(name, MetricKind::Counter, "Deliveries of notices, by result.");
    for (channel, status) in &channels {
        for (result, count) in [("accepted", status.delivered), ("failed", status.failed)] {
            encoder.sample(name, &[("channel", channel), ("result", result)], to_f64(count));
        }
    }
}
