//! What a configuration says of experts.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which gate a token meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// One for every goal.
    #[default]
    Goal,
    /// One for all, which reads the token and a vector of the goal.
    Conditioned,
    /// One for every goal, over a window of the experts: goals share those where windows overlap.
    Window,
    /// One for all.
    Shared,
}

/// What a configuration says of experts (`moe` in `config.json`).
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Experts of a layer.
    pub experts: usize,
    /// Experts of a token.
    pub top_k: usize,
    /// In place of `top_k`: the fewest experts whose probabilities together exceed this.
    pub top_p: Option<f32>,
    /// Whether the weights of a token's experts are divided by their sum.
    pub renormalise: bool,
    /// Which gate a token meets.
    pub gate: Gate,
    /// Experts of a goal's window; 0 for half of them.
    pub window: usize,
    /// Every so many layers the last one has experts.
    pub every: usize,
    /// In place of `every`: so many layers at the end have experts.
    pub last: Option<usize>,
    /// Width inside of an expert; 0 for that of the stream.
    pub inner: usize,
    /// Deviation of the noise on a gate's scores in training; 1/experts where nothing is said.
    pub noise: Option<f32>,
    /// Factor of the squared variation of importance and load ([`Kept::variation`](crate::models::gates::Kept::variation)) in
    /// the loss.
    pub balance: f32,
    /// Factor of the number of experts times the sum over them of their shares of tokens times their mean probabilities
    /// ([`Kept::balance`](crate::models::gates::Kept::balance)) in the loss.
    pub switch: f32,
    /// Factor of the mean entropy of probabilities ([`gates::entropy`](crate::models::gates::entropy)) in the loss.
    pub entropy: f32,
    /// Factor of minus the mutual information of goals and experts ([`gates::mutual_information`](crate::models::gates::mutual_information)) in the loss.
    pub mutual_information: f32,
    /// Names of the goals, in the order of the gates.
    pub goals: Vec<String>,
    /// Experts of their own of the goals that were added to a trained model: the last of `goals`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            experts: 16,
            top_k: 4,
            top_p: None,
            renormalise: false,
            gate: Gate::default(),
            window: 0,
            every: 2,
            last: None,
            inner: 0,
            noise: None,
            balance: 0.01,
            switch: 0.0,
            entropy: 0.0,
            mutual_information: 0.0,
            goals: Vec::new(),
            added: Vec::new(),
        }
    }
}

impl Config {
    /// Whether the numbers make a mixture whose gates see so many experts, in a model of so many layers.
    ///
    /// # Errors
    /// The first that does not; the error names the key.
    pub(super) fn check(&self, seen: usize, layers: usize) -> Result<()> {
        let wrong = |what: String| Err(Error::Config { what });
        // Above, names and numbers of experts alone fill the memory.
        if !(1..=4096).contains(&self.experts) || self.goals.len() > 4096 {
            let (experts, goals) = (self.experts, self.goals.len());
            return wrong(format!("moe.experts {experts} and {goals} goals"));
        }
        // What was added stands behind a goal that was not, and has a gate of its own as that has.
        let added = self
            .added
            .iter()
            .try_fold(0usize, |n, own| n.checked_add(*own));
        let alone = self.gate == Gate::Shared && !self.added.is_empty();
        let first = self.goals.len().saturating_sub(1);
        if self.added.len() > first || added.is_none_or(|n| n > 4096) || alone {
            let (added, goals) = (self.added.len(), self.goals.len());
            return wrong(format!("moe.added of {added} goals, of {goals}"));
        }
        if self.every == 0 || self.inner > 1 << 20 {
            let (every, inner) = (self.every, self.inner);
            return wrong(format!("moe.every {every} and moe.inner {inner}"));
        }
        match self.last {
            Some(last) if !(1..=layers).contains(&last) => {
                return wrong(format!("moe.last {last} of {layers} layers"));
            }
            None if self.every > layers => {
                let every = self.every;
                let what = format!("moe.every {every} of {layers} layers: none has experts");
                return wrong(what);
            }
            _ => {}
        }
        let chosen = self.top_p.is_some() || (1..=seen).contains(&self.top_k);
        if !(1..=self.experts).contains(&seen) || !chosen {
            let (k, e) = (self.top_k, self.experts);
            return wrong(format!("moe.top_k {k} of {seen} of {e} experts"));
        }
        if self.top_p.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return wrong("moe.top_p is a share, 0 to 1".into());
        }
        let factors = [
            ("balance", Some(self.balance)),
            ("switch", Some(self.switch)),
            ("entropy", Some(self.entropy)),
            ("mutual_information", Some(self.mutual_information)),
            ("noise", self.noise),
        ];
        let below = |x: Option<f32>| x.is_some_and(|x| !x.is_finite() || x < 0.0);
        if let Some((key, _)) = factors.iter().find(|(_, x)| below(*x)) {
            return wrong(format!("moe.{key} is 0 or more"));
        }
        if self.mutual_information > 0.0 && matches!(self.gate, Gate::Window | Gate::Shared) {
            return wrong("moe.mutual_information needs gates of goals over all experts".into());
        }
        Ok(())
    }
}
