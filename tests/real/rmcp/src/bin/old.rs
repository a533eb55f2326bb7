//! The old release.

fn main() {
    real_rmcp::serve("longRunningOperation");
}
