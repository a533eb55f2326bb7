//! The HTML. The templates are checked by the compiler and escape every value.

mod charts;
mod host;
mod layout;
mod reviews;
mod service;
#[cfg(test)]
pub(super) mod tests;
mod timeline;

pub(super) use crate::web::pages::host::{host, host_sections};
pub(super) use crate::web::pages::layout::{PageHead, message};
pub(super) use crate::web::pages::service::{service, service_sections};
pub(super) use crate::web::pages::timeline::deploy;
