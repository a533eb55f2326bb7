//! The whole daemon as a user meets it: the built binary, its verbs, its exit codes, and what it
//! says. Releases are the demo's MCP server, or small shell commands that misbehave.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

mod crash;
mod deploy;
mod disk;
mod guards;
mod idle;
mod start;
mod warm;
