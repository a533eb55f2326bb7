//! What a daemon tells its successor while both serve: routes, sessions, request states.

pub(super) mod replication;
pub(super) mod routes;
