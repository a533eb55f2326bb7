//! The releases that are being stopped, by slot. Until the earlier release has stopped, it answers at the
//! address of its slot: a later one must neither start nor be probed there.

use std::collections::BTreeMap;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::model::Slot;

/// How many releases of a service are being stopped. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopCount(watch::Sender<usize>);

/// The stops of one service.
#[derive(Debug, Default)]
pub(super) struct SlotStops {
    by_slot: BTreeMap<Slot, SlotStop>,
    count: StopCount,
}

#[derive(Debug)]
struct SlotStop {
    task: JoinHandle<()>,
    vacated: CancellationToken,
}

impl StopCount {
    /// Waits until no release is being stopped.
    pub(crate) async fn none(&self) {
        // The sender lives as long as this.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl SlotStops {
    pub(super) fn new(count: StopCount) -> Self {
        Self { by_slot: BTreeMap::new(), count }
    }

    /// Runs `stop`, which stops what is in the slot.
    pub(super) fn spawn(&mut self, slot: Slot, stop: impl Future<Output = ()> + Send + 'static) {
        let vacated = CancellationToken::new();
        let (is_vacated, count) = (vacated.clone(), self.count.clone());
        count.0.send_modify(|count| *count += 1);
        let stop = async move {
            stop.await;
            is_vacated.cancel();
            count.0.send_modify(|count| *count -= 1);
        };
        let task = tokio::spawn(stop.in_current_span());
        self.by_slot.insert(slot, SlotStop { task, vacated });
    }

    /// What is cancelled when the slot is free. `None`: it is free.
    pub(super) fn vacated(&self, slot: &Slot) -> Option<CancellationToken> {
        let stop = self.by_slot.get(slot)?;
        Some(stop.vacated.clone()).filter(|vacated| !vacated.is_cancelled())
    }

    /// The tasks, which nothing waits for any more.
    pub(super) fn take(&mut self) -> impl Iterator<Item = JoinHandle<()>> + use<> {
        std::mem::take(&mut self.by_slot).into_values().map(|stop| stop.task)
    }
}

/// Waits until a slot is free, and then does this.
pub(super) async fn once_vacated<T>(
    vacated: Option<CancellationToken>,
    work: impl Future<Output = T>,
) -> T {
    if let Some(vacated) = vacated {
        vacated.cancelled().await;
    }
    work.await
}
