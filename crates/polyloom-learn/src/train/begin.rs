//! What a run begins with: its optimiser, the mark of its checkpoints.

use polyloom_core::hash::xxh3;
use polyloom_core::{DType, dtype};
use serde_json::json;

use super::curvature;
use super::mixing::Mixing;
use super::optimiser::Rule;
use super::recipe::{By, OptimiserName, Recipe};
use super::rowwise::Loss;
use super::run::Job;
use super::trainee::Trainee;
use crate::engine::slice;
use crate::error::Result;

/// The optimiser of a recipe.
pub(super) fn rule(recipe: &Recipe) -> Rule {
    let t = &recipe.train;
    match t.optimiser {
        OptimiserName::SophiaG | OptimiserName::SophiaH => curvature::rule(recipe),
        OptimiserName::Sgd => Rule::Sgd {
            momentum: t.momentum as f32,
            decay: recipe.decay() as f32,
            nesterov: false,
        },
        name => Rule::Adam {
            betas: recipe.betas().map(|b| b as f32),
            eps: t.eps as f32,
            decay: recipe.decay() as f32,
            coupled: name == OptimiserName::Adam,
        },
    }
}

/// What the run is about, for checkpoints. Settings that may change on the way (rates, steps, evaluations) are not in it.
pub(super) fn fingerprint(job: &Job<'_>, trainee: &Trainee, rows: &[usize]) -> Result<String> {
    let t = &job.recipe.train;
    let mut hash = 0u64;
    for p in trainee.parameters.iter() {
        let values = slice(p.value.data())?;
        let mut bytes = vec![0u8; 4 * values.len()];
        dtype::narrow(&values, DType::F32, &mut bytes);
        let one = xxh3(&bytes) ^ xxh3(p.name.as_bytes()).rotate_left(1);
        hash = xxh3(&[hash.to_le_bytes(), one.to_le_bytes()].concat());
    }
    let tasks: Vec<_> = job.tasks.iter().map(|g| (&g.spec.id, &g.hash)).collect();
    let mut facts = json!([
        env!("CARGO_PKG_VERSION"),
        tasks,
        rows,
        t.method,
        job.recipe.seed,
        t.batch,
        t.accumulate,
        t.optimiser,
        t.embedding_update,
        t.augment,
        t.max_length,
        t.smoothing,
        t.sampling,
        t.language,
        t.fuse,
        format!("{hash:016x}"),
    ]);
    if let (Some(balance), Some(facts)) = (&t.balance, facts.as_array_mut()) {
        facts.push(json!([balance.method, balance.parameters]));
        if balance.gradients != By::Parameters {
            facts.push(json!(balance.gradients));
        }
    }
    if let (Some(experts), Some(facts)) = (job.model.experts(), facts.as_array_mut()) {
        facts.push(json!(experts.config));
    }
    if let (Some(chain), Some(facts)) = (&t.chain, facts.as_array_mut()) {
        facts.push(json!(chain));
    }
    if let (Some(weight), Some(facts)) = (&t.class_weight, facts.as_array_mut()) {
        facts.push(json!({ "class_weight": weight }));
    }
    if let (true, Some(facts)) = (
        t.mixing != Mixing::Batch || t.mpts.is_some(),
        facts.as_array_mut(),
    ) {
        facts.push(json!([t.mixing, t.moments(), t.mpts]));
    }
    if let (true, Some(facts)) = (
        t.loss != Loss::Case1 || t.reweight.is_some(),
        facts.as_array_mut(),
    ) {
        facts.push(json!([t.loss, t.focal_gamma, t.reweight]));
    }
    if let (true, Some(facts)) = (t.rebuilds(), facts.as_array_mut()) {
        facts.push(json!({ "reconstruct": t.reconstruct.unwrap_or_default() }));
    }
    if let (Some(slim), Some(facts)) = (&t.slim, facts.as_array_mut()) {
        facts.push(json!(slim));
    }
    if let (Some(how), Some(facts)) = (&t.representation, facts.as_array_mut()) {
        facts.push(json!(how));
    }
    if let (true, Some(facts)) = (
        !t.stage.is_empty() || t.pseudo.is_some(),
        facts.as_array_mut(),
    ) {
        // Where a stage ends follows from the epochs too.
        facts.push(json!([t.stage, t.pseudo, t.epochs]));
    }
    Ok(facts.to_string())
}
