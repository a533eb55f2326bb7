//! `rollbackd init`

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::config;
use crate::init::files::{NewService, Source, service_name};
use crate::init::host::{free_ports, listening_ports, mcp_path, unit_text};
use crate::model::escape_unsafe;

/// The first ports that are tried for clients and for slots.
const LISTEN_PORT: u16 = 8080;
const SLOT_PORT: u16 = 9001;

/// Look at this host, and write a first configuration for one MCP server.
///
/// Without an option it only shows what listens here and speaks MCP. It never changes a file that
/// exists, and starts and stops nothing.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// A systemd unit that runs the server today.
    #[arg(long, value_name = "UNIT", group = "source")]
    unit: Option<String>,
    /// A container image, without tag or digest.
    #[arg(long, value_name = "IMAGE", group = "source")]
    image: Option<String>,
    /// The program and its arguments, with {version} or {artifact}, and {port}; the last option.
    #[arg(long, value_name = "WORD", num_args = 1.., allow_hyphen_values = true, group = "source")]
    command: Option<Vec<String>>,
    /// The name of the service; by default from the unit, the image or the program.
    #[arg(long)]
    name: Option<String>,
    /// The port on which the server listens today, or in its container (8080).
    #[arg(long)]
    port: Option<u16>,
    /// The directory for the new files.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

pub(super) fn run(options: &Options) -> Exit {
    let (from, source) = match find_source(options) {
        Ok(Some(found)) => found,
        Ok(None) => return show_host(),
        Err(because) => {
            output::error_line(&because);
            return Exit::InvalidArguments;
        }
    };
    let name = options.name.as_deref().unwrap_or(&from);
    let Some(name) = service_name(name).filter(|it| options.name.is_none() || it == name) else {
        output::error_line(
            "the name of the service is not clear; write --name with lower-case letters, digits and -",
        );
        return Exit::InvalidArguments;
    };
    let Some(service) = place(name, source) else {
        output::error_line("no free ports on loopback");
        return Exit::Failed;
    };
    match write_files(&service, &options.out) {
        Ok(()) => {
            show_next_steps(&service, &options.out);
            Exit::Done
        }
        Err(because) => {
            output::error_line(&because);
            Exit::Failed
        }
    }
}

/// What runs the releases, and where its name comes from. `None`: no option names it.
fn find_source(options: &Options) -> Result<Option<(String, Source)>, String> {
    if let Some(command) = &options.command {
        return check_command(command).map(|()| {
            let from = command.first().cloned().unwrap_or_default();
            Some((from, Source::Command(command.clone())))
        });
    }
    if let Some(image) = &options.image {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
        let last = image.rsplit('/').next().unwrap_or_default();
        if image.is_empty() || !image.chars().all(is_name) || last.contains(':') {
            let image = escape_unsafe(image);
            return Err(format!(
                "{image} is not the name of an image; leave its tag and digest out: a deploy names them"
            ));
        }
        let port = options.port.unwrap_or(LISTEN_PORT);
        return Ok(Some((image.clone(), Source::Image { repository: image.clone(), port })));
    }
    let Some(unit) = &options.unit else { return Ok(None) };
    let unit = if unit.contains('.') { unit.clone() } else { format!("{unit}.service") };
    let text = unit_text(&unit)
        .map_err(|because| format!("cannot read the unit {}: {because}", escape_unsafe(&unit)))?;
    let listens = || {
        let ports = listening_ports().into_iter();
        let of_unit = ports.filter(|it| {
            it.process.as_ref().is_some_and(|it| it.unit.as_deref() == Some(unit.as_str()))
        });
        of_unit.max_by_key(|it| it.mcp_path.is_some()).map(|it| it.port)
    };
    let port = options.port.or_else(listens);
    output::stdout_line(&match port {
        Some(port) => format!("{} listens on port {port}", escape_unsafe(&unit)),
        None => format!(
            "{}: no listening port found; run init as root while it runs, or write --port",
            escape_unsafe(&unit)
        ),
    });
    Ok(Some((unit.clone(), Source::Unit { name: unit, text, port })))
}

/// Without a placeholder, each release would run the same program.
fn check_command(command: &[String]) -> Result<(), String> {
    let names_release = |it: &String| it.contains("{version}") || it.contains("{artifact}");
    if command.iter().any(|it| it.contains(char::is_control)) {
        return Err("the command has a control character".to_owned());
    }
    if command.iter().any(names_release) {
        return Ok(());
    }
    Err("the command has no {version} and no {artifact}, so every release would run the same \
         program; write --command /opt/weather/{version}/server --port {port}"
        .to_owned())
}

