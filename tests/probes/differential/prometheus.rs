//! A process of Prometheus that scrapes the pages, and its API.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::async_wait::wait_for;

/// A program of a package of Debian, which tests/run unpacks.
pub(crate) fn unpacked(package: &str) -> Command {
    let home = package.strip_prefix("prometheus-").unwrap_or(package);
    let path = format!("target/{home}/usr/bin/{package}");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    assert!(program.exists(), "{} is missing; run tests/run", program.display());
    Command::new(program)
}

/// An address with a free port, on a loopback address that no other process uses.
pub(crate) fn free_address() -> String {
    let pid = std::process::id();
    let host = format!("127.77.{}.{}", pid >> 8 & 0xff, pid & 0xff);
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().to_string()
}

/// A client for the loopback.
pub(crate) fn http_client() -> reqwest::Client {
    let tls = rollbackd::tls::no_roots().unwrap();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

/// A child that ends with its owner.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What Prometheus says about one page.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) is_up: bool,
    /// Lines with a value, up to one that it refuses.
    pub(crate) samples: usize,
    /// Why it is not up.
    #[expect(dead_code, reason = "it is printed where the two readers differ")]
    pub(crate) error: String,
}

pub(crate) struct Prometheus {
    url: String,
    client: reqwest::Client,
    _program: Program,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it. It scrapes the paths from `/0` on, each within the first two seconds.
    pub(crate) fn start(address: &str, paths: usize) -> Self {
        let (dir, listen) = (tempfile::tempdir().unwrap(), free_address());
        let mut config = String::from(
            "global: {scrape_interval: 2s, scrape_timeout: 2s}\n\
             scrape_configs:\n- job_name: pages\n  static_configs:\n",
        );
        for path in 0..paths {
            let labels = format!("{{__metrics_path__: /{path}, path: \"{path}\"}}");
            writeln!(config, "  - {{targets: [\"{address}\"], labels: {labels}}}").unwrap();
        }
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let data = dir.path().join("data");
        let program = Program::start(
            unpacked("prometheus")
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", data.display()))
                .arg(format!("--web.listen-address={listen}")),
        );
        let client = http_client();
        Self { url: format!("http://{listen}"), client, _program: program, _dir: dir }
    }

    /// All targets, when each was scraped once.
    pub(crate) async fn targets(&self, paths: usize) -> Vec<Target> {
        wait_for("Prometheus has scraped all pages", || self.scraped_targets(paths)).await
    }

    async fn scraped_targets(&self, paths: usize) -> Option<Vec<Target>> {
        // Samples are there when `up` is.
        let up = self.query("up").await?;
        let read = self.query("scrape_samples_scraped").await?;
        let answer = self.get("/api/v1/targets?state=active").await?;
        let active = answer["data"]["activeTargets"].as_array()?;
        let target = |path: usize| {
            let path = path.to_string();
            let of = |it: &&Value| it["labels"]["path"] == *path || it["metric"]["path"] == *path;
            let up = up.iter().find(of)?["value"][1].as_str()?;
            let error = active.iter().find(of)?["lastError"].as_str()?.to_owned();
            let samples = read.iter().find(of)?["value"][1].as_str()?.parse().ok()?;
            // A slow host is no opinion.
            let is_late = error.contains("deadline") || error.contains("connection");
            (!is_late).then_some(Target { is_up: up == "1", samples, error })
        };
        (0..paths).map(target).collect()
    }

    /// The sum of each selector on a page; `None` without a series.
    pub(crate) async fn sums(&self, path: usize, selectors: &[String]) -> Vec<Option<f64>> {
        let mut sums = Vec::new();
        for selector in selectors {
            let query = match selector.strip_suffix('}') {
                Some(open) => format!("sum({open},path=\"{path}\"}})"),
                None => format!("sum({selector}{{path=\"{path}\"}})"),
            };
            // Prometheus 2 has no selector with a quoted name.
            let answer = match selector.starts_with('{') {
                true => Vec::new(),
                false => self.query(&query).await.unwrap_or_else(|| panic!("{query} fails")),
            };
            let sum = answer.first().and_then(|it| it["value"][1].as_str());
            sums.push(sum.map(|it| it.parse().unwrap()));
        }
        sums
    }

    async fn query(&self, query: &str) -> Option<Vec<Value>> {
        let url = reqwest::Url::parse_with_params(
            &format!("{}/api/v1/query", self.url),
            [("query", query)],
        );
        let answer = self.get_url(url.unwrap()).await?;
        answer["data"]["result"].as_array().cloned()
    }

    async fn get(&self, path: &str) -> Option<Value> {
        self.get_url(format!("{}{path}", self.url).parse().unwrap()).await
    }

    async fn get_url(&self, url: reqwest::Url) -> Option<Value> {
        let answer = self.client.get(url).send().await.ok()?;
        serde_json::from_str(&answer.text().await.ok()?).ok()
    }
}
