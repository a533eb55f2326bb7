//! What two daemons exchange while both serve a service: the predecessor replicates its changes to the
//! successor, and the successor sends its routing table to the predecessor.

pub(super) mod replication;
pub(super) mod routes;
