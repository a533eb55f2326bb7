//! A release for tests/hosts: its slow tool is the one that tests/real/load_clients.mjs calls.

fn main() {
    real_rmcp::serve("slow");
}
