use std::collections::BTreeMap;

use crate::config::Address;
use crate::model::Release;

/// The environment of a release, as process and as unit. The variables of the deploy override those
/// of the configuration (`configured`), and those of rollbackd override both.
pub(super) fn release_variables(
    configured: &BTreeMap<String, String>,
    release: &Release,
    address: &Address,
    service: &str,
) -> BTreeMap<String, String> {
    let mut all = configured.clone();
    all.extend(release.environment.clone());
    let listen = match address {
        Address::Tcp(_) => "PORT",
        Address::Unix(_) => "SOCKET",
    };
    let mut put = |name: &str, value: String| _ = all.insert(name.to_owned(), value);
    put(listen, port_or_path(address));
    put("ROLLBACKD_SERVICE", service.to_owned());
    put("ROLLBACKD_SLOT", release.slot.to_string());
    put("ROLLBACKD_NUMBER", release.number.to_string());
    put("ROLLBACKD_VERSION", release.version.clone());
    if let Some(artifact) = &release.artifact {
        put("ROLLBACKD_ARTIFACT", artifact.clone());
    }
    all
}

/// The port, or the path of the Unix socket.
pub(super) fn port_or_path(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.port().to_string(),
        Address::Unix(path) => path.display().to_string(),
    }
}
