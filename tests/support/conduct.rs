//! How a release in a story behaves.
#![expect(unreachable_pub, reason = "shared by tests")]

use rollbackd::model::{Contract, Counts, Reply, Scrape};

/// How a release behaves.
#[derive(Clone)]
pub struct Conduct {
    pub fails: f64,
    pub slow: f64,
    pub tools: f64,
    pub probe: Reply,
    pub starts: bool,
    pub speaks: Vec<String>,
    pub lists: Vec<String>,
    /// Requests that were served, and the bad ones, in all.
    pub served: f64,
    pub bad: [f64; 3],
    /// What it counts itself, the bad ones among them, and since when.
    pub counted: (f64, f64),
    pub started: f64,
    /// What its scrape gives in place of that.
    pub scrape: Option<Scrape>,
}

impl Default for Conduct {
    fn default() -> Self {
        let (fails, slow, tools) = (0.0, 0.0, 0.0);
        let speaks = vec!["2025-11-25".to_owned()];
        let (probe, starts, lists) = (Reply::Ok, true, Vec::new());
        let (served, bad, counted, started, scrape) = (0.0, [0.0; 3], (0.0, 0.0), 0.0, None);
        Self {
            fails,
            slow,
            tools,
            probe,
            starts,
            speaks,
            lists,
            served,
            bad,
            counted,
            started,
            scrape,
        }
    }
}

impl Conduct {
    pub fn contract(&self) -> Contract {
        let all = |words: &[String]| words.iter().cloned().collect();
        let (protocols, tools) = (all(&self.speaks), all(&self.lists));
        Contract { protocols, tools, ..Contract::default() }
    }

    pub fn serve(&mut self, n: f64) -> Counts {
        let fails = if self.starts { self.fails } else { 1.0 };
        let whole = |sum: &mut f64, more: f64| {
            let before = sum.floor();
            *sum += more;
            (sum.floor() - before) as u64
        };
        let served = whole(&mut self.served, n);
        let [server_fault, slow, tool_fault] =
            [(0, fails), (1, self.slow), (2, self.tools)].map(|(at, share)| {
                let sum: &mut f64 = self.bad.get_mut::<usize>(at).unwrap();
                whole(sum, n * share).min(served)
            });
        self.counted.0 += served as f64;
        self.counted.1 += server_fault as f64;
        let ok = served - (server_fault + tool_fault).min(served);
        Counts { ok, server_fault, tool_fault, slow, timed: served, ..Counts::default() }
    }
}
