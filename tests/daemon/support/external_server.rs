use std::process::{Child, Command, Stdio};

use super::{serving_version, wait_until};

/// A demo server that the daemon did not start.
pub(crate) struct ExternalServer(Child);

impl ExternalServer {
    pub(crate) fn start(version: &str, port: u16) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollbackd"));
        command.arg("demo-server").env("PORT", port.to_string());
        command.env("ROLLBACKD_VERSION", version).stdin(Stdio::null());
        let server = Self(command.spawn().unwrap());
        wait_until("the server answers", || serving_version(port).is_ok());
        server
    }
}

impl Drop for ExternalServer {
    fn drop(&mut self) {
        let _: std::io::Result<()> = self.0.kill();
        let _: std::io::Result<_> = self.0.wait();
    }
}
