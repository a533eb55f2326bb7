//! The listeners of a daemon: inherited where the address matches, bound otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use tokio::net::{TcpListener, UnixListener};

use crate::config::{Service, Settings};
use crate::control::server;
use crate::daemon::error::StartError;
use crate::proxy;
use crate::systemd::inherited_listeners::InheritedListeners;
use crate::web::PageListener;

/// All listeners of a daemon. It does not accept connections yet.
#[derive(Debug)]
pub(super) struct Listeners {
    /// The listeners of the services, by name.
    pub services: BTreeMap<String, TcpListener>,
    /// The services whose listener is not inherited.
    pub newly_bound: BTreeSet<String>,
    /// The listener of the control API.
    pub control: UnixListener,
    /// The listener of the metrics.
    pub metrics: Option<TcpListener>,
    /// The listener of the status page.
    pub page: Option<PageListener>,
    /// Inherited listeners that no service uses.
    pub unclaimed: InheritedListeners,
}

/// The listener of a service.
enum Bound {
    Inherited(TcpListener),
    New(TcpListener),
}

impl Listeners {
    /// Listens on everything that the configuration names.
    ///
    /// # Errors
    /// When an address or the control socket is not available.
    pub(super) fn open(
        settings: &Settings,
        mut inherited: InheritedListeners,
    ) -> Result<Self, StartError> {
        let control = match inherited.claim_control() {
            Some(listener) => UnixListener::from_std(listener),
            None => server::listen(&settings.control_socket),
        };
        let control = control.map_err(|source| {
            let what = format!("cannot listen on {}", settings.control_socket.display());
            StartError::new(what, source)
        })?;
        let metrics = settings.metrics.map(|address| {
            let listener = match inherited.claim_metrics(address) {
                Some(listener) => TcpListener::from_std(listener),
                None => proxy::bind(address),
            };
            listener.map_err(|source| {
                let hint = taken_hint(&source);
                StartError::new(format!("cannot listen on {address} for metrics{hint}"), source)
            })
        });
        let metrics = metrics.transpose()?;
        let page = settings.page.as_ref().map(|page| {
            PageListener::open(&page.address, inherited.claim_page()).map_err(|source| {
                let what = format!("cannot listen on {} for the status page", page.address);
                StartError::new(what, source)
            })
        });
        let page = page.transpose()?;
        let (mut services, mut newly_bound) = (BTreeMap::new(), BTreeSet::new());
        for service in settings.services.values() {
            let bound = listen(service, &mut inherited).map_err(|source| {
                let what = format!("cannot listen on {} for {}", service.listen, service.name);
                let hint = taken_hint(&source);
                StartError::new(what + hint, source)
            })?;
            let name = service.name.clone();
            let listener = match bound {
                Bound::Inherited(listener) => listener,
                Bound::New(listener) => {
                    newly_bound.insert(name.clone());
                    listener
                }
            };
            services.insert(name, listener);
        }
        Ok(Self { services, newly_bound, control, metrics, page, unclaimed: inherited })
    }
}

/// How the operator finds out who has an address.
fn taken_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; `ss -ltnp` shows the process that has the address",
        _ => "",
    }
}

fn listen(service: &Service, inherited: &mut InheritedListeners) -> io::Result<Bound> {
    match inherited.claim_service(service.listen) {
        Some(listener) => TcpListener::from_std(listener).map(Bound::Inherited),
        None => proxy::bind(service.listen).map(Bound::New),
    }
}
