//! Recruiting by skills (Symbolic-MoE, Chen et al. 2025): models have a profile of what they can do, questions name what
//! they ask for, and models are drawn by how well the two fit.

use std::path::Path;

use indexmap::IndexMap;
use polyloom::MergeError;
use polyloom_core::checkpoint::read_json;
use polyloom_core::rng::Stream;
use polyloom_core::writer::OutputFile;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// What stands in the file as `schema`.
pub const SCHEMA: &str = "polyloom.profiles/1";

/// Right answers less wrong ones, by model and skill.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Profiles {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// By model, then skill.
    pub models: IndexMap<String, IndexMap<String, i64>>,
}

/// A model that could answer a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its number among the models.
    pub model: usize,
    /// Sum of its scores for the question's skills.
    pub local: i64,
    /// How likely it is drawn; 0 for one that is worse than chance while another is not.
    pub probability: f64,
}

impl Profiles {
    /// Without any answers.
    #[must_use]
    pub fn new(models: impl IntoIterator<Item = String>) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            models: models.into_iter().map(|m| (m, IndexMap::new())).collect(),
        }
    }

    /// Counts an answer: 1 more for each skill where it was right, 1 less where it was wrong.
    pub fn add(&mut self, model: &str, skills: &[String], right: bool) {
        let profile = self.models.entry(model.to_owned()).or_default();
        for skill in skills {
            *profile.entry(skill.clone()).or_default() += if right { 1 } else { -1 };
        }
    }

    /// Share of every model in all that was right: `(sum of scores)^(1 / temperature)`, normalised, sums moved up so that
    /// the least is 1 where one is below 0.
    #[must_use]
    pub fn strength(&self, temperature: f64) -> Vec<f64> {
        let sums: Vec<i64> = self.models.values().map(|p| p.values().sum()).collect();
        let least = sums.iter().copied().min().unwrap_or(0);
        let shift = if least < 0 { 1 - least } else { 0 };
        let powers: Vec<f64> = sums
            .iter()
            .map(|s| ((s + shift) as f64).powf(1.0 / temperature))
            .collect();
        let all: f64 = powers.iter().sum();
        match all > 0.0 {
            true => powers.into_iter().map(|p| p / all).collect(),
            // Nobody was right more often than wrong: all count the same.
            false => vec![1.0 / powers.len().max(1) as f64; powers.len()],
        }
    }

    /// Models that know one of the skills, with how likely each is drawn: its score for them times its strength, among
    /// models whose score is above 0; where none is, scores are moved up so that the least is 1. A skill that is asked for
    /// twice counts twice. Where no model knows any of the skills all are candidates by their strength alone (the released
    /// code maps unknown words to known ones by a sentence encoder first).
    #[must_use]
    pub fn candidates(&self, skills: &[String], temperature: f64) -> Vec<Candidate> {
        let strength = self.strength(temperature);
        let mut found: Vec<Candidate> = Vec::new();
        for (model, profile) in self.models.values().enumerate() {
            let scores: Vec<i64> = skills
                .iter()
                .filter_map(|s| profile.get(s))
                .copied()
                .collect();
            if !scores.is_empty() {
                found.push(Candidate {
                    model,
                    local: scores.iter().sum(),
                    probability: 0.0,
                });
            }
        }
        if found.is_empty() {
            let all = strength.into_iter().enumerate();
            return all
                .map(|(model, probability)| Candidate {
                    model,
                    local: 0,
                    probability,
                })
                .collect();
        }
        let least = found.iter().map(|c| c.local).min().unwrap_or(0);
        let shift = match found.iter().any(|c| c.local > 0) {
            true => 0,
            false => 1 - least,
        };
        for candidate in &mut found {
            let local = (candidate.local + shift).max(0) as f64;
            candidate.probability = local * strength[candidate.model];
        }
        let all: f64 = found.iter().map(|c| c.probability).sum();
        let count = found.len() as f64;
        for candidate in &mut found {
            candidate.probability = match all > 0.0 {
                true => candidate.probability / all,
                // The only ones that know the skills have no strength at all.
                false => 1.0 / count,
            };
        }
        found
    }

    /// Draws `picks` models for a question, with replacement; question `number` of a seed always draws the same.
    #[must_use]
    pub fn recruit(
        &self,
        skills: &[String],
        temperature: f64,
        picks: usize,
        (seed, number): (u64, u64),
    ) -> Vec<usize> {
        let candidates = self.candidates(skills, temperature);
        let stream = Stream::new(seed, "recruit", number);
        (0..picks as u64)
            .filter_map(|i| drawn(&candidates, stream.uniform(i)))
            .collect()
    }

    /// Replaces picks of models with less than `share` of all picks (0.05 in the released code) by draws from the others,
    /// by how often those were picked: fewer models are loaded.
    #[must_use]
    pub fn without_rare(&self, picks: &[Vec<usize>], share: f64, seed: u64) -> Vec<Vec<usize>> {
        let mut counts = vec![0usize; self.models.len()];
        picks.iter().flatten().for_each(|&m| counts[m] += 1);
        let all: usize = counts.iter().sum();
        let often = |m: usize| counts[m] as f64 >= share * all as f64;
        let candidates: Vec<Candidate> = (0..counts.len())
            .filter(|&m| counts[m] > 0 && often(m))
            .map(|m| Candidate {
                model: m,
                local: 0,
                probability: counts[m] as f64,
            })
            .collect();
        let total: f64 = candidates.iter().map(|c| c.probability).sum();
        let mut replaced = picks.to_vec();
        let stream = Stream::new(seed, "recruit rare", 0);
        for (i, pick) in replaced.iter_mut().flatten().enumerate() {
            if !often(*pick)
                && let Some(other) = drawn(&candidates, stream.uniform(i as u64) * total as f32)
            {
                *pick = other;
            }
        }
        replaced
    }

    /// Writes the file.
    ///
    /// # Errors
    /// A file that is there already (without `force`), a full disk.
    pub fn save(&self, file: &Path, force: bool, sync: bool) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| MergeError::plan("write", e.to_string()))?;
        let mut out = OutputFile::create(file, text.len() as u64 + 1, force, sync)?;
        out.write(text.as_bytes())?;
        out.write(b"\n")?;
        Ok(out.commit()?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that is no profile, or holds no models.
    pub fn open(file: &Path) -> Result<Self> {
        let bad = |what: String| {
            let place = file.display().to_string();
            let error = MergeError::plan("bad-profiles", what).at(place);
            error.hint("`polyloom route profile` writes such a file")
        };
        let value = read_json(file)?;
        let found: Self = serde_json::from_value(value)
            .map_err(|e| bad(format!("is no file of profiles: {e}")))?;
        if found.schema != SCHEMA {
            let what = format!("is of the schema `{}`, not `{SCHEMA}`", found.schema);
            return Err(bad(what).into());
        }
        if found.models.is_empty() {
            return Err(bad("holds no models".into()).into());
        }
        Ok(found)
    }
}

