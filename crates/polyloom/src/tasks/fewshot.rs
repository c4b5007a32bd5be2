//! Which examples stand in the context of a row.

use std::collections::BTreeMap;

use polyloom_core::hash::xxh3;
use polyloom_core::rng::Stream;
use serde_json::Value;

use super::hash::canonical;
use super::prompt::Record;
use super::spec::{Fewshot, Sampler, SamplerName};
use crate::error::{MergeError, Result};

/// The rows that examples are taken from.
#[derive(Debug, Clone)]
pub struct Shots<'a> {
    rules: &'a Fewshot,
    pool: &'a [Record],
    digests: Vec<u64>,
}

impl<'a> Shots<'a> {
    /// Examples by the rules of a task out of these rows (as [`super::load::Loader::record`] gives them, so that `id` and
    /// `target` are there by name).
    ///
    /// # Errors
    /// Fixed ids that no row has; fewer rows than examples.
    pub fn new(rules: &'a Fewshot, pool: &'a [Record]) -> Result<Self> {
        let bad = |what: String| Err(MergeError::plan("bad-fewshot", what));
        if let Sampler::Fixed(fixed) = &rules.sampler {
            let absent = fixed
                .fixed
                .iter()
                .find(|id| !pool.iter().any(|r| is(r, id)));
            if let Some(id) = absent {
                return bad(format!("`fewshot.sampler`: no row has the id `{id}`"));
            }
        }
        if pool.len() < rules.n as usize {
            return bad(format!(
                "`fewshot.n` is {}, the split has {} rows",
                rules.n,
                pool.len()
            ));
        }
        let digests = pool.iter().map(digest).collect();
        Ok(Self {
            rules,
            pool,
            digests,
        })
    }

    /// The examples of a row, `fewshot.n` of them, or fewer where the row itself is left out and none is left.
    ///
    /// `first`: the first rows. `seeded`: drawn without return; the draw depends on the seed and the row alone, not on the
    /// rows before it. `balanced`: the same, classes (values of `target`) in turn. `fixed`: those ids, in their order.
    #[must_use]
    pub fn of(&self, row: &Record) -> Vec<&'a Record> {
        let own = digest(row);
        let free = |i: &usize| !(self.rules.exclude_self && self.digests[*i] == own);
        let n = self.rules.n as usize;
        let all: Vec<usize> = (0..self.pool.len()).filter(free).collect();
        let chosen: Vec<usize> = match &self.rules.sampler {
            Sampler::Named(SamplerName::First) => all,
            Sampler::Named(SamplerName::Seeded) => self.shuffled(all, own),
            Sampler::Named(SamplerName::Balanced) => {
                let mut classes = BTreeMap::<String, Vec<usize>>::new();
                for i in self.shuffled(all, own) {
                    let class = self.pool[i].get("target").map(Value::to_string);
                    classes
                        .entry(class.unwrap_or_default())
                        .or_default()
                        .push(i);
                }
                let longest = classes.values().map(Vec::len).max().unwrap_or(0);
                let turn = |k: usize| classes.values().filter_map(move |c| c.get(k).copied());
                (0..longest).flat_map(turn).collect()
            }
            Sampler::Fixed(fixed) => {
                let of = |id: &String| all.iter().copied().find(|i| is(&self.pool[*i], id));
                fixed.fixed.iter().filter_map(of).collect()
            }
        };
        chosen.into_iter().take(n).map(|i| &self.pool[i]).collect()
    }

    fn shuffled(&self, mut rows: Vec<usize>, own: u64) -> Vec<usize> {
        let stream = Stream::new(self.rules.seed, "fewshot", own);
        rows.sort_by_key(|i| (stream.bits(*i as u64), *i));
        rows
    }
}

fn is(row: &Record, id: &str) -> bool {
    match row.get("id") {
        Some(Value::String(own)) => own == id,
        Some(Value::Number(own)) => own.to_string() == id,
        _ => false,
    }
}

fn digest(row: &Record) -> u64 {
    let mut text = String::new();
    canonical(&Value::Object(row.clone()), &mut text);
    xxh3(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::spec::FixedSampler;
    use serde_json::json;

    fn pool() -> Vec<Record> {
        let row = |i: usize| json!({"id": format!("r{i}"), "target": i % 3, "input": i});
        (0..12)
            .map(|i| row(i).as_object().unwrap().clone())
            .collect()
    }

    fn ids(sampler: Sampler, n: u32, row: &Record) -> Vec<String> {
        let rules = Fewshot {
            n,
            sampler,
            ..Fewshot::default()
        };
        let pool = pool();
        let shots = Shots::new(&rules, &pool).unwrap();
        shots
            .of(row)
            .iter()
            .map(|r| r["id"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn samplers_follow_their_rules() {
        let pool = pool();
        let first = Sampler::Named(SamplerName::First);
        assert_eq!(ids(first, 2, &pool[0]), ["r1", "r2"]);
        let fixed = Sampler::Fixed(FixedSampler {
            fixed: vec!["r7".into(), "r3".into()],
        });
        assert_eq!(ids(fixed.clone(), 2, &pool[0]), ["r7", "r3"]);
        assert_eq!(ids(fixed, 2, &pool[7]), ["r3"]);
        let seeded = Sampler::Named(SamplerName::Seeded);
        let drawn = ids(seeded.clone(), 11, &pool[4]);
        assert!(!drawn.contains(&"r4".to_owned()) && drawn.len() == 11);
        assert_eq!(drawn, ids(seeded.clone(), 11, &pool[4]));
        assert_ne!(drawn[..5], ids(seeded, 5, &pool[5])[..]);
        let balanced = ids(Sampler::Named(SamplerName::Balanced), 6, &pool[4]);
        let class = |id: &String| id[1..].parse::<usize>().unwrap() % 3;
        assert_eq!(
            balanced.iter().map(class).collect::<Vec<_>>(),
            [0, 1, 2, 0, 1, 2]
        );
    }

    #[test]
    fn absent_ids_and_small_pools_are_refused() {
        let pool = pool();
        let sampler = Sampler::Fixed(FixedSampler {
            fixed: vec!["x".into()],
        });
        let rules = Fewshot {
            n: 1,
            sampler,
            ..Fewshot::default()
        };
        assert!(
            Shots::new(&rules, &pool)
                .unwrap_err()
                .to_string()
                .contains("no row has the id `x`")
        );
        let rules = Fewshot {
            n: 13,
            ..Fewshot::default()
        };
        assert!(Shots::new(&rules, &pool).is_err());
    }
}
