//! What runs on this host: listening ports, their processes and units, and whether MCP answers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::mcp::client::Client;
use crate::mcp::versions;

/// Ports that are asked.
const PORTS_MAX: usize = 64;
/// Processes that are looked at.
const PROCESSES_MAX: usize = 8_192;
/// How long a port may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How much of an answer is read, in bytes.
const ANSWER_MAX: u64 = 64 * 1024;
/// How much of a text of systemd is used, in bytes.
const UNIT_TEXT_MAX: usize = 64 * 1024;
/// The usual paths of MCP endpoints.
const PATHS: [&str; 3] = ["/mcp", "/", "/mcp/"];
const CLIENT: Client = Client { name: "rollbackd-init", version: env!("CARGO_PKG_VERSION") };
/// The state of a listening socket in /proc/net/tcp.
const LISTEN_STATE: &str = "0A";

/// A listening port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListeningPort {
    /// The port.
    pub port: u16,
    /// The process, where it can be seen.
    pub process: Option<ListeningProcess>,
    /// The path at which MCP answers, if it does.
    pub mcp_path: Option<&'static str>,
}

/// The process of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListeningProcess {
    /// Its id.
    pub pid: u32,
    /// Its name, at most 15 characters.
    pub name: String,
    /// The system unit that it belongs to.
    pub unit: Option<String>,
}

/// The listening ports that loopback reaches, in order, at most 64. Asks each whether it speaks MCP.
pub fn listening_ports() -> Vec<ListeningPort> {
    let processes = socket_owners();
    let sockets = sockets().into_iter().take(PORTS_MAX);
    sockets
        .map(|(port, inode)| ListeningPort {
            port,
            process: processes.get(&inode).and_then(|pid| process(*pid)),
            mcp_path: mcp_path(port),
        })
        .collect()
}

/// The path at which a port on loopback answers `initialize`.
pub fn mcp_path(port: u16) -> Option<&'static str> {
    PATHS.into_iter().find(|path| answers_mcp(port, path).unwrap_or(false))
}

/// The text of a unit with its drop-ins, from `systemctl cat`.
///
/// # Errors
/// Why there is none.
pub fn unit_text(unit: &str) -> Result<String, String> {
    let mut command = Command::new("systemctl");
    let command = command.args(["cat", "--no-pager", "--", unit]).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("cannot run systemctl: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match output.status.success() {
        true if text.len() <= UNIT_TEXT_MAX => Ok(text.into_owned()),
        true => Err(format!("its text is longer than {UNIT_TEXT_MAX} bytes")),
        false => {
            let text = String::from_utf8_lossy(&output.stderr);
            Err(text.lines().next().unwrap_or("systemctl knows no such unit").to_owned())
        }
    }
}

/// Free ports on loopback, from `first` upwards.
pub fn free_ports<const N: usize>(first: u16, taken: &[u16]) -> Option<[SocketAddr; N]> {
    let is_free = |port: &u16| {
        !taken.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
    };
    let free = (first..=u16::MAX).filter(is_free).take(N);
    let free: Vec<SocketAddr> = free.map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect();
    free.try_into().ok()
}

/// The listening ports and the inodes of their sockets.
fn sockets() -> BTreeMap<u16, u64> {
    let mut sockets = BTreeMap::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(file).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (Some(local), Some(&LISTEN_STATE)) = (fields.get(1), fields.get(3)) else {
                continue;
            };
            let port = local.rsplit(':').next().and_then(|it| u16::from_str_radix(it, 16).ok());
            let inode = fields.get(9).and_then(|it| it.parse().ok());
            if let Some((port, inode)) = port.zip(inode) {
                sockets.entry(port).or_insert(inode);
            }
        }
    }
    sockets
}

/// The processes that have sockets open, by the inode of the socket. Other users' processes need root.
fn socket_owners() -> BTreeMap<u64, u32> {
    let mut owners = BTreeMap::new();
    let Ok(processes) = fs::read_dir("/proc") else { return owners };
    let pids = processes.filter_map(|it| it.ok()?.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.take(PROCESSES_MAX) {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for file in files.flatten() {
            let target = fs::read_link(file.path()).unwrap_or_default();
            let inode = target.to_str().and_then(|it| it.strip_prefix("socket:["));
            if let Some(inode) = inode.and_then(|it| it.strip_suffix(']')?.parse().ok()) {
                owners.insert(inode, pid);
            }
        }
    }
    owners
}

fn process(pid: u32) -> Option<ListeningProcess> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let unit = groups.lines().find_map(|line| {
        let path = line.split(':').nth(2)?.strip_prefix("/system.slice/")?;
        path.split('/').find(|part| part.ends_with(".service")).map(str::to_owned)
    });
    Some(ListeningProcess { pid, name, unit })
}

/// Sends `initialize`, and looks for its result.
fn answers_mcp(port: u16, path: &str) -> std::io::Result<bool> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let message = CLIENT.initialize(&json!(1), versions::LATEST_LEGACY);
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\ncontent-length: {}\r\n",
        message.body.len()
    );
    for (name, value) in &message.headers {
        request.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    stream.write_all(&message.body)?;
    let (mut answer, mut stream) = (Vec::new(), stream.take(ANSWER_MAX));
    let mut block = [0; 4096];
    // A stream may stay open after its answer: each block is looked at.
    loop {
        let read = stream.read(&mut block)?;
        answer.extend(block.iter().take(read));
        let text = String::from_utf8_lossy(&answer);
        if text.contains("\"protocolVersion\"") && text.contains("\"serverInfo\"") {
            return Ok(true);
        }
        if read == 0 {
            return Ok(false);
        }
    }
}
