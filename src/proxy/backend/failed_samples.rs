//! Read-only requests that failed on the release on trial, so that a shadow call can repeat them.
//!
//! They contain what clients sent, also credentials. So they are few, stay in memory, and expire.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, header, request};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::mcp::headers::{LAST_EVENT_ID, MCP_SESSION_ID};
use crate::model::CallKey;
use crate::mutex::lock;
use crate::proxy::backend::read_only_tools::ReadOnlyTools;

/// How long each request of a shadow call may take: each call, and each step of its session.
pub(in crate::proxy) const SHADOW_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest body that is sampled.
const BODY_MAX: usize = 16 * 1024;
/// The most samples of one release.
const SAMPLES_MAX: usize = 16;
/// How long a sample is kept after the request failed.
const SAMPLE_AGE_MAX: Duration = Duration::from_secs(10);
/// The most shadow calls in flight to one release.
const IN_FLIGHT_MAX: usize = 32;

/// Headers for one session, one connection or one body, which a shadow call does not repeat.
const NOT_REPLAYED_HEADERS: [HeaderName; 3] =
    [MCP_SESSION_ID, header::CONTENT_LENGTH, LAST_EVENT_ID];

/// The samples of one release, and the results of the shadow calls that were sent to it.
#[derive(Debug)]
pub(in crate::proxy) struct FailedSamples {
    sampling: AtomicBool,
    ring: Mutex<SampleRing>,
    /// One permit for each shadow call in flight to this release.
    pub permits: Arc<Semaphore>,
    completed: AtomicU64,
    failed: AtomicU64,
}

/// A request that a shadow call can repeat.
pub(in crate::proxy) struct SampledRequest {
    /// The end-to-end headers as the client sent them.
    pub headers: HeaderMap,
    /// Its path and query.
    pub path: PathAndQuery,
    body: Bytes,
}

/// The shadow calls of one sample.
#[derive(Debug)]
pub(in crate::proxy) struct ShadowBatch {
    pub sample: Arc<SampledRequest>,
    /// How often to send it.
    pub calls: usize,
}

#[derive(Debug, Default)]
struct SampleRing {
    samples: VecDeque<(Instant, Arc<SampledRequest>)>,
    next: usize,
}

impl FailedSamples {
    /// Samples failed requests from now on; or stops, and drops the samples.
    pub(in crate::proxy) fn set_sampling(&self, sampling: bool) {
        self.sampling.store(sampling, Ordering::Relaxed);
        if !sampling {
            self.ring().samples.clear();
        }
    }

    /// Whether failed requests are sampled.
    pub(in crate::proxy) fn is_sampling(&self) -> bool {
        self.sampling.load(Ordering::Relaxed)
    }

    /// Stores a request that failed.
    pub(in crate::proxy) fn record(&self, sample: SampledRequest, now: Instant) {
        let mut ring = self.ring();
        // Sampling may have stopped while the request was open.
        if self.sampling.load(Ordering::Relaxed) {
            if ring.samples.len() == SAMPLES_MAX {
                ring.samples.pop_front();
            }
            ring.samples.push_back((now, Arc::new(sample)));
        }
    }

    /// The next `count` shadow calls, from the samples in turn. Drops expired samples, and those whose
    /// parsed body is not read-only.
    pub(in crate::proxy) fn next_batch(
        &self,
        count: usize,
        read_only_tools: &ReadOnlyTools,
        now: Instant,
    ) -> Vec<ShadowBatch> {
        let mut ring = self.ring();
        ring.samples.retain(|(since, _)| now.saturating_duration_since(*since) < SAMPLE_AGE_MAX);
        if count > 0 {
            ring.samples.retain(|(_, sample)| sample.body_with_id("", read_only_tools).is_some());
        }
        let len = ring.samples.len();
        if len == 0 {
            return Vec::new();
        }
        let first = ring.next % len;
        ring.next = (first + count) % len;
        let batch = ring.samples.iter().cycle().skip(first).take(len).zip(0..count);
        batch
            .map(|((_, sample), at)| ShadowBatch {
                sample: Arc::clone(sample),
                calls: (count - at).div_ceil(len),
            })
            .collect()
    }

    /// Counts a shadow call that completed on this release.
    pub(in crate::proxy) fn record_result(&self, failed: bool) {
        self.completed.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    /// The shadow calls that completed here, and how many of them failed.
    pub(in crate::proxy) fn results(&self) -> (u64, u64) {
        let failed = self.failed.load(Ordering::Relaxed);
        (self.completed.load(Ordering::Relaxed).max(failed), failed)
    }

    fn ring(&self) -> MutexGuard<'_, SampleRing> {
        lock(&self.ring)
    }
}

impl Default for FailedSamples {
    fn default() -> Self {
        Self {
            sampling: AtomicBool::new(false),
            ring: Mutex::default(),
            permits: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }
}

impl fmt::Debug for SampledRequest {
    /// Omits what the client sent: it may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SampledRequest").field("path", &self.path.path()).finish_non_exhaustive()
    }
}

