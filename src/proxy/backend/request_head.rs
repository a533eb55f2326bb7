//! The head of a request to a release.

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

/// The URI of a path at a release.
pub(in crate::proxy) fn backend_uri(authority: &str, path: PathAndQuery) -> Option<Uri> {
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Authority::try_from(authority).ok();
    uri.path_and_query = Some(path);
    Uri::from_parts(uri).ok()
}
