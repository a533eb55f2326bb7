//! A daemon of its own for the demo.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::control::ControlClient;
use crate::demo::scenario::Scenario;
use crate::model::ReleaseNumber;

/// The service that the demo runs.
pub(crate) const SERVICE: &str = "weather";
/// The control socket in the folder.
const SOCKET: &str = "control.sock";
/// Longest time until the daemon listens, and until it exits.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines of the daemon's log in the error, if it does not start.
const LOG_LINES: usize = 10;

/// A setting of the demo that differs from its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ChangedSetting {
    /// The line of the configuration.
    line: &'static str,
    default: &'static str,
}

/// A daemon in a temporary folder, on free loopback ports.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// Holds the configuration, the log and the timelines; the demo keeps it.
    pub(crate) folder: PathBuf,
    /// The public address of the service.
    pub(crate) listen: SocketAddr,
    /// The address of the status page, if the daemon serves it.
    pub(crate) page: Option<SocketAddr>,
    /// The daemon's control socket.
    pub(crate) socket: PathBuf,
    settings: Vec<ChangedSetting>,
    daemon: Child,
}

impl Sandbox {
    /// Writes a configuration and starts a daemon with it.
    ///
    /// # Errors
    /// When a folder, port or process is not available.
    pub(crate) fn start(scenario: &Scenario) -> Result<Self, String> {
        let program = std::env::current_exe()
            .map_err(with_context("cannot find the path of this program"))?;
        let folder = tempfile::Builder::new()
            .prefix("rollbackd-demo-")
            .tempdir()
            .map_err(with_context("cannot make a folder for the demo"))?
            .keep();
        let [listen, blue, green, page] =
            reserve_addresses().map_err(with_context("no free loopback ports"))?;
        let socket = folder.join(SOCKET);
        let config = folder.join("config.toml");
        let settings = changed_settings(scenario);
        let page = scenario.page.then_some(page);
        let text = render_config(&program, &folder, [listen, blue, green], page, &settings)?;
        std::fs::write(&config, text)
            .map_err(with_context("cannot write the demo's config.toml"))?;
        let log = File::create(folder.join("daemon.log"))
            .map_err(with_context("cannot write the daemon's log"))?;
        let log_for_stderr =
            log.try_clone().map_err(with_context("cannot write the daemon's log"))?;
        let daemon = Command::new(&program)
            .arg("run")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_for_stderr)
            // Ctrl-C in the terminal signals only the demo, which then stops the daemon in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(with_context("cannot start the daemon"))?;
        Ok(Self { folder, listen, page, socket, settings, daemon })
    }

    /// Connects to the daemon. While it starts, waits up to [`START_TIMEOUT`].
    ///
    /// # Errors
    /// When the daemon exited, or does not listen; with the end of its log.
    pub(crate) async fn connect(&mut self) -> Result<ControlClient, String> {
        let socket = self.socket.clone();
        let connected = async {
            loop {
                match ControlClient::connect(&socket).await {
                    Ok(client) => return client,
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        tokio::select! {
            client = timeout(START_TIMEOUT, connected) => {
                client.map_err(|_| self.with_log_tail("the daemon did not open its control socket within 10 s"))
            }
            ended = self.daemon.wait() => {
                let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(self.with_log_tail(&format!("the daemon exited ({how})")))
            }
        }
    }

    /// The timeline of a deploy.
    pub(crate) fn timeline_path(&self, deploy: ReleaseNumber) -> PathBuf {
        self.folder.join("state").join(SERVICE).join(format!("{:06}.jsonl", deploy.0))
    }

    /// The post-mortem of a deploy.
    pub(crate) fn post_mortem_path(&self, deploy: ReleaseNumber) -> PathBuf {
        let dir = self.folder.join("state").join(SERVICE).join("incidents");
        dir.join(format!("{:06}.html", deploy.0))
    }

    /// While this file exists, a service behind the releases is down.
    pub(crate) fn outage_file(&self) -> PathBuf {
        self.folder.join("outage")
    }

    /// The settings that differ from the defaults.
    pub(crate) fn changed_settings(&self) -> String {
        let settings = self.settings.iter();
        let texts = settings.map(|it| format!("{} (default {})", it.line, it.default));
        texts.collect::<Vec<_>>().join("; ")
    }

    /// Stops the daemon and the servers that it started. Returns the folder.
    pub(crate) async fn shut_down(mut self) -> PathBuf {
        let pid = self.daemon.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // It may have exited by itself.
            let _: Result<(), _> = kill_process(pid, Signal::TERM);
            if timeout(STOP_TIMEOUT, self.daemon.wait()).await.is_err() {
                let _: io::Result<()> = self.daemon.kill().await;
            }
        }
        self.folder
    }

    fn with_log_tail(&self, what: &str) -> String {
        let log = self.folder.join("daemon.log");
        let log_text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = log_text.lines().collect();
        let end = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
        format!("{what}; {} ends with:\n{}", log.display(), end.join("\n"))
    }
}

/// A real deploy bakes longer, and a real service has slower clients.
fn changed_settings(scenario: &Scenario) -> Vec<ChangedSetting> {
    let setting = |line, default| ChangedSetting { line, default };
    let mut settings = vec![
        setting(r#"latency = { under = "500ms", objective = "99%" }"#, "none"),
        setting(r#"deadline = "2s""#, "60s"),
        setting(r#"drain_timeout = "5s""#, "30s"),
        setting(
            r#"probe = { every = "500ms", timeout = "1s" }"#,
            r#"{ every = "1s", timeout = "2s" }"#,
        ),
    ];
    settings.push(if scenario.fault.is_of_the_release() {
        setting(r#"bake = "10m""#, "30m")
    } else {
        setting(r#"bake = "15s""#, "30m")
    });
    // The demo has enough sessions for a ramp, and shows what a release does that has all of them.
    settings.push(setting(r#"ramp = ["100%"]"#, "auto"));
    if scenario.sticky {
        settings.push(setting(r#"session_state = "hard""#, "soft"));
    }
    settings
}

/// Binds all at once, so that they differ. Another process can take one before the daemon does;
/// then the daemon reports it and a second try helps.
fn reserve_addresses() -> io::Result<[SocketAddr; 4]> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listeners = [bind()?, bind()?, bind()?, bind()?];
    let [a, b, c, d] = listeners.each_ref().map(TcpListener::local_addr);
    Ok([a?, b?, c?, d?])
}

fn render_config(
    program: &Path,
    folder: &Path,
    addresses: [SocketAddr; 3],
    page: Option<SocketAddr>,
    settings: &[ChangedSetting],
) -> Result<String, String> {
    let [listen, blue, green] = addresses;
    let quoted = |path: &Path| {
        path.to_str().map(|text| toml::Value::from(text).to_string()).ok_or_else(|| {
            format!("{} is not UTF-8; move the program to a path that is", path.display())
        })
    };
    let (program, state) = (quoted(program)?, quoted(&folder.join("state"))?);
    let socket = quoted(&folder.join(SOCKET))?;
    let page = page.map(|page| format!("page = \"{page}\"\n")).unwrap_or_default();
    let settings = Vec::from_iter(settings.iter().map(|it| it.line)).join("\n");
    Ok(format!(
        r#"[daemon]
state_dir = {state}
control_socket = {socket}
{page}
[service.{SERVICE}]
listen = "{listen}"
runtime = "command"
command = [{program}, "demo-server"]
slots = {{ blue = "{blue}", green = "{green}" }}
{settings}
"#
    ))
}

fn with_context(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::fault::Fault;

    fn scenario(sticky: bool) -> Scenario {
        Scenario { fault: Fault::None, rate: 1, sticky, page: false }
    }

    #[test]
    fn the_configuration_is_toml_for_any_path() {
        let [listen, blue, green, page] = reserve_addresses().unwrap();
        let program = Path::new("/opt/a \"b\"\\c/rollbackd");
        let settings = changed_settings(&scenario(true));
        let addresses = [listen, blue, green];
        let text =
            render_config(program, Path::new("/tmp/d"), addresses, Some(page), &settings).unwrap();
        let read: toml::Table = text.parse().unwrap();
        let weather = &read["service"][SERVICE];
        assert_eq!(weather["command"][0].as_str(), program.to_str());
        assert_eq!(weather["slots"]["blue"].as_str(), Some(blue.to_string().as_str()));
        assert_eq!(weather["session_state"].as_str(), Some("hard"));
        assert_eq!(read["daemon"]["state_dir"].as_str(), Some("/tmp/d/state"));
        assert_eq!(read["daemon"]["page"].as_str(), Some(page.to_string().as_str()));
    }

    /// The demo says what it changed, with the defaults of config.toml.example.
    #[test]
    fn the_stated_defaults_are_those_of_the_example() {
        let example = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml.example"));
        for ChangedSetting { line, default } in changed_settings(&scenario(true)) {
            let key = line.split(" = ").next().unwrap();
            if default == "none" {
                assert!(example.contains(&format!("# For example: {key} = ")), "{key}");
            } else if key == "probe" {
                // A table of its own there.
                let probe = example.split("[service.weather.probe]").nth(1).unwrap();
                let all: toml::Table = format!("{key} = {default}").parse().unwrap();
                for (key, value) in all[key].as_table().unwrap() {
                    assert!(probe.contains(&format!("\n#{key} = {value}\n")), "{key}");
                }
            } else {
                assert!(example.contains(&format!("\n#{key} = \"{default}\"\n")), "{key}");
            }
        }
    }
}
