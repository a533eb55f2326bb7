use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use zbus::message::Type;
use zbus::{Connection, DynamicType, MatchRule, Message};

pub(super) const SYSTEMD_BUS_NAME: &str = "org.freedesktop.systemd1";
pub(super) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
pub(super) const PROPERTIES_INTERFACE: &str = "org.freedesktop.DBus.Properties";

/// How long one reply may take. It includes polkit, which asks `rollbackd check --manages`.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// The D-Bus connection to systemd. Clones share it.
///
/// The first call connects, and a later call connects again if the connection broke: D-Bus may
/// start after the daemon, and restart while it runs.
#[derive(Debug, Clone, Default)]
pub struct SystemdManager(Arc<Mutex<Option<Connection>>>);

impl SystemdManager {
    pub(super) async fn connection(&self) -> zbus::Result<Connection> {
        let mut cached = self.0.lock().await;
        if let Some(connection) = cached.as_ref().filter(|it| !it.is_closed()) {
            return Ok(connection.clone());
        }
        let connecting = zbus::connection::Builder::system().method_timeout(CALL_TIMEOUT).build();
        let connection = match tokio::time::timeout(CALL_TIMEOUT, connecting).await {
            Ok(connection) => connection?,
            Err(_) => return Err(zbus::Error::Failure("no answer in time".to_owned())),
        };
        // systemd sends signals about units only to subscribed clients.
        call(&connection, "Subscribe", &()).await?;
        *cached = Some(connection.clone());
        Ok(connection)
    }

    pub(super) async fn call_manager(
        &self,
        method: &str,
        body: &(impl serde::Serialize + DynamicType + Sync),
    ) -> zbus::Result<Message> {
        call(&self.connection().await?, method, body).await
    }
}

/// A rule for signals of systemd. The bus delivers no broadcast of another sender.
pub(super) fn systemd_signals() -> zbus::match_rule::Builder<'static> {
    MatchRule::builder().msg_type(Type::Signal).sender(SYSTEMD_BUS_NAME)
}

async fn call(
    connection: &Connection,
    method: &str,
    body: &(impl serde::Serialize + DynamicType + Sync),
) -> zbus::Result<Message> {
    let (bus_name, interface) = (Some(SYSTEMD_BUS_NAME), Some(MANAGER_INTERFACE));
    connection.call_method(bus_name, MANAGER_PATH, interface, method, body).await
}
