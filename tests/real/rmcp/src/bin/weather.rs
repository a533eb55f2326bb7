//! A release for tests/hosts: its slow tool is the one that tests/real/crowd.mjs calls.

fn main() {
    real_rmcp::serve("slow");
}