/// The candidate at a place between 0 and the sum of probabilities.
fn drawn(candidates: &[Candidate], at: f32) -> Option<usize> {
    let mut left = f64::from(at);
    let possible = candidates.iter().filter(|c| c.probability > 0.0);
    let mut last = None;
    for candidate in possible {
        last = Some(candidate.model);
        if left < candidate.probability {
            break;
        }
        left -= candidate.probability;
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|w| (*w).to_owned()).collect()
    }

    fn profiles() -> Profiles {
        let mut made = Profiles::new(words(&["a", "b", "c"]));
        for _ in 0..8 {
            made.add("a", &words(&["sums"]), true);
        }
        for (right, skill) in [
            (true, "sums"),
            (true, "words"),
            (true, "words"),
            (false, "sums"),
        ] {
            made.add("b", &words(&[skill]), right);
        }
        made.add("c", &words(&["words"]), false);
        made
    }

    #[test]
    fn scores_strengths_and_draws() {
        let made = profiles();
        assert_eq!(
            made.models["b"],
            IndexMap::from([("sums".into(), 0), ("words".into(), 2)])
        );
        // Sums 8, 2, -1 are moved to 10, 4, 1; squares 100, 16, 1.
        let strength = made.strength(0.5);
        for (found, expected) in strength.iter().zip([100.0, 16.0, 1.0]) {
            assert!((found - expected / 117.0).abs() < 1e-12);
        }
        let found = made.candidates(&words(&["words"]), 0.5);
        assert_eq!(found.iter().map(|c| c.model).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(found[0].probability, 1.0);
        assert_eq!(made.candidates(&words(&["nothing"]), 0.5).len(), 3);
        let picks = made.recruit(&words(&["sums"]), 0.5, 3, (1, 7));
        assert_eq!(picks, [0, 0, 0]);
        assert_eq!(picks, made.recruit(&words(&["sums"]), 0.5, 3, (1, 7)));
    }

    #[test]
    fn rare_models_give_way() {
        let made = profiles();
        let mut picks = vec![vec![0, 0, 1]; 20];
        picks[0][2] = 2;
        let found = made.without_rare(&picks, 0.05, 3);
        assert!(found.iter().flatten().all(|m| *m != 2));
        assert_eq!(found[1..], picks[1..]);
    }

    #[test]
    fn a_file_gives_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("profiles.json");
        profiles().save(&file, false, false).unwrap();
        assert_eq!(Profiles::open(&file).unwrap(), profiles());
        std::fs::write(&file, "{\"schema\": \"x\", \"models\": {}}").unwrap();
        assert!(Profiles::open(&file).is_err());
    }
}
