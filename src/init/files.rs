//! The files that `init` writes: a commented configuration, and a template unit.

use std::net::SocketAddr;

use toml::Value;

/// The template unit of a container.
const PODMAN_UNIT: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/packaging/examples/mcp-weather-podman@.service"
));
/// The longest name of a service, in bytes.
const NAME_MAX: usize = 32;

/// A service to write a configuration for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewService {
    /// Its name, as [`service_name`] makes it.
    pub name: String,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where its two releases listen.
    pub slots: [SocketAddr; 2],
    /// The path of the MCP endpoint.
    pub path: String,
    /// What runs its releases.
    pub source: Source,
}

/// What runs the releases of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A command with placeholders.
    Command(Vec<String>),
    /// A container image.
    Image {
        /// Its name, without tag or digest.
        repository: String,
        /// The port inside of the container.
        port: u16,
    },
    /// A unit that runs the server today.
    Unit {
        /// Its name, such as `weather.service`.
        name: String,
        /// Its text, from `systemctl cat`.
        text: String,
        /// The port on which it listens, where that is known.
        port: Option<u16>,
    },
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Its name, without a directory.
    pub name: String,
    /// Its content.
    pub content: String,
}

impl NewService {
    /// The files: the configuration first.
    pub fn files(&self) -> Vec<NewFile> {
        let mut files =
            vec![NewFile { name: "rollbackd.toml".to_owned(), content: self.configuration() }];
        let content = match &self.source {
            Source::Command(_) => return files,
            Source::Image { port, .. } => self.container_unit(*port),
            Source::Unit { name, text, port } => self.unit_from(name, text, *port),
        };
        files.push(NewFile { name: self.template(), content });
        files
    }

    /// The name of its template unit.
    pub fn template(&self) -> String {
        format!("mcp-{}@.service", self.name.strip_prefix("mcp-").unwrap_or(&self.name))
    }

    fn configuration(&self) -> String {
        let Self { name, listen, slots: [blue, green], path, source } = self;
        let runtime = match source {
            Source::Command(command) => {
                let command = Value::Array(command.iter().map(|it| it.clone().into()).collect());
                format!(
                    "# The daemon starts and stops the releases, as its own user and in its sandbox. It fills in\n\
                     # {{version}}, {{artifact}}, {{slot}} and {{port}}.\n\
                     runtime = \"command\"\ncommand = {command}\n"
                )
            }
            Source::Image { .. } | Source::Unit { .. } => format!(
                "# systemd runs each release as an instance of this template, one for each slot.\n\
                 runtime = \"systemd\"\nunit = \"{}\"\n",
                self.template()
            ),
        };
        let artifact = match source {
            Source::Image { .. } => {
                "# Releases are images in podman's store, by NAME@sha256:DIGEST. \"opaque\" does not ask podman,\n\
                 # so the daemon needs no access to its socket; podman takes the image by its digest itself.\n\
                 artifact = \"opaque\"\n"
            }
            Source::Command(_) | Source::Unit { .. } => "",
        };
        let path = Value::from(path.as_str());
        format!(
            "# Written by `rollbackd init`. `rollbackd check FILE` reports every problem in it, and\n\
             # `man rollbackd.toml` explains every key.\n\
             [daemon]\n\
             # A read-only page about every service. It has no login: keep it on loopback.\n\
             page = \"127.0.0.1:9470\"\n\
             # Counters for Prometheus, at /metrics.\n\
             #metrics = \"127.0.0.1:9469\"\n\n\
             [service.{name}]\n\
             # Clients connect here.\n\
             listen = \"{listen}\"\n\
             path = {path}\n\
             {runtime}\
             # Releases listen here, each on the port of its slot: one has the traffic, one is warm.\n\
             slots = {{ blue = \"{blue}\", green = \"{green}\" }}\n\
             {artifact}\
             # \"observe\" records what the daemon would do, and does not roll back.\n\
             #mode = \"act\"\n\
             # The share of requests without a server fault. Set it to what the server reaches on a good day.\n\
             #objective = \"99.5%\"\n\
             # How long a new release is watched while the previous one stays warm.\n\
             #bake = \"30m\"\n"
        )
    }

    fn container_unit(&self, port: u16) -> String {
        let name = self.name.strip_prefix("mcp-").unwrap_or(&self.name);
        let text = PODMAN_UNIT.replace(":8080 ", &format!(":{port} "));
        let text = text.replace("port 8080", &format!("port {port}"));
        let text = text.replace("/rollbackd/weather/", &format!("/rollbackd/{}/", self.name));
        let text = text.replace("deploy weather", &format!("deploy {}", self.name));
        let text = text.replace("mcp-weather", &format!("mcp-{name}"));
        text.replace("server weather", &format!("server {name}"))
    }

