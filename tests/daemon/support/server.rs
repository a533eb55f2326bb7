use std::process::{Child, Command, Stdio};

use super::{ask, soon};

/// A demo server that the daemon did not start.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn start(version: &str, port: u16) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollbackd"));
        command.arg("demo-server").env("PORT", port.to_string());
        command.env("ROLLBACKD_VERSION", version).stdin(Stdio::null());
        let server = Self(command.spawn().unwrap());
        soon("the server answers", || ask(port).is_ok());
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _: std::io::Result<()> = self.0.kill();
        let _: std::io::Result<_> = self.0.wait();
    }
}
