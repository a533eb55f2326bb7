//! Requests that failed on a release on trial and are safe to ask once more, of another release.
//!
//! They hold what clients sent, credentials too: in memory only, few, and not for long.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, header, request};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::headers;
use super::upload::Upload;
use super::upstream::Upstream;

/// The largest body that is kept.
const BODY_MAX: usize = 16 * 1024;
/// Requests that are kept for one release.
const KEPT_MAX: usize = 16;
/// How long one is kept after it failed.
const AGE_MAX: Duration = Duration::from_secs(10);
/// Repeats in flight to one release.
const IN_FLIGHT_MAX: usize = 32;

/// Methods that change nothing.
const SAFE: [&str; 9] = [
    "ping",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "prompts/get",
    "completion/complete",
    "server/discover",
];
const TOOL: &str = "tools/call";

/// What is meant for one session, one connection or one length of body, and not for a repeat.
const OWN: [HeaderName; 4] = [
    headers::SESSION,
    header::HOST,
    header::CONTENT_LENGTH,
    HeaderName::from_static("last-event-id"),
];

/// The tools that are known to change nothing.
#[derive(Debug, Default)]
pub(super) struct Safe {
    learned: ArcSwap<BTreeSet<String>>,
    named: ArcSwap<BTreeSet<String>>,
}

/// What a release keeps for repeats, and what became of repeats that were sent to it.
#[derive(Debug)]
pub(super) struct Repeats {
    keeps: AtomicBool,
    ring: Mutex<Ring>,
    /// Places for repeats on their way to this release.
    pub places: Arc<Semaphore>,
    ended: AtomicU64,
    bad: AtomicU64,
}

/// A request as it can be repeated.
pub(super) struct Repeat {
    /// End-to-end headers as the client sent them.
    pub headers: HeaderMap,
    /// The endpoint.
    pub path: PathAndQuery,
    body: Bytes,
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<(Instant, Arc<Repeat>)>,
    next: usize,
}

impl Safe {
    /// Takes these tools for safe because a release says so.
    pub(super) fn learn(&self, tools: BTreeSet<String>) {
        self.learned.store(Arc::new(tools));
    }

    /// Takes these tools for safe because the operator says so.
    pub(super) fn name(&self, tools: BTreeSet<String>) {
        self.named.store(Arc::new(tools));
    }

    /// Whether a call changes nothing. A name that is written with escapes is not known here.
    pub(super) fn covers(&self, method: &str, name: &str) -> bool {
        SAFE.contains(&method)
            || method == TOOL
                && !name.contains('\\')
                && (self.learned.load().contains(name) || self.named.load().contains(name))
    }
}

impl Repeats {
    /// Keeps failed requests from now on, or forgets what it has and keeps none.
    pub(super) fn keep(&self, keeps: bool) {
        self.keeps.store(keeps, Ordering::Relaxed);
        if !keeps {
            self.ring().kept.clear();
        }
    }

    /// Keeps a request that failed.
    pub(super) fn failed(&self, repeat: Repeat, now: Instant) {
        let mut ring = self.ring();
        // It may have been on its way since before nothing was to be kept any more.
        if self.keeps.load(Ordering::Relaxed) {
            if ring.kept.len() == KEPT_MAX {
                ring.kept.pop_front();
            }
            ring.kept.push_back((now, Arc::new(repeat)));
        }
    }

    /// The next `count` of the kept requests in turn, and how often each comes; forgets
    /// the old, and what is not safe when it is read properly.
    pub(super) fn take(
        &self,
        count: usize,
        safe: &Safe,
        now: Instant,
    ) -> Vec<(Arc<Repeat>, usize)> {
        let mut ring = self.ring();
        ring.kept.retain(|(since, _)| now.saturating_duration_since(*since) < AGE_MAX);
        if count > 0 {
            ring.kept.retain(|(_, repeat)| repeat.body("", safe).is_some());
        }
        let kept = ring.kept.len();
        if kept == 0 {
            return Vec::new();
        }
        let first = ring.next % kept;
        ring.next = (first + count) % kept;
        let turns = ring.kept.iter().cycle().skip(first).take(kept).zip(0..count);
        turns.map(|((_, it), at)| (Arc::clone(it), (count - at).div_ceil(kept))).collect()
    }

    /// Counts a repeat that this release answered, or failed to.
    pub(super) fn count(&self, bad: bool) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.bad.fetch_add(u64::from(bad), Ordering::Relaxed);
    }

    /// Repeats that ended here, and the bad ones among them.
    pub(super) fn counts(&self) -> (u64, u64) {
        let bad = self.bad.load(Ordering::Relaxed);
        (self.ended.load(Ordering::Relaxed).max(bad), bad)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Repeats {
    fn default() -> Self {
        Self {
            keeps: AtomicBool::new(false),
            ring: Mutex::default(),
            places: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            ended: AtomicU64::new(0),
            bad: AtomicU64::new(0),
        }
    }
}

impl fmt::Debug for Repeat {
    /// Without what the client sent: it may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repeat").field("path", &self.path.path()).finish_non_exhaustive()
    }
}

