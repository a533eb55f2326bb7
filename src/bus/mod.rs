//! The service manager of this host, over D-Bus: how units stand, and jobs that start and stop them.
//!
//! One connection for the whole daemon, made when it is first needed and made again when it broke:
//! D-Bus may come later than we do, and be started again while we run.

mod changes;
mod job;
mod state;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use zbus::{Connection, DynamicType, Message};

pub use changes::Changes;
pub use state::{State, Weights};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// How long one answer may take. It includes polkit, which asks a program of ours.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// The way to the service manager. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Bus(Arc<Mutex<Option<Connection>>>);

impl Bus {
    /// The connection; a new one where there is none, or the last one broke.
    async fn connection(&self) -> zbus::Result<Connection> {
        let mut held = self.0.lock().await;
        if let Some(connection) = held.as_ref().filter(|it| !it.is_closed()) {
            return Ok(connection.clone());
        }
        let made = zbus::connection::Builder::system().method_timeout(ANSWER_MAX).build();
        let connection = match tokio::time::timeout(ANSWER_MAX, made).await {
            Ok(connection) => connection?,
            Err(_) => return Err(zbus::Error::Failure("no answer in time".to_owned())),
        };
        let ask = (Some(SYSTEMD), MANAGER_PATH, Some(MANAGER));
        // Without it systemd sends no signals about units.
        connection.call_method(ask.0, ask.1, ask.2, "Subscribe", &()).await?;
        *held = Some(connection.clone());
        Ok(connection)
    }

    async fn manager(
        &self,
        method: &str,
        body: &(impl serde::Serialize + DynamicType + Sync),
    ) -> zbus::Result<Message> {
        let connection = self.connection().await?;
        connection.call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), method, body).await
    }
}
