//! What a release runs from, held to what it was: an artifact that changed is never run by accident.
//!
//! [`find`] says at a deploy what an artifact is and what its content comes to, its [`Digest`]; a
//! [`Verifier`] says later whether it still is that. An image is kept by a pin, a tag of ours in podman's
//! store ([`Podman::pin`]).
//!
//! # What a digest covers
//!
//! - **An image**: podman's digest of its manifest, which covers everything that is in it.
//! - **A file**: SHA-256 of its bytes, as `sha256sum` prints it.
//! - **A folder**: SHA-256 of one record per entry below it, in the order of the bytes of their paths:
//!
//!   ```text
//!   KIND SPACE HASH SPACE PATH NUL
//!   ```
//!
//!   `PATH` is the entry's path below the folder, its bytes as they are, and that of a folder ends
//!   with `/`. `KIND` is `f` for a file, `x` for a file that its owner may execute, `l` for a symbolic
//!   link, `d` for a folder. `HASH` is the SHA-256 of a file's bytes or of a link's target, in
//!   64 small hexadecimal digits, and `-` for a folder. Links are not followed. Owners, times, other
//!   bits of the mode, attributes and hard links do not count, so that a copy has the same digest on
//!   every machine. Empty folders count. As a script:
//!
//!   ```bash
//!   cd FOLDER && find . -mindepth 1 \( -type d -printf '%P/\0' -o -printf '%P\0' \) | LC_ALL=C sort -z |
//!   while IFS= read -r -d '' path; do
//!     if [ -L "$path" ]; then kind=l hash=$(readlink -n -- "$path" | sha256sum)
//!     elif [ -d "$path" ]; then kind=d hash=-
//!     else kind=f hash=$(sha256sum <"$path"); case $(stat -c %A -- "$path") in ???[xs]*) kind=x; esac
//!     fi
//!     printf '%s %s %s\0' "$kind" "${hash%% *}" "$path"
//!   done | sha256sum
//!   ```
//!
//! # What it does not
//!
//! What a release reads from elsewhere: the interpreter, libraries of the system, the network.

mod canonical_path;
mod digest;
mod error;
mod hash;
mod image_pin;
mod podman;
mod reference;
mod resolve;
mod stat_fingerprint;
mod verifier;
mod walk;

pub use digest::Digest;
pub use podman::Podman;

pub use crate::artifact::resolve::{ArtifactKind, ResolvedArtifact, resolve};
pub use crate::artifact::verifier::{Verifier, VerifyError};
