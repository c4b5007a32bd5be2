//! What is compared: every method at several sizes.

use std::path::PathBuf;

use polyloom::compress::Accounting;
use polyloom_core::writer::human;

use super::front::Candidate;
use super::make::{Factors, Parts, bits};
use super::recipe::{Method, ScaleOf};
use super::session::{Shop, Told};
use crate::error::Result;

impl Shop<'_, '_> {
    /// The candidates of a method.
    pub(super) fn candidates(
        &mut self,
        method: Method,
        most: Option<u64>,
        all: &mut Vec<Candidate>,
    ) -> Result<()> {
        let s = self.maker.settings;
        match method {
            Method::Tall | Method::Emr | Method::MagnitudeMask => {
                let lambdas = match method {
                    Method::Tall if !s.grid().is_empty() => Some(self.thresholds()?),
                    _ => None,
                };
                let folder = self.trials.folder()?;
                let (_, accounting) = self.maker.masks(method, lambdas.as_deref(), &folder, &[])?;
                let how = s.store.clone().unwrap_or_default();
                let one = self.candidate(method, how, accounting, folder)?;
                all.push(one);
            }
            Method::Bits => {
                for scale in [ScaleOf::Tensor, ScaleOf::Row] {
                    let word = format!("{scale:?}").to_lowercase();
                    let parts = bits(&self.deltas, scale)?;
                    let one = self.stored(
                        method,
                        &format!("scale by {word}"),
                        &[("scale", word)],
                        &parts,
                    )?;
                    all.push(one);
                }
            }
            Method::Lowrank => {
                let factors = Factors::new(&self.deltas, s.axis, s.floor, self.maker.store()?)?;
                let whole = factors.whole() as f64;
                let top = most.map_or(whole / 2.0, |m| (m as f64).min(whole));
                let sizes = [1.0, 0.5, 0.25, 0.125].map(|f| f * top);
                self.sized(&sizes, all, &mut |shop, size| {
                    let parts = factors.parts(&shop.deltas, size as u64)?;
                    let about = [("budget", (size as u64).to_string())];
                    shop.stored(
                        method,
                        &format!("budget {}", human(size as u64)),
                        &about,
                        &parts,
                    )
                })?;
            }
            Method::Graft => {
                let sizes = [0.1, 0.03, 0.01, 0.003];
                self.sized(&sizes, all, &mut |shop, density| {
                    let parts = shop.grafts(density)?;
                    let about = [("density", density.to_string())];
                    shop.stored(
                        method,
                        &format!("{:.2} % of entries", 100.0 * density),
                        &about,
                        &parts,
                    )
                })?;
            }
        }
        Ok(())
    }

    /// Candidates of a method that has a size, the largest first. Where a share is to be kept, the span between the
    /// smallest size that keeps it and the next one below is halved three times (by its logarithm).
    fn sized(
        &mut self,
        sizes: &[f64],
        all: &mut Vec<Candidate>,
        make: &mut dyn FnMut(&mut Self, f64) -> Result<Candidate>,
    ) -> Result<()> {
        let (keep, sure) = (self.maker.settings.keep, self.maker.settings.sure);
        let keeps = |one: &Candidate, share: f64| one.kept.least(sure).is_some_and(|k| k >= share);
        let (mut good, mut bad): (Option<f64>, Option<f64>) = (None, None);
        for size in sizes {
            let one = make(self, *size)?;
            if keep.is_some_and(|k| keeps(&one, k)) {
                good = Some(*size);
            } else if good.is_some() && bad.is_none() {
                bad = Some(*size);
            }
            all.push(one);
        }
        if let (Some(mut good), Some(mut bad), Some(keep)) =
            (good, bad.filter(|b| good.is_some_and(|g| *b < g)), keep)
        {
            for _ in 0..3 {
                let middle = (good * bad).sqrt();
                let one = make(self, middle)?;
                if keeps(&one, keep) {
                    good = middle;
                } else {
                    bad = middle;
                }
                all.push(one);
            }
        }
        Ok(())
    }

    fn stored(
        &mut self,
        method: Method,
        how: &str,
        about: &[(&str, String)],
        parts: &Parts,
    ) -> Result<Candidate> {
        let folder = self.trials.folder()?;
        let (_, accounting) = self.maker.deltas(method, about, parts, &folder, &[])?;
        self.candidate(method, how.to_owned(), accounting, folder)
    }

    fn candidate(
        &mut self,
        method: Method,
        how: String,
        accounting: Accounting,
        folder: PathBuf,
    ) -> Result<Candidate> {
        let scores = self.scores(&folder)?.unwrap_or_default();
        let one = Candidate {
            method,
            how,
            bytes: accounting.stored(),
            accounting,
            values: scores.iter().map(|s| s.value).collect(),
            kept: self.kept(&scores),
            front: false,
            folder,
            scores,
        };
        self.tell(&Told::Candidate(&one))?;
        Ok(one)
    }
}
