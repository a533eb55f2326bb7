//! TLS of outgoing connections: rustls with ring, and the certificate authorities of the system.
//!
//! The provider is always passed explicitly. reqwest is built without one and panics where a client is
//! built with neither a configuration nor a provider of the process: every client takes one from here.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// A configuration that trusts the authorities of the system; `SSL_CERT_FILE` names another file.
///
/// # Errors
/// The system has no authorities: what to install.
pub fn system_roots() -> Result<ClientConfig, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or(String::new(), |error| format!(" ({error})"));
        return Err(format!(
            "the system has no certificate authorities{why}; install the package ca-certificates"
        ));
    }
    config(roots)
}

/// A configuration for clients that only speak plain HTTP: it trusts no authority.
///
/// # Errors
/// The library refuses its own defaults.
pub fn no_roots() -> Result<ClientConfig, String> {
    config(RootCertStore::empty())
}

fn config(roots: RootCertStore) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot prepare TLS: {error}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// reqwest panics here where it is left to find a provider.
    #[test]
    fn a_client_needs_no_provider_of_the_process() {
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
        let builder = reqwest::Client::builder();
        builder.tls_backend_preconfigured(no_roots().unwrap()).build().unwrap();
    }
}
