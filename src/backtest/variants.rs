//! Configurations that are held against each other.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::exit::Exit;
use crate::cli::{DEFAULT_CONFIG_PATH, check};
use crate::config;
use crate::config::{Service, Settings};
use crate::judge::SloSettings;

/// The least that can be written: what is left out has its default.
const DEFAULTS: &str = "[service.any]\nlisten = \"127.0.0.1:8080\"\nruntime = \"external\"\n\
    slots = { blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }\n";

/// What one configuration says about one service.
#[derive(Debug)]
pub(crate) struct Variant {
    /// The file, or `defaults`.
    pub(crate) config_name: String,
    pub(crate) limits: SloSettings,
    pub(crate) drain: Duration,
    pub(crate) session_cost: f64,
}

/// The current configuration, and the candidate.
#[derive(Debug)]
pub(crate) struct Variants {
    /// Each with its name, the current one first. Empty: the defaults.
    files: Vec<(String, Settings)>,
    /// Whether the first one is current.
    has_current: bool,
}

impl Variants {
    /// Reads both. `config_option` is what --config or the environment name; the flag wins there, so what
    /// is not the environment's is the candidate.
    pub(crate) fn load(
        current: Option<PathBuf>,
        config_option: Option<PathBuf>,
    ) -> Result<Self, Exit> {
        let default_path = || Some(PathBuf::from(DEFAULT_CONFIG_PATH)).filter(|path| path.exists());
        let from_environment = std::env::var_os("ROLLBACKD_CONFIG").map(PathBuf::from);
        let current = current.or(from_environment).or_else(default_path);
        let candidate = config_option.filter(|named| Some(named) != current.as_ref());
        let has_current = current.is_some();
        let read = |path: PathBuf| match config::load(&path) {
            Ok(checked) => Ok((path.display().to_string(), checked.settings)),
            Err(problems) => {
                check::report_problems(&path, &problems);
                Err(Exit::InvalidConfig)
            }
        };
        let files: Result<_, _> = current.into_iter().chain(candidate).map(read).collect();
        Ok(Self { files: files?, has_current })
    }

    /// Where the recordings lie: the current configuration tells, or the only one there is.
    pub(crate) fn settings(&self) -> Option<&Settings> {
        self.files.first().map(|(_, settings)| settings)
    }

    /// What they say about a service: the one that is named, or the only one.
    pub(crate) fn for_service(
        &self,
        service: Option<&str>,
    ) -> Result<Vec<Variant>, (Exit, String)> {
        let mut variants = Vec::new();
        if !self.has_current && service.is_none() {
            let defaults = config::parse("defaults", DEFAULTS);
            let service = defaults.ok().and_then(|it| it.settings.services.into_values().next());
            variants.extend(service.map(|service| Variant::new("defaults", &service)));
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
                    return Err((Exit::InvalidArguments, what));
                }
            };
            let not_found = || {
                let service = service.unwrap_or_default();
                let what = format!(
                    "no service {service} in {name}; name one that both configurations have"
                );
                (Exit::NotFound, what)
            };
            variants.push(Variant::new(name, chosen.ok_or_else(not_found)?));
        }
        if variants.is_empty() {
            let what = "no configuration tells about that service; name one with --current";
            return Err((Exit::NotFound, what.to_owned()));
        }
        Ok(variants)
    }
}

impl Variant {
    fn new(name: &str, service: &Service) -> Self {
        let (config_name, limits) = (name.to_owned(), service.slo.clone());
        let (drain, session_cost) = (service.policy.drain_timeout, service.policy.session_cost);
        Self { config_name, limits, drain, session_cost }
    }
}
