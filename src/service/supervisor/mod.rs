//! The supervisor of one service's releases: their processes or units, their probes, and the cleanup of orphans.

pub(crate) mod artifact_check;
mod backoff;
pub(crate) mod orphan_cleanup;
pub(crate) mod probe_tasks;
mod process_supervisor;
pub(crate) mod release_supervisor;
pub(crate) mod reporter;
pub(crate) mod slot_stops;
pub(crate) mod unit_supervisor;
