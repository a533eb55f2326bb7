//! Who sends requests: users of very different weight, who come and go, and the calls they make.
#![expect(clippy::indexing_slicing, reason = "the indices are in range by construction")]

use super::super::rng::Rng;
use super::intervals::{Intervals, alternating, is_inside};

/// Calls of the service: one makes half of the requests, one a twentieth, the rest share evenly.
pub const CALLS: usize = 20;
/// How often a user who is away is drawn again.
const REDRAWS_MAX: usize = 20;

/// How many users there are, and how many requests they send each second in all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    pub subjects: usize,
    pub rate: f64,
}

/// How long users stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stay {
    /// From before the bake until after it.
    Always,
    /// For times with the first mean, and away for times with the second, in seconds.
    Sessions(f64, f64),
}

/// The users of one bake. Rates go by rank: the second sends half of what the first sends.
pub struct Population {
    subjects: Alias,
    calls: Alias,
    present: Vec<Intervals>,
}

impl Population {
    /// The users of one bake of so many seconds.
    pub fn new(size: Size, stay: Stay, seconds: f64, rng: &mut Rng) -> Self {
        let weights: Vec<f64> = (1..=size.subjects).map(|rank| 1.0 / rank as f64).collect();
        let mut calls = vec![0.45 / (CALLS - 2) as f64; CALLS];
        calls[..2].copy_from_slice(&[0.5, 0.05]);
        let present = match stay {
            Stay::Always => Vec::new(),
            Stay::Sessions(here, away) => (0..size.subjects)
                .map(|_| alternating(rng, here / (here + away), here, 0.0, seconds))
                .collect(),
        };
        Self { subjects: Alias::new(&weights), calls: Alias::new(&calls), present }
    }

    /// The user and the call of the next request, sent at this second. None where nobody is there.
    pub fn draw(&self, at: f64, rng: &mut Rng) -> Option<(usize, usize)> {
        let is_here = |subject: &usize| {
            self.present.get(*subject).is_none_or(|intervals| is_inside(intervals, at))
        };
        let subject = (0..REDRAWS_MAX).map(|_| self.subjects.draw(rng)).find(is_here)?;
        Some((subject, self.calls.draw(rng)))
    }
}

/// Draws an index by weight in constant time: Walker (1977), built as Vose (1991) does.
struct Alias {
    keep: Vec<f64>,
    other: Vec<usize>,
}

impl Alias {
    fn new(weights: &[f64]) -> Self {
        let scale = weights.len() as f64 / weights.iter().sum::<f64>();
        let mut keep: Vec<f64> = weights.iter().map(|weight| weight * scale).collect();
        let mut other = vec![0; keep.len()];
        let (mut light, mut heavy): (Vec<usize>, Vec<usize>) =
            (0..keep.len()).partition(|index| keep[*index] < 1.0);
        while let (Some(low), Some(high)) = (light.pop(), heavy.last().copied()) {
            other[low] = high;
            keep[high] -= 1.0 - keep[low];
            if keep[high] < 1.0 {
                heavy.pop();
                light.push(high);
            }
        }
        // What is left differs from 1 by rounding only.
        heavy.into_iter().for_each(|index| keep[index] = 1.0);
        Self { keep, other }
    }

    fn draw(&self, rng: &mut Rng) -> usize {
        let x = rng.uniform() * self.keep.len() as f64;
        let index = (x as usize).min(self.keep.len() - 1);
        if x - (index as f64) < self.keep[index] { index } else { self.other[index] }
    }
}
