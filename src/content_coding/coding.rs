//! The content codings that are decoded.

use http::{HeaderMap, header};

/// A content coding that is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    /// In the zlib format as specified, or bare as some servers send it.
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// The only coding that the headers name; `None` if it is unknown, or one of several.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let names = values.next()?.to_str().ok().filter(|_| values.next().is_none())?;
        let is_identity = |name: &&str| name.is_empty() || name.eq_ignore_ascii_case("identity");
        let mut names = names.split(',').map(str::trim).filter(|name| !is_identity(name));
        let name = names.next()?;
        let known = [
            ("gzip", Self::Gzip),
            ("x-gzip", Self::Gzip),
            ("deflate", Self::Deflate),
            ("br", Self::Brotli),
            ("zstd", Self::Zstd),
        ];
        let known = known.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known))?.1;
        names.next().is_none().then_some(known)
    }
}
