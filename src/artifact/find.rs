use tokio::sync::Semaphore;

use super::digest::Digest;
use super::hash::{Hashed, hash};
use super::place::place;
use super::podman::Podman;
use super::reference::Reference;
use super::seal::Seal;
use super::trouble::Trouble;

/// Bytes of the text that names an artifact; as long as a path may be.
const TEXT_MAX: usize = 4096;

/// Deploys are hashed one after the other: two at once would take as long, and more of the disk.
static TURN: Semaphore = Semaphore::const_new(1);

/// What an artifact's text names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// An absolute path is a path, what has a colon or a slash in it is an image, all else is a word.
    #[default]
    Auto,
    /// An image in podman's store.
    Image,
    /// A file or a folder.
    Path,
    /// A word that only the release's command understands. It is not checked.
    Word,
}

/// An artifact as it is at its deploy.
#[derive(Debug, Clone)]
pub struct Found {
    /// What to record and to run: a path without a slash at its end, an image without a tag.
    pub artifact: String,
    /// Tells from now on whether it is still the same; nothing does of a word.
    pub seal: Option<Seal>,
}

/// Says what an artifact is. Reads all of it; at most ten minutes, most of them for another deploy
/// that is at it.
///
/// # Errors
/// It can not be held to what it is: why, and what to deploy instead, in a whole sentence.
pub async fn find(kind: Kind, text: &str, podman: Option<&Podman>) -> Result<Found, String> {
    if text.is_empty() || TEXT_MAX < text.len() || text.contains(char::is_control) {
        return Err(format!("an artifact is one line of 1 to {TEXT_MAX} bytes"));
    }
    match kind.of(text) {
        Kind::Image => image(text, podman).await.map_err(|why| match kind {
            Kind::Auto => format!(
                "{why} (it was taken for an image; artifact = \"path\" or artifact = \"word\" in the \
                 configuration says otherwise)"
            ),
            _ => why,
        }),
        Kind::Path => path(text).await,
        Kind::Auto | Kind::Word => Ok(Found { artifact: text.to_owned(), seal: None }),
    }
}

impl Found {
    /// What its content comes to, as it is recorded; nothing for a word.
    pub fn digest(&self) -> Option<&Digest> {
        self.seal.as_ref().map(Seal::digest)
    }
}

impl Kind {
    /// Never `Auto`.
    fn of(self, text: &str) -> Self {
        match self {
            Self::Auto if text.starts_with('/') => Self::Path,
            Self::Auto if text.contains([':', '/']) => Self::Image,
            Self::Auto => Self::Word,
            kind => kind,
        }
    }
}

async fn path(text: &str) -> Result<Found, String> {
    let found = async {
        let path = place(text).await?;
        Ok((hash(&path, &TURN).await?, path))
    };
    match found.await {
        Ok((Hashed { digest, fingerprint }, path)) => {
            let artifact = path.display().to_string();
            Ok(Found { seal: Some(Seal::of_path(&artifact, digest, fingerprint)), artifact })
        }
        Err(Trouble::Gone) => Err(format!("{text} is not there; the daemon's user has to see it")),
        Err(Trouble::Unreadable(why)) => Err(why),
    }
}

async fn image(text: &str, podman: Option<&Podman>) -> Result<Found, String> {
    let reference = Reference::parse(text).map_err(|why| {
        format!(
            "{text} names no image: {why}; write NAME@sha256:HEX, which `podman images --digests` shows"
        )
    })?;
    let podman = podman.ok_or_else(|| {
        format!("{text} is an image, and no podman is configured that could be asked for it")
    })?;
    let Some(digest) = &reference.digest else {
        return Err(podman.instead_of(&reference).await?);
    };
    let artifact = reference.at(digest);
    if podman.image(&artifact).await?.is_none() {
        return Err(podman.unknown(&reference, digest).await?);
    }
    let seal = Seal::new(&artifact, digest.clone(), Some(podman.clone()));
    Ok(Found { artifact, seal: Some(seal) })
}