impl SampledRequest {
    /// A request as it goes to its release; `None` when it is too large.
    pub(in crate::proxy) fn from_request(
        head: &request::Parts,
        body: &Bytes,
        slot_host: &str,
    ) -> Option<Box<Self>> {
        if body.len() > BODY_MAX {
            return None;
        }
        let mut headers = head.headers.clone();
        for name in &NOT_REPLAYED_HEADERS {
            headers.remove(name);
        }
        // The name of its own slot is not that of another release.
        if headers.get(header::HOST).is_some_and(|host| host == slot_host) {
            headers.remove(header::HOST);
        }
        let path = head.uri.path_and_query()?.clone();
        Some(Box::new(Self { headers, path, body: body.clone() }))
    }

    /// Its method, and the name of its tool or prompt.
    pub(in crate::proxy) fn call(&self) -> Option<CallKey> {
        let message: Map<String, Value> = serde_json::from_slice(&self.body).ok()?;
        let name = message.get("params").and_then(|it| it.get("name")).and_then(Value::as_str);
        Some((message.get("method")?.as_str()?.into(), name.unwrap_or_default().into()))
    }

    /// The body with another id. `None` if the parsed body is not read-only: if a key occurs twice,
    /// the scanner may have read the other one.
    pub(in crate::proxy) fn body_with_id(
        &self,
        id: &str,
        read_only_tools: &ReadOnlyTools,
    ) -> Option<Bytes> {
        let mut message: Map<String, Value> = serde_json::from_slice(&self.body).ok()?;
        let method = message.get("method")?.as_str()?;
        let params = message.get("params");
        let name = params.and_then(|it| it.get("name")).and_then(Value::as_str);
        if !read_only_tools.is_read_only(method, name.unwrap_or_default()) {
            return None;
        }
        message.insert("id".to_owned(), id.into());
        let meta = message.get_mut("params").and_then(|it| it.get_mut("_meta"));
        if let Some(meta) = meta.and_then(Value::as_object_mut) {
            // The token belongs to the client; a shadow call reports no progress.
            meta.remove("progressToken");
        }
        serde_json::to_vec(&message).ok().map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::monotonic;
    use std::collections::BTreeSet;

    use super::*;

    fn sample(body: &str) -> SampledRequest {
        let path = PathAndQuery::from_static("/mcp");
        SampledRequest {
            headers: HeaderMap::new(),
            path,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn read_only_tools() -> ReadOnlyTools {
        let tools = ReadOnlyTools::default();
        tools.set_configured(BTreeSet::from(["look".to_owned()]));
        tools.set_annotated(BTreeSet::from([r"a\u0062".to_owned(), "see".to_owned()]));
        tools
    }

    #[test]
    fn only_what_is_safe_when_read_properly_is_repeated() {
        let call = |params: &str| {
            let text = format!(r#"{{"id":1,"method":"tools/call","params":{params}}}"#);
            sample(&text).body_with_id("7", &read_only_tools()).is_some()
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
            assert!(sample(text).body_with_id("7", &read_only_tools()).is_none(), "{text}");
        }
    }

    #[test]
    fn a_repeat_has_its_own_id_and_no_progress() {
        let text = r#"{"id":1,"method":"ping","params":{"_meta":{"progressToken":1,"x":2}}}"#;
        let body = sample(text).body_with_id("n-1", &ReadOnlyTools::default()).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["id"], "n-1");
        assert_eq!(body["params"]["_meta"], serde_json::json!({"x": 2}));
    }

    #[test]
    fn the_newest_samples_are_used_in_turn_and_expire() {
        let samples = FailedSamples::default();
        let start = monotonic();
        let after = |seconds| start + Duration::from_secs(seconds);
        let ping = |id: u32| sample(&format!(r#"{{"method":"ping","id":{id}}}"#));
        let next_batch = |count, now| {
            let batch = samples.next_batch(count, &ReadOnlyTools::default(), now).into_iter();
            batch.map(|it| (it.sample.body.clone(), it.calls)).collect::<Vec<_>>()
        };
        let expected = |id, times| (ping(id).body, times);
        samples.record(ping(0), start);
        assert_eq!(next_batch(3, start), []);
        samples.set_sampling(true);
        for id in 0..20 {
            samples.record(ping(id), start);
        }
        assert_eq!(next_batch(1, start), [expected(4, 1)]);
        assert_eq!(next_batch(2, start), [expected(5, 1), expected(6, 1)]);
        let all = next_batch(35, start);
        assert_eq!((all.len(), &all[0]), (16, &expected(7, 3)));
        assert_eq!(all.iter().map(|(_, times)| times).sum::<usize>(), 35);
        samples.record(ping(99), after(9));
        samples.record(sample(r#"{"method":"tools/call","id":1}"#), after(9));
        assert_eq!(next_batch(2, after(11)), [expected(99, 2)]);
        samples.set_sampling(false);
        assert_eq!(next_batch(2, after(11)), []);
    }
}
