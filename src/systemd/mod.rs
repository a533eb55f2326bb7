//! The service manager of this host, over D-Bus: how units stand, and jobs that start and stop them.
//!
//! One connection for the whole daemon, made when it is first needed and made again when it broke:
//! D-Bus may come later than we do, and be started again while we run.

mod error_help;
pub(crate) mod inherited_listeners;
mod jobs;
pub(crate) mod notify;
mod unit_state;
mod unit_watcher;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use zbus::{Connection, DynamicType, Message};

pub use crate::systemd::unit_state::{ResourceWeights, UnitState};
pub use crate::systemd::unit_watcher::UnitWatcher;

const SYSTEMD_BUS_NAME: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES_INTERFACE: &str = "org.freedesktop.DBus.Properties";

/// How long one answer may take. It includes polkit, which asks a program of ours.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// The way to the service manager. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SystemdManager(Arc<Mutex<Option<Connection>>>);

impl SystemdManager {
    /// The connection; a new one where there is none, or the last one broke.
    async fn connection(&self) -> zbus::Result<Connection> {
        let mut cached = self.0.lock().await;
        if let Some(connection) = cached.as_ref().filter(|it| !it.is_closed()) {
            return Ok(connection.clone());
        }
        let connecting = zbus::connection::Builder::system().method_timeout(CALL_TIMEOUT).build();
        let connection = match tokio::time::timeout(CALL_TIMEOUT, connecting).await {
            Ok(connection) => connection?,
            Err(_) => return Err(zbus::Error::Failure("no answer in time".to_owned())),
        };
        let target = (Some(SYSTEMD_BUS_NAME), MANAGER_PATH, Some(MANAGER_INTERFACE));
        // Without it systemd sends no signals about units.
        connection.call_method(target.0, target.1, target.2, "Subscribe", &()).await?;
        *cached = Some(connection.clone());
        Ok(connection)
    }

    async fn call_manager(
        &self,
        method: &str,
        body: &(impl serde::Serialize + DynamicType + Sync),
    ) -> zbus::Result<Message> {
        let connection = self.connection().await?;
        connection
            .call_method(
                Some(SYSTEMD_BUS_NAME),
                MANAGER_PATH,
                Some(MANAGER_INTERFACE),
                method,
                body,
            )
            .await
    }
}
