//! The behaviour of a release in a story.
#![expect(unreachable_pub, reason = "shared by tests")]

use rollbackd::model::{Contract, Counts, ProbeResult, ScrapeResult};

/// The faults, the contract and the counters of a simulated release.
#[derive(Clone)]
pub struct ReleaseBehaviour {
    pub error_rate: f64,
    pub slow_rate: f64,
    pub tool_error_rate: f64,
    pub probe: ProbeResult,
    pub starts: bool,
    pub protocols: Vec<String>,
    pub tool_names: Vec<String>,
    /// All requests served, and the bad ones of each kind.
    pub requests_served: f64,
    pub bad: [f64; 3],
    /// The release's own counters: all requests and the bad ones, and their start time.
    pub own_counters: (f64, f64),
    pub own_counters_since: f64,
    /// The scrape result that replaces the counters.
    pub scrape: Option<ScrapeResult>,
}

impl Default for ReleaseBehaviour {
    fn default() -> Self {
        let (fails, slow, tools) = (0.0, 0.0, 0.0);
        let speaks = vec!["2025-11-25".to_owned()];
        let (probe, starts, lists) = (ProbeResult::Ok, true, Vec::new());
        let (served, bad, counted, started, scrape) = (0.0, [0.0; 3], (0.0, 0.0), 0.0, None);
        Self {
            error_rate: fails,
            slow_rate: slow,
            tool_error_rate: tools,
            probe,
            starts,
            protocols: speaks,
            tool_names: lists,
            requests_served: served,
            bad,
            own_counters: counted,
            own_counters_since: started,
            scrape,
        }
    }
}

impl ReleaseBehaviour {
    pub fn contract(&self) -> Contract {
        let all = |words: &[String]| words.iter().cloned().collect();
        let (protocols, tools) = (all(&self.protocols), all(&self.tool_names));
        Contract { protocols, tools, ..Contract::default() }
    }

    pub fn serve(&mut self, n: f64) -> Counts {
        let fails = if self.starts { self.error_rate } else { 1.0 };
        let whole = |sum: &mut f64, more: f64| {
            let before = sum.floor();
            *sum += more;
            (sum.floor() - before) as u64
        };
        let served = whole(&mut self.requests_served, n);
        let [server_fault, slow, tool_fault] =
            [(0, fails), (1, self.slow_rate), (2, self.tool_error_rate)].map(|(at, share)| {
                let sum: &mut f64 = self.bad.get_mut::<usize>(at).unwrap();
                whole(sum, n * share).min(served)
            });
        self.own_counters.0 += served as f64;
        self.own_counters.1 += server_fault as f64;
        let ok = served - (server_fault + tool_fault).min(served);
        Counts { ok, server_fault, tool_fault, slow, with_latency: served, ..Counts::default() }
    }
}