    /// The template: the unit as it is, with the port and the environment of the slot.
    fn unit_from(&self, unit: &str, text: &str, port: Option<u16>) -> String {
        let mut content = format!(
            "# Made from {unit} by `rollbackd init`. CHANGE ExecStart= so that each release runs its own files:\n\
             # replace the path of the release by ${{ROLLBACKD_ARTIFACT}}. The first word of ExecStart= must stay a\n\
             # path; /usr/bin/env ${{ROLLBACKD_ARTIFACT}}/server is one.\n"
        );
        let mut port_is_set = false;
        let mut section = "";
        for line in text.lines() {
            let trimmed = line.trim();
            if trimmed.starts_with('[') {
                section = trimmed;
            }
            let is_comment = trimmed.starts_with(['#', ';']);
            if section.is_empty() || section == "[Install]" || is_comment {
                continue;
            }
            let port = port.filter(|_| section == "[Service]" && !trimmed.starts_with('['));
            let (line, replaced) = match port {
                Some(port) => replace_number(line, port),
                None => (line.to_owned(), false),
            };
            // The variable of systemd is not expanded in Environment=; the file sets PORT there.
            if replaced && !trimmed.starts_with("Exec") {
                port_is_set |= trimmed.contains("PORT=");
                content.push_str(&format!("# Was: {trimmed}\n"));
                continue;
            }
            port_is_set |= replaced;
            content.push_str(&line);
            content.push('\n');
            if trimmed == "[Service]" {
                content.push_str(&format!(
                    "# The daemon writes the port and the artifact of the slot into this file.\n\
                     EnvironmentFile=/var/lib/rollbackd/{}/%i.env\n",
                    self.name
                ));
            }
        }
        if !port_is_set {
            content.push_str(
                "# CHANGE: the port of the server was not found. Make it listen on 127.0.0.1:${PORT}.\n",
            );
        }
        content
    }
}

/// Replaces a number that is no part of another one by `${PORT}`.
fn replace_number(line: &str, number: u16) -> (String, bool) {
    let number = number.to_string();
    let (mut result, mut rest, mut replaced) = (String::new(), line, false);
    while let Some(at) = rest.find(&number) {
        let (before, found) = rest.split_at(at);
        let after = found.get(number.len()..).unwrap_or_default();
        let is_digit = |c: char| c.is_ascii_alphanumeric();
        result.push_str(before);
        if before.ends_with(is_digit) || after.starts_with(is_digit) {
            result.push_str(&number);
        } else {
            result.push_str("${PORT}");
            replaced = true;
        }
        rest = after;
    }
    (result + rest, replaced)
}

/// A name for a service: of a unit, an image or a program. `None`: nothing of it can stay.
pub fn service_name(from: &str) -> Option<String> {
    let last = from.rsplit('/').next().unwrap_or_default();
    let end = last.find(['@', ':']).unwrap_or(last.len());
    let base = last.get(..end).unwrap_or_default();
    let base = base.strip_suffix(".service").unwrap_or(base);
    let mut name = String::new();
    for c in base.chars().take(NAME_MAX) {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || c.is_ascii_digit() => name.push(c),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => (),
        }
    }
    let name = name.trim_end_matches('-').trim_start_matches(|c: char| !c.is_ascii_lowercase());
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn service(source: Source) -> NewService {
        NewService {
            name: "weather".to_owned(),
            listen: ([127, 0, 0, 1], 8080).into(),
            slots: [([127, 0, 0, 1], 9001).into(), ([127, 0, 0, 1], 9002).into()],
            path: "/mcp".to_owned(),
            source,
        }
    }

    #[test]
    fn every_configuration_passes_the_check() {
        let hostile = "a\"b\\c'd ''' [x] # y".to_owned();
        for source in [
            Source::Command(vec!["/opt/{version}/server".to_owned(), hostile]),
            Source::Image { repository: "localhost/weather".to_owned(), port: 3000 },
            Source::Unit { name: "weather.service".to_owned(), text: String::new(), port: None },
        ] {
            let files = service(source).files();
            let loaded = config::parse("rollbackd.toml", &files[0].content);
            let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
            assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
            assert!(loaded.settings.page.is_some());
            assert_eq!(loaded.settings.services.keys().collect::<Vec<_>>(), ["weather"]);
        }
    }

    #[test]
    fn a_unit_becomes_a_template_with_the_port_of_the_slot() {
        let text = "# /etc/systemd/system/weather.service\n[Unit]\nDescription=W\n\n[Service]\nUser=w\n\
                    ExecStart=/usr/bin/node /opt/w/18080.js --port=8080\nEnvironment=PORT=8080\n\
                    [Install]\nWantedBy=multi-user.target\n";
        let unit = |port| {
            let (name, text) = ("weather.service".to_owned(), text.to_owned());
            service(Source::Unit { name, text, port }).files()[1].content.clone()
        };
        let template = unit(Some(8080));
        for line in [
            "User=w",
            "EnvironmentFile=/var/lib/rollbackd/weather/%i.env",
            "ExecStart=/usr/bin/node /opt/w/18080.js --port=${PORT}",
            "# Was: Environment=PORT=8080",
        ] {
            assert!(template.lines().any(|it| it == line), "{line} in {template}");
        }
        assert!(!template.contains("WantedBy") && !template.contains("not found"), "{template}");
        assert!(unit(None).contains("CHANGE: the port of the server was not found"));
    }

    #[test]
    fn a_container_has_its_port_and_its_name() {
        let image = Source::Image { repository: "r.example/w".to_owned(), port: 3000 };
        let files = service(image).files();
        assert_eq!(files[1].name, "mcp-weather@.service");
        assert!(files[1].content.contains("127.0.0.1:${PORT}:3000 "), "{}", files[1].content);
    }

    #[test]
    fn a_name_comes_from_a_unit_an_image_or_a_program() {
        for (from, name) in [
            ("mcp-weather.service", Some("mcp-weather")),
            ("registry.example.org:5000/a/Weather_API:v2", Some("weather-api")),
            ("localhost/w@sha256:00", Some("w")),
            ("/opt/42-x/9server.py", Some("server-py")),
            ("/opt/{version}/", None),
            ("\u{202e}", None),
        ] {
            assert_eq!(service_name(from).as_deref(), name, "{from}");
        }
    }
}
