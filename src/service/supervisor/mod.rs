//! The releases of a service: their processes or units, their probes, and what is left of old ones.

pub(crate) mod orphan_cleanup;
pub(crate) mod probe_tasks;
pub(crate) mod release_supervisor;
pub(crate) mod unit_supervisor;