/// Gives the service its addresses: the one that clients know today, and free ones.
fn place(name: String, source: Source) -> Option<NewService> {
    let today = match &source {
        Source::Unit { port, .. } => *port,
        Source::Command(_) | Source::Image { .. } => None,
    };
    let path = today.and_then(mcp_path).unwrap_or("/mcp").to_owned();
    let listen = match today {
        Some(port) => SocketAddr::from(([127, 0, 0, 1], port)),
        None => {
            let [free] = free_ports(LISTEN_PORT, &[])?;
            free
        }
    };
    let slots = free_ports(SLOT_PORT, &[listen.port()])?;
    Some(NewService { name, listen, slots, path, source })
}

/// Writes all files or none.
fn write_files(service: &NewService, dir: &Path) -> Result<(), String> {
    let files = service.files();
    if let Some(configuration) = files.first() {
        config::parse(&configuration.name, &configuration.content)
            .map_err(|problems| format!("the configuration would have problems:\n{problems}"))?;
    }
    for file in &files {
        let path = dir.join(&file.name);
        if path.symlink_metadata().is_ok() {
            let path = path.display();
            return Err(format!(
                "{path} exists, and nothing was written; move it away, or name a directory with --out"
            ));
        }
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(format!("cannot make the directory {}: {error}", dir.display()));
        }
        _ => (),
    }
    for file in &files {
        let path = dir.join(&file.name);
        write_new(&path, &file.content)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        output::stdout_line(&format!("wrote {}", path.display()));
    }
    Ok(())
}

fn write_new(path: &Path, content: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(content.as_bytes())
}

fn show_next_steps(service: &NewService, dir: &Path) {
    let NewService { name, listen, path, source, .. } = service;
    let configuration = dir.join("rollbackd.toml").display().to_string();
    let template = dir.join(service.template()).display().to_string();
    let mut steps = vec![format!("read {configuration}, then: rollbackd check {configuration}")];
    match source {
        Source::Command(_) => (),
        Source::Image { .. } => {
            steps.push(format!("cp {template} /etc/systemd/system/ && systemctl daemon-reload"));
        }
        Source::Unit { name, .. } => {
            steps.push(format!("edit the lines with CHANGE in {template}"));
            steps.push(format!("cp {template} /etc/systemd/system/ && systemctl daemon-reload"));
            steps.push(format!("systemctl disable --now {name}: the proxy takes its port over"));
        }
    }
    steps.push(format!(
        "cp {configuration} /etc/rollbackd/config.toml && systemctl enable rollbackd && systemctl \
         restart rollbackd"
    ));
    let artifact = match source {
        Source::Command(command) => artifact_option(command).to_owned(),
        Source::Image { repository, .. } => format!(" --artifact {repository}@sha256:DIGEST"),
        Source::Unit { .. } => " --artifact /opt/RELEASE".to_owned(),
    };
    steps.push(format!("rollbackd deploy {name} v1{artifact} --wait"));
    steps.push(format!("clients: http://{listen}{path}; page: http://127.0.0.1:9470/"));
    output::stdout_line("next:");
    for (number, step) in steps.iter().enumerate() {
        output::stdout_line(&format!("  {}. {step}", number + 1));
    }
}

/// A command with {artifact} does not run without one: a whole path, or a part of one.
fn artifact_option(command: &[String]) -> &'static str {
    match command.iter().find_map(|word| word.find("{artifact}")) {
        Some(0) => " --artifact /opt/RELEASE",
        Some(_) => " --artifact RELEASE",
        None => "",
    }
}

/// Shows what listens here, and how to go on.
fn show_host() -> Exit {
    let ports = listening_ports();
    output::stdout_line(&match ports.len() {
        1 => "1 port listens on this host:".to_owned(),
        count => format!("{count} ports listen on this host:"),
    });
    let mut unit = None;
    for port in &ports {
        let process = port.process.as_ref().map_or_else(
            || "(process not visible; run as root)".to_owned(),
            |it| format!("{} (pid {})", escape_unsafe(&it.name), it.pid),
        );
        let of_unit = port.process.as_ref().and_then(|it| it.unit.as_deref());
        let of_unit = of_unit.map_or_else(String::new, |it| format!("  {}", escape_unsafe(it)));
        let mcp = port.mcp_path.map_or_else(String::new, |path| format!("  MCP at {path}"));
        if port.mcp_path.is_some() {
            unit = unit.or_else(|| port.process.as_ref()?.unit.clone());
        }
        output::stdout_line(&format!("  {:>5}  {process}{of_unit}{mcp}", port.port));
    }
    let unit = unit.unwrap_or_else(|| "UNIT".to_owned());
    output::stdout_line("next, one of:");
    output::stdout_line(&format!("  rollbackd init --unit {}", escape_unsafe(&unit)));
    output::stdout_line("  rollbackd init --image localhost/weather");
    output::stdout_line(
        "  rollbackd init --name weather --command /opt/weather/{version}/server --port {port}",
    );
    Exit::Done
}