impl Repeat {
    /// A request as it goes to `upstream`, should it have to be repeated; `None` almost always:
    /// when nothing is kept for that release, or the request is too large or may change something.
    pub(super) fn of(
        upstream: &Upstream,
        head: &request::Parts,
        upload: &Upload,
    ) -> Option<Box<Self>> {
        if !upstream.repeats.keeps.load(Ordering::Relaxed) || !upload.asks_one(&upstream.safe) {
            return None;
        }
        let body = upload.whole().filter(|body| body.len() <= BODY_MAX)?.clone();
        let mut headers = head.headers.clone();
        for name in &OWN {
            headers.remove(name);
        }
        Some(Box::new(Self { headers, path: head.uri.path_and_query()?.clone(), body }))
    }

    /// The body with another id. `None` if the request is not safe when it is read properly: with
    /// a key that stands twice, the reader on the way may have seen the other one.
    pub(super) fn body(&self, id: &str, safe: &Safe) -> Option<Bytes> {
        let mut message: Map<String, Value> = serde_json::from_slice(&self.body).ok()?;
        let method = message.get("method")?.as_str()?;
        let params = message.get("params");
        let name = params.and_then(|it| it.get("name")).and_then(Value::as_str);
        if !safe.covers(method, name.unwrap_or_default()) {
            return None;
        }
        message.insert("id".to_owned(), id.into());
        let meta = message.get_mut("params").and_then(|it| it.get_mut("_meta"));
        if let Some(meta) = meta.and_then(Value::as_object_mut) {
            // The client's own, for progress that nobody waits for here.
            meta.remove("progressToken");
        }
        serde_json::to_vec(&message).ok().map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeat(body: &str) -> Repeat {
        let path = PathAndQuery::from_static("/mcp");
        Repeat { headers: HeaderMap::new(), path, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    fn safe() -> Safe {
        let safe = Safe::default();
        safe.name(BTreeSet::from(["look".to_owned()]));
        safe.learn(BTreeSet::from([r"a\u0062".to_owned(), "see".to_owned()]));
        safe
    }

    #[test]
    fn only_what_is_safe_when_read_properly_is_repeated() {
        let call = |params: &str| {
            let text = format!(r#"{{"id":1,"method":"tools/call","params":{params}}}"#);
            repeat(&text).body("7", &safe()).is_some()
        };
        assert!(call(r#"{"name":"see"}"#) && call(r#"{"name":"l\u006fok"}"#));
        for params in [
            r#"{"name":"wipe","uri":"look"}"#,
            r#"{"name":"look","name":"wipe"}"#,
            r#"{"name":"look","n\u0061me":"wipe"}"#,
            r#"{"name":"a\\u0062"}"#,
            r#"{"name":7}"#,
            "[]",
        ] {
            assert!(!call(params), "{params}");
        }
        for text in ["", "[]", r#"{"method":"x","id":1}"#, r#"[{"method":"ping","id":1}]"#] {
            assert!(repeat(text).body("7", &safe()).is_none(), "{text}");
        }
    }

    #[test]
    fn a_repeat_has_its_own_id_and_no_progress() {
        let text = r#"{"id":1,"method":"ping","params":{"_meta":{"progressToken":1,"x":2}}}"#;
        let body = repeat(text).body("n-1", &Safe::default()).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["id"], "n-1");
        assert_eq!(body["params"]["_meta"], serde_json::json!({"x": 2}));
    }

    #[test]
    fn the_newest_are_kept_in_turn_and_not_for_long() {
        let repeats = Repeats::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let ping = |id: u32| repeat(&format!(r#"{{"method":"ping","id":{id}}}"#));
        let take = |count, now| {
            let taken = repeats.take(count, &Safe::default(), now).into_iter();
            taken.map(|(it, times)| (it.body.clone(), times)).collect::<Vec<_>>()
        };
        let one = |id, times| (ping(id).body, times);
        repeats.failed(ping(0), start);
        assert_eq!(take(3, start), []);
        repeats.keep(true);
        for id in 0..20 {
            repeats.failed(ping(id), start);
        }
        assert_eq!(take(1, start), [one(4, 1)]);
        assert_eq!(take(2, start), [one(5, 1), one(6, 1)]);
        let all = take(35, start);
        assert_eq!((all.len(), &all[0]), (16, &one(7, 3)));
        assert_eq!(all.iter().map(|(_, times)| times).sum::<usize>(), 35);
        repeats.failed(ping(99), after(9));
        repeats.failed(repeat(r#"{"method":"tools/call","id":1}"#), after(9));
        assert_eq!(take(2, after(11)), [one(99, 2)]);
        repeats.keep(false);
        assert_eq!(take(2, after(11)), []);
    }
}
