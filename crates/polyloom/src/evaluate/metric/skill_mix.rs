//! Several skills in one short text on a given topic: combinations drawn by seed, and marks of what came back.
//!
//! With N skills and T topics there are C(N, k) · T combinations of k, soon more than any training set holds. Source: Yu
//! et al. 2023, "Skill-Mix".

use std::collections::BTreeSet;

use crate::evaluate::statistics::draw::Seed;
use crate::evaluate::sum::mean;
use crate::evaluate::{EvalError, Result};

const WHAT: &str = "skill mix";

/// What a text is asked to show.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Combination {
    /// Places of the skills, ascending.
    pub skills: Vec<usize>,
    /// Place of the topic.
    pub topic: usize,
}

/// How many combinations there are; none where they exceed u128.
pub fn combinations(skills: usize, topics: usize, k: usize) -> Option<u128> {
    if k > skills {
        return Some(0);
    }
    let mut found = 1u128;
    for i in 0..k as u128 {
        found = found.checked_mul(skills as u128 - i)? / (i + 1);
    }
    found.checked_mul(topics as u128)
}

/// Different combinations of k skills and a topic, in the order drawn: draw b of the seed takes k different skills (an
/// index each, one that was taken is drawn again), then the topic; a combination that came before is passed over.
///
/// # Errors
/// No skill, topic or combination asked for, k = 0, fewer combinations than asked for.
pub fn draw(
    skills: usize,
    topics: usize,
    k: usize,
    count: usize,
    seed: &Seed,
) -> Result<Vec<Combination>> {
    if skills == 0 || topics == 0 || k == 0 || count == 0 {
        return Err(EvalError::Empty { what: WHAT });
    }
    let all = combinations(skills, topics, k);
    if all.is_some_and(|all| all < count as u128) {
        let problem = format!("{count} combinations of {}", all.unwrap_or(0));
        return Err(EvalError::invalid(WHAT, problem));
    }
    let (mut seen, mut found) = (BTreeSet::new(), Vec::with_capacity(count));
    for number in 0.. {
        let mut draw = seed.draw(number);
        let mut chosen = BTreeSet::new();
        while chosen.len() < k {
            chosen.insert(draw.index(skills) as usize);
        }
        let one = Combination {
            skills: chosen.into_iter().collect(),
            topic: draw.index(topics) as usize,
        };
        if seen.insert(one.clone()) {
            found.push(one);
            if found.len() == count {
                break;
            }
        }
    }
    Ok(found)
}

/// Marks of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// Whether each skill is there.
    pub skills: Vec<bool>,
    /// Whether it is on the topic.
    pub topic: bool,
    /// Whether it makes sense.
    pub sense: bool,
    /// Whether it is as short as asked.
    pub length: bool,
}

impl Marks {
    fn rest(&self) -> usize {
        [self.topic, self.sense, self.length]
            .into_iter()
            .filter(|m| *m)
            .count()
    }

    /// 1 where every mark is given, else 0.
    pub fn full(&self) -> f64 {
        f64::from(u8::from(self.skills.iter().all(|s| *s) && self.rest() == 3))
    }

    /// 1 where every skill is there and at least two of topic, sense and length, else 0.
    pub fn all_skills(&self) -> f64 {
        f64::from(u8::from(self.skills.iter().all(|s| *s) && self.rest() >= 2))
    }

    /// Share of the skills that are there, 0 unless topic, sense and length are; `NaN` without skills.
    pub fn skill_fraction(&self) -> f64 {
        let share = mean(self.skills.iter().map(|s| f64::from(u8::from(*s))));
        if self.rest() == 3 || share.is_nan() {
            share
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_are_counted_and_drawn_once() {
        assert_eq!(combinations(10, 5, 3), Some(600));
        assert_eq!(
            (combinations(3, 2, 4), combinations(3, 2, 3)),
            (Some(0), Some(2))
        );
        assert_eq!(combinations(usize::MAX, usize::MAX, 9), None);
        let seed = Seed::of("mix", "0");
        let all = draw(4, 3, 2, 18, &seed).unwrap();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 18);
        assert!(
            all.iter()
                .all(|c| c.skills.len() == 2 && c.skills[0] < c.skills[1] && c.topic < 3)
        );
        assert_eq!(draw(4, 3, 2, 5, &seed).unwrap(), all[..5]);
        assert_ne!(draw(4, 3, 2, 18, &Seed::of("mix", "1")).unwrap(), all);
        assert!(draw(4, 3, 2, 19, &seed).is_err() && draw(4, 3, 5, 1, &seed).is_err());
        assert!(draw(0, 1, 1, 1, &seed).is_err() && draw(1, 1, 1, 0, &seed).is_err());
    }

    #[test]
    fn marks_by_hand() {
        let marks = |skills: &[bool], topic, sense, length| {
            let m = Marks {
                skills: skills.to_vec(),
                topic,
                sense,
                length,
            };
            (m.full(), m.all_skills(), m.skill_fraction())
        };
        assert_eq!(marks(&[true, true], true, true, true), (1.0, 1.0, 1.0));
        assert_eq!(marks(&[true, true], true, true, false), (0.0, 1.0, 0.0));
        assert_eq!(marks(&[true, false], true, true, true), (0.0, 0.0, 0.5));
        assert_eq!(marks(&[true, true], true, false, false), (0.0, 0.0, 0.0));
    }
}
