//! Configurations that are held against each other.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{self, Service, Settings};
use crate::judge::Limits;

use super::super::exit::Exit;
use super::super::{CONFIG, check};

/// The least that can be written: what is left out has its default.
const DEFAULTS: &str = "[service.any]\nlisten = \"127.0.0.1:8080\"\nruntime = \"external\"\n\
    slots = { blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }\n";

/// What one configuration says about one service.
#[derive(Debug)]
pub(super) struct Contender {
    /// The file, or `defaults`.
    pub(super) name: String,
    pub(super) limits: Limits,
    pub(super) drain: Duration,
    pub(super) session_cost: f64,
}

/// The current configuration, and the candidate.
#[derive(Debug)]
pub(super) struct Contenders {
    /// Each with its name, the current one first. Empty: the defaults.
    files: Vec<(String, Settings)>,
    /// Whether the first one is current.
    current: bool,
}

impl Contenders {
    /// Reads both. `named` is what --config or the environment name; the flag wins there, so what
    /// is not the environment's is the candidate.
    pub(super) fn load(current: Option<PathBuf>, named: Option<PathBuf>) -> Result<Self, Exit> {
        let usual = || Some(PathBuf::from(CONFIG)).filter(|path| path.exists());
        let standing = std::env::var_os("ROLLBACKD_CONFIG").map(PathBuf::from);
        let current = current.or(standing).or_else(usual);
        let candidate = named.filter(|named| Some(named) != current.as_ref());
        let has_current = current.is_some();
        let read = |path: PathBuf| match config::load(&path) {
            Ok(checked) => Ok((path.display().to_string(), checked.settings)),
            Err(problems) => {
                check::refuse(&path, &problems);
                Err(Exit::BadConfig)
            }
        };
        let files: Result<_, _> = current.into_iter().chain(candidate).map(read).collect();
        Ok(Self { files: files?, current: has_current })
    }

    /// Where the recordings lie: the current configuration tells, or the only one there is.
    pub(super) fn settings(&self) -> Option<&Settings> {
        self.files.first().map(|(_, settings)| settings)
    }

    /// What they say about a service: the one that is named, or the only one.
    pub(super) fn of(&self, service: Option<&str>) -> Result<Vec<Contender>, (Exit, String)> {
        let mut found = Vec::new();
        if !self.current && service.is_none() {
            let defaults = config::parse("defaults", DEFAULTS);
            let service = defaults.ok().and_then(|it| it.settings.services.into_values().next());
            found.extend(service.map(|service| Contender::new("defaults", &service)));
        }
        for (name, settings) in &self.files {
            let services = &settings.services;
            let chosen = match service {
                Some(service) => services.get(service),
                None if services.len() == 1 => services.values().next(),
                None => {
                    let names: Vec<_> = services.keys().map(String::as_str).collect();
                    let names = names.join(", ");
                    let what =
                        format!("{name} has several services: name one with --service ({names})");
                    return Err((Exit::BadArguments, what));
                }
            };
            let missing = || {
                let service = service.unwrap_or_default();
                let what = format!(
                    "no service {service} in {name}; name one that both configurations have"
                );
                (Exit::Unknown, what)
            };
            found.push(Contender::new(name, chosen.ok_or_else(missing)?));
        }
        if found.is_empty() {
            let what = "no configuration tells about that service; name one with --current";
            return Err((Exit::Unknown, what.to_owned()));
        }
        Ok(found)
    }
}

impl Contender {
    fn new(name: &str, service: &Service) -> Self {
        let (name, limits) = (name.to_owned(), service.judge.clone());
        let (drain, session_cost) = (service.policy.drain, service.policy.session_cost);
        Self { name, limits, drain, session_cost }
    }
}
