use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

/// Clients of the official TypeScript SDK that send calls all the time.
pub(crate) struct LoadClients {
    node: Child,
    out: BufReader<ChildStdout>,
}

impl LoadClients {
    /// Starts `clients` clients, each with a session and a call every `every_ms` milliseconds.
    pub(crate) fn start(port: u16, clients: u32, every_ms: u32) -> Self {
        let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real");
        let mut node = Command::new("node");
        node.current_dir(real).arg("load_clients.mjs").arg(format!("http://127.0.0.1:{port}/mcp"));
        node.arg(clients.to_string()).arg(every_ms.to_string());
        node.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut node = node.spawn().expect("node is not installed; run tests/run, which does it");
        let out = BufReader::new(node.stdout.take().unwrap());
        let mut load_clients = Self { node, out };
        let joined = load_clients.read_report();
        assert_eq!((&joined["joined"], &joined["sessions"]), (&clients.into(), &clients.into()));
        load_clients
    }

    /// Waits for their calls. Returns what they counted.
    pub(crate) fn stop(mut self) -> Value {
        drop(self.node.stdin.take());
        self.read_report()
    }

    fn read_report(&mut self) -> Value {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("unexpected line of node: {line:?}"))
    }
}

impl Drop for LoadClients {
    fn drop(&mut self) {
        let _: std::io::Result<()> = self.node.kill();
        let _: std::io::Result<_> = self.node.wait();
    }
}
