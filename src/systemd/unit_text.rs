//! The text of a unit file and of its drop-ins.

use std::io;

use crate::systemd::child::read_output;

/// Bytes that are read.
const BYTES_MAX: u64 = 256 * 1024;

/// What `systemctl cat` prints of a unit: each file, after a comment with its path. Empty where there is
/// no such unit.
///
/// # Errors
/// `systemctl` cannot be started, or takes longer than five seconds.
pub async fn read_unit_text(unit: &str) -> io::Result<String> {
    let bytes = read_output("systemctl", ["cat", "--no-pager", unit], BYTES_MAX).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
