//! What clients connect to: inherited where that fits, made anew where not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use tokio::net::{TcpListener, UnixListener};

use super::StartError;
use crate::config::{Service, Settings};
use crate::control::server;
use crate::proxy;
use crate::systemd::inherited_listeners::InheritedListeners;

/// All listeners of a daemon that is not in charge yet. Nobody is accepted.
#[derive(Debug)]
pub(super) struct Listeners {
    /// Those of the services, by name.
    pub services: BTreeMap<String, TcpListener>,
    /// The services whose listener was made anew.
    pub newly_bound: BTreeSet<String>,
    /// That of the verbs.
    pub control: UnixListener,
    /// That of the metrics.
    pub metrics: Option<TcpListener>,
    /// What was passed on, and nobody has.
    pub unclaimed: InheritedListeners,
}

impl Listeners {
    /// Listens on everything that the configuration names.
    ///
    /// # Errors
    /// When an address, or the control socket, is not to be had.
    pub(super) fn open(
        settings: &Settings,
        mut inherited: InheritedListeners,
    ) -> Result<Self, StartError> {
        let control = match inherited.claim_control() {
            Some(listener) => UnixListener::from_std(listener),
            None => server::listen(&settings.control_socket),
        };
        let control = control.map_err(|source| {
            let what = format!("failed to listen on {}", settings.control_socket.display());
            StartError::new(what, source)
        })?;
        let metrics = settings.metrics.map(|address| {
            let listener = match inherited.claim_metrics(address) {
                Some(listener) => TcpListener::from_std(listener),
                None => proxy::bind(address),
            };
            let what = || format!("failed to listen on {address} for metrics");
            listener.map_err(|source| StartError::new(what(), source))
        });
        let metrics = metrics.transpose()?;
        let (mut services, mut newly_bound) = (BTreeMap::new(), BTreeSet::new());
        for service in settings.services.values() {
            let (listener, is_new) = listen(service, &mut inherited).map_err(|source| {
                let what = format!("failed to listen on {} for {}", service.listen, service.name);
                StartError::new(what, source)
            })?;
            services.insert(service.name.clone(), listener);
            if is_new {
                newly_bound.insert(service.name.clone());
            }
        }
        Ok(Self { services, newly_bound, control, metrics, unclaimed: inherited })
    }
}

/// The listener of a service, and whether it is a new one.
fn listen(
    service: &Service,
    inherited: &mut InheritedListeners,
) -> io::Result<(TcpListener, bool)> {
    match inherited.claim_service(service.listen) {
        Some(listener) => Ok((TcpListener::from_std(listener)?, false)),
        None => Ok((proxy::bind(service.listen)?, true)),
    }
}
