//! What a socket unit listens on.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::systemd::error_help;
use crate::systemd::manager::SystemdManager;
use crate::systemd::unit_state::{UNIT_INTERFACE, array_items, as_string, struct_fields};

const SOCKET_INTERFACE: &str = "org.freedesktop.systemd1.Socket";

impl SystemdManager {
    /// The TCP addresses on which a socket unit listens now. Empty: it is not active, or there is none.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer.
    pub async fn socket_addresses(&self, unit: &str) -> Result<BTreeSet<SocketAddr>, String> {
        let read = async {
            let path = self.unit_path(unit).await?;
            let mut all = self.get_properties(&path, UNIT_INTERFACE).await?;
            all.extend(self.get_properties(&path, SOCKET_INTERFACE).await?);
            Ok(all)
        };
        let properties = read
            .await
            .map_err(|it| error_help::describe_failure("read the state of", unit, &it))?;
        if as_string(properties.get("ActiveState").map(|it| &**it)).as_deref() != Some("active") {
            return Ok(BTreeSet::new());
        }
        // `a(ss)`: the kind, such as "Stream", and the address.
        let listen = array_items(properties.get("Listen").map(|it| &**it));
        let address = |it| as_string(struct_fields(Some(it)).get(1))?.parse().ok();
        Ok(listen.iter().filter_map(address).collect())
    }
}
