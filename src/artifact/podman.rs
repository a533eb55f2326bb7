//! The client of podman's API, which finds and tags images.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::digest::Digest;
use super::reference::Reference;
use crate::artifact::error::shorten;
use crate::tls;

/// The oldest version of the API with all requests below; newer podmans accept it, too.
const API: &str = "http://podman/v4.0.0/libpod/images";
/// Limit of a response, including the start of a socket-activated podman.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one response.
const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A client of podman's API. Clones share the connection settings.
///
/// It finds and tags images, and never pulls, runs or removes one. Access to the socket of a user's
/// podman gives all rights of that user, root's podman those of root.
#[derive(Debug, Clone)]
pub struct Podman {
    client: Client,
    socket: PathBuf,
}

/// An image in the store.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Image {
    digest: String,
    /// The digest with each name; absent if the image has no name.
    repo_digests: Option<Vec<String>>,
    pub(super) repo_tags: Option<Vec<String>>,
}

/// An error response of podman.
#[derive(Debug, Deserialize)]
struct PodmanError {
    message: String,
    /// Not used, but required: another server's error response does not have it.
    #[serde(rename = "response")]
    _status: u16,
}

impl Podman {
    /// A client of the API at `socket`, such as `/run/podman/podman.sock`. Sends nothing yet.
    ///
    /// # Errors
    /// The client cannot be built.
    pub fn new(socket: &Path) -> Result<Self, String> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls::no_roots()?)
            .user_agent("rollbackd")
            .no_proxy()
            .redirect(Policy::none())
            .pool_max_idle_per_host(0)
            .timeout(RESPONSE_TIMEOUT)
            .unix_socket(socket)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { client, socket: socket.to_owned() })
    }

    /// The image with that name, if the store has it.
    pub(super) async fn find_image(&self, name: &str) -> Result<Option<Image>, String> {
        self.get(&format!("/{name}/json")).await
    }

    /// The answer about one image; `None` if podman does not have it.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, String> {
        let body = self.send(Method::GET, api_url(path, &[])?).await?;
        body.map(|body| self.parse(&body)).transpose()
    }

    /// The error for a name without a digest: which digest to deploy.
    pub(super) async fn suggest_digest(&self, tagged: &Reference) -> Result<String, String> {
        let Some(image) = self.find_image(&tagged.to_string()).await? else {
            return Ok(format!(
                "{tagged} is not in podman's store; build or pull it, and deploy its digest, \
                 NAME@sha256:HEX, which `podman images --digests` shows"
            ));
        };
        let what = if tagged.tag.is_some() { "a tag" } else { "a name without a digest" };
        let instead = image.digest_reference(&tagged.name);
        Ok(format!("{tagged} is {what}, which can move; deploy {instead} instead"))
    }

    /// The error for a digest that the store does not have: what to do.
    pub(super) async fn explain_missing_digest(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<String, String> {
        if let Some(image) = self.find_image(&digest.to_string()).await? {
            let instead = image.digest_reference(&reference.name);
            return Ok(format!("{digest} is the id of an image; deploy {instead} instead"));
        }
        let name = reference.with_digest(digest);
        Ok(format!("{name} is not in podman's store; `podman pull {name}` before it is deployed"))
    }

    /// The images with a tag of this name.
    pub(super) async fn images_tagged(&self, name: &str) -> Result<Vec<Image>, String> {
        let filter = format!("{{\"reference\":[\"{name}\"]}}");
        let body = self.send(Method::GET, api_url("/json", &[("filters", &filter)])?).await?;
        self.parse(&body.unwrap_or_default())
    }

    /// Adds a tag to an image, or removes it (`untag`). `false`: there is no such image.
    pub(super) async fn change_tag(
        &self,
        verb: &str,
        image: &str,
        repo: &str,
        tag: &str,
    ) -> Result<bool, String> {
        let url = api_url(&format!("/{image}/{verb}"), &[("repo", repo), ("tag", tag)])?;
        Ok(self.send(Method::POST, url).await?.is_some())
    }

    /// The body of a successful response; `None` if podman does not have the image.
    async fn send(&self, method: Method, url: Url) -> Result<Option<Vec<u8>>, String> {
        let request = self.client.request(method, url);
        let mut response = request.send().await.map_err(|error| self.transport_error(&error))?;
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| self.transport_error(&error))?
        {
            if RESPONSE_BYTES_MAX < body.len() + chunk.len() {
                return Err(self
                    .unexpected_response(&format!("more than {} MiB", RESPONSE_BYTES_MAX >> 20)));
            }
            body.extend_from_slice(&chunk);
        }
        let status = response.status();
        if status.is_success() {
            return Ok(Some(body));
        }
        // The 404 of another server must not look like a missing image.
        let error: PodmanError = self.parse(&body)?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Err(format!("podman answered {}: {}", status.as_u16(), shorten(&error.message)))
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, String> {
        serde_json::from_slice(body)
            .map_err(|error| self.unexpected_response(&shorten(&error.to_string())))
    }

    fn unexpected_response(&self, what: &str) -> String {
        format!(
            "the server at {} does not answer as podman 4 or later does ({what}); `podman system \
             service` must listen there",
            self.socket.display()
        )
    }

    fn transport_error(&self, error: &reqwest::Error) -> String {
        let socket = self.socket.display();
        if error.is_timeout() {
            let seconds = RESPONSE_TIMEOUT.as_secs();
            return format!(
                "podman did not answer at {socket} within {seconds} s; see `systemctl status podman`"
            );
        }
        let mut cause: &(dyn Error + 'static) = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        match cause.downcast_ref().map(io::Error::kind) {
            Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => format!(
                "podman does not listen at {socket}; run `systemctl enable --now podman.socket`"
            ),
            Some(ErrorKind::PermissionDenied) => format!(
                "the daemon's user may not reach {socket}; give podman.socket a drop-in with \
                 SocketGroup=rollbackd and a ListenStream= outside of /run/podman, which is root's"
            ),
            _ => {
                format!("the request to podman at {socket} failed: {}", shorten(&cause.to_string()))
            }
        }
    }
}

impl Image {
    /// Its recorded name with its digest whose last part is `name`; else `name` with its digest.
    fn digest_reference(&self, name: &str) -> String {
        let all = self.repo_digests.as_deref().unwrap_or_default();
        let of_name = |it: &&String| {
            it.split_once('@').is_some_and(|(full, _)| {
                full.strip_suffix(name).is_some_and(|host| host.is_empty() || host.ends_with('/'))
            })
        };
        let known = all.iter().find(of_name).cloned();
        shorten(&known.unwrap_or_else(|| format!("{name}@{}", self.digest)))
    }
}

fn api_url(path: &str, query: &[(&str, &str)]) -> Result<Url, String> {
    let mut url =
        Url::parse(&format!("{API}{path}")).map_err(|error| format!("{path}: {error}"))?;
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}
