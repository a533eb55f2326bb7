//! The new release.

fn main() {
    real_rmcp::serve("trigger-long-running-operation");
}
