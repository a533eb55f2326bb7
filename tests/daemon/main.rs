//! The whole daemon as a user runs it: the built binary, its commands, exit codes and messages.
//! Releases are the demo's MCP server, or small shell commands that misbehave.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may panic, and tell what it saw"
)]

mod support;

mod after_bake;
mod alertmanager;
mod artifact;
mod browser;
mod crash_recovery;
mod deploy;
mod differing_answers;
mod faults;
mod full_disk;
mod guards;
mod handover;
mod incidents;
mod init;
mod log_output;
mod metrics;
mod notify;
mod notify_email;
mod one_user;
mod page;
mod process_lifecycle;
mod ramp;
mod ramp_auto;
mod resource_usage;
mod scrape;
mod shadow_calls;
mod shell_completion;
mod startup;
mod switch_under_load;
mod warm_release;
