//! The first configuration of a service: what is found on the host ([`host`]), and the files that
//! are written ([`files`]).

pub mod files;
pub mod host;
