//! The configurations that a replay compares: the current one and a candidate.

use std::path::PathBuf;
use std::time::Duration;

use crate::backtest::BacktestError;
use crate::config;
use crate::config::{Service, Settings};
use crate::judge::SloSettings;

/// The shortest valid configuration: every objective has its default.
const DEFAULTS: &str = "[service.any]\nlisten = \"127.0.0.1:8080\"\nruntime = \"external\"\n\
    slots = { blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }\n";

/// The settings of one service in one configuration.
#[derive(Debug)]
pub(crate) struct Variant {
    /// The file, or `defaults`.
    pub(crate) config_name: String,
    pub(crate) slo: SloSettings,
    pub(crate) drain: Duration,
    pub(crate) session_cost: f64,
    /// How long a step of a ramp lasts at most.
    pub(crate) ramp_step: Duration,
}

/// The current configuration, and the candidate. Without both, the defaults.
#[derive(Debug)]
pub(crate) struct Variants {
    current: Option<NamedConfig>,
    candidate: Option<NamedConfig>,
}

#[derive(Debug)]
struct NamedConfig {
    name: String,
    settings: Settings,
}

impl Variants {
    /// Reads both files.
    pub(crate) fn load(
        current: Option<PathBuf>,
        candidate: Option<PathBuf>,
    ) -> Result<Self, BacktestError> {
        Ok(Self {
            current: current.map(NamedConfig::load).transpose()?,
            candidate: candidate.map(NamedConfig::load).transpose()?,
        })
    }

    /// The settings that name the folder of the recordings: the current ones, else the candidate.
    pub(crate) fn settings(&self) -> Option<&Settings> {
        self.configs().next().map(|it| &it.settings)
    }

    /// The settings of a service in each configuration. Without a name: of the only service.
    pub(crate) fn for_service(&self, service: Option<&str>) -> Result<Vec<Variant>, BacktestError> {
        let mut variants = Vec::new();
        if self.current.is_none() && service.is_none() {
            let defaults = config::parse("defaults", DEFAULTS);
            let service = defaults.ok().and_then(|it| it.settings.services.into_values().next());
            variants.extend(service.map(|service| Variant::new("defaults", &service)));
        }
        for config in self.configs() {
            variants.push(Variant::new(&config.name, config.service(service)?));
        }
        if variants.is_empty() {
            let what = "no configuration has that service; name one with --current";
            return Err(BacktestError::NotFound(what.to_owned()));
        }
        Ok(variants)
    }

    fn configs(&self) -> impl Iterator<Item = &NamedConfig> {
        self.current.iter().chain(&self.candidate)
    }
}

impl NamedConfig {
    fn load(path: PathBuf) -> Result<Self, BacktestError> {
        match config::load(&path) {
            Ok(loaded) => Ok(Self { name: path.display().to_string(), settings: loaded.settings }),
            Err(problems) => Err(BacktestError::InvalidConfig(path, Box::new(problems))),
        }
    }

    fn service(&self, name: Option<&str>) -> Result<&Service, BacktestError> {
        let services = &self.settings.services;
        let config = &self.name;
        match name {
            Some(name) => services.get(name).ok_or_else(|| {
                BacktestError::NotFound(format!(
                    "no service {name} in {config}; name one that both configurations have"
                ))
            }),
            None => {
                let only = services.values().next().filter(|_| services.len() == 1);
                only.ok_or_else(|| {
                    let names: Vec<_> = services.keys().map(String::as_str).collect();
                    BacktestError::Usage(format!(
                        "{config} has several services: name one with --service ({})",
                        names.join(", ")
                    ))
                })
            }
        }
    }
}

impl Variant {
    fn new(config_name: &str, service: &Service) -> Self {
        Self {
            config_name: config_name.to_owned(),
            slo: service.slo.clone(),
            drain: service.policy.drain_timeout,
            session_cost: service.policy.session_cost,
            ramp_step: service.policy.ramp.step_max,
        }
    }
}
