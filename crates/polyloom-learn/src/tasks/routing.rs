//! Which experts the tokens of a task pass, and what share of a model's parameters they use.

use std::cell::RefCell;

use indexmap::IndexMap;
use polyloom::MergeError;
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;

use super::Feature;
use super::evaluate::{Found, Run, Shelf};
use super::forward::{features, outputs};
use crate::engine::Value;
use crate::error::Result;
use crate::models::experts::Experts;
use crate::models::gates::Kept;
use crate::models::open::Model;
use crate::models::{Point, Source};

/// How tokens of a goal spread over the experts of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// What the names of its tensors begin with.
    pub name: String,
    /// The goal; none where all share a gate.
    pub goal: Option<String>,
    /// Tokens that passed, of pictures patches and class tokens.
    pub tokens: u64,
    /// Of every expert how many of them passed it.
    pub chosen: Vec<u64>,
}

impl Layer {
    /// Experts of a token, their mean.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.chosen.iter().sum::<u64>() as f64 / self.tokens.max(1) as f64
    }

    /// Of every expert the share of the tokens that passed it, 0 to 1.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        let share = |n: &u64| *n as f64 / self.tokens.max(1) as f64;
        self.chosen.iter().map(share).collect()
    }
}

/// What a token of a goal uses of the layers of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Activated {
    /// The goal; none where all share a gate.
    pub goal: Option<String>,
    /// Experts of a token in a layer that has some, their mean.
    pub experts: f64,
    /// Parameters of the layers that a token uses, their mean: all outside of experts, its gate, its experts.
    pub parameters: f64,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// Rows that were looked at.
    pub rows: usize,
    /// Experts of a layer.
    pub experts: usize,
    /// Parameters of all layers: tables of embeddings, of which a token uses rows, and heads are not among them.
    pub parameters: usize,
    /// Layers with experts by goal, in the order in which a pass meets them.
    pub layers: Vec<Layer>,
    /// By goal.
    pub activated: Vec<Activated>,
}

/// Tokens that passed, and of every expert that the gate sees how many of them passed it.
type Count = (u64, Vec<u64>);

/// Counts by layer and goal.
#[derive(Default)]
struct Counts(RefCell<IndexMap<(String, usize), Count>>);

/// A source that counts what gates keep.
struct Counting<'a> {
    inner: &'a dyn Source,
    counts: &'a Counts,
}

impl Source for Counting<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        self.inner.find(name)
    }

    fn linear(&self, name: &str, x: &Value) -> Result<Value> {
        self.inner.linear(name, x)
    }

    fn pass(&self, point: Point, x: Value) -> Result<Value> {
        self.inner.pass(point, x)
    }

    fn routed(&self, layer: &str, goal: usize, kept: &Kept) -> Result<()> {
        let mut all = self.counts.0.borrow_mut();
        let (tokens, chosen) = all.entry((layer.to_owned(), goal)).or_default();
        chosen.resize(kept.weights.dims()[1], 0);
        *tokens += kept.experts.len() as u64;
        for expert in kept.experts.iter().flatten() {
            chosen[*expert as usize] += 1;
        }
        Ok(())
    }
}

impl Counts {
    /// What the counts come to.
    fn told(self, rows: usize, model: &Model, experts: &Experts) -> Routing {
        let goals = &experts.config.goals;
        let named = |goal: usize| match experts.by_goal() {
            true => goals.get(goal).cloned(),
            false => None,
        };
        let layer = |((name, goal), (tokens, own)): ((String, usize), Count)| {
            let mut chosen = vec![0; experts.all()];
            for (expert, count) in experts.reached(goal).into_iter().zip(own) {
                chosen[expert] = count;
            }
            Layer {
                name,
                goal: named(goal),
                tokens,
                chosen,
            }
        };
        let layers: Vec<Layer> = self.0.into_inner().into_iter().map(layer).collect();
        let (own, parameters) = sizes(model, &layers);
        let mut by_goal: IndexMap<Option<String>, Vec<&Layer>> = IndexMap::new();
        for layer in &layers {
            by_goal.entry(layer.goal.clone()).or_default().push(layer);
        }
        let [each, gate] = experts.sizes();
        let activated = by_goal.into_iter().map(|(goal, layers)| {
            let sum: f64 = layers.iter().map(|l| l.mean()).sum();
            let n = layers.len();
            Activated {
                goal,
                experts: sum / n.max(1) as f64,
                parameters: own as f64 + (n * gate) as f64 + sum * each as f64,
            }
        });
        Routing {
            rows,
            experts: experts.all(),
            parameters,
            activated: activated.collect(),
            layers,
        }
    }
}

/// Parameters of the layers of a model outside of experts and gates, and all of them.
fn sizes(model: &Model, layers: &[Layer]) -> (usize, usize) {
    // `encoder.layer` of `encoder.layer.3.moe`.
    let layer = layers.first().and_then(|l| l.name.strip_suffix(".moe"));
    let prefix = layer.and_then(|l| l.rsplit_once('.'));
    let prefix = prefix.map_or_else(String::new, |(all, _)| format!("{all}."));
    let (mut own, mut all) = (0, 0);
    for (name, t) in model.weights.iter().filter(|(n, _)| n.starts_with(&prefix)) {
        all += t.elem_count();
        own += match name.contains(".moe.") {
            true => 0,
            false => t.elem_count(),
        };
    }
    (own, all)
}

impl Run<'_> {
    /// How the gates of a model with experts in its layers spread the tokens of the rows of a split. Filling counts nowhere. One
    /// pass over the rows for every head, or without heads one over the texts as they are; the same for any number of threads.
    ///
    /// # Errors
    /// A model without such experts, and as [`Run::predict`].
    pub fn routing(
        &self,
        spec: &TaskSpec,
        loader: &Loader<'_>,
        (found, shelf): (&[Found], &mut Shelf),
    ) -> Result<(Routing, Vec<String>)> {
        let Some(experts) = self.ready.model().experts().cloned() else {
            let error = MergeError::plan("no-experts", "has no experts in its layers");
            return Err(error.at(self.model.0.display().to_string()).into());
        };
        if found.is_empty() {
            let rows = shelf.rows(spec, loader, self.reader, Feature::Last)?;
            let routing = self.ready.with(&[], |model, source| {
                let counts = Counts::default();
                let counting = Counting {
                    inner: source,
                    counts: &counts,
                };
                for part in rows.shown.chunks(self.batch.max(1)) {
                    let parts = [(Feature::Last, part.iter().collect())];
                    features(model, &counting, self.reader, &parts)?;
                }
                Ok(counts.told(rows.len(), model, &experts))
            })?;
            return Ok((routing, Vec::new()));
        }
        let asked = self.ask(spec, loader, found, shelf)?;
        let heads: Vec<_> = asked.heads.iter().collect();
        let rows = asked.rows.first().map_or(0, |r| r.len());
        let routing = self.ready.with(&heads, |model, source| {
            let counts = Counts::default();
            let counting = Counting {
                inner: source,
                counts: &counts,
            };
            asked.each(|heads, shown| {
                outputs(model, &counting, self.reader, heads, shown, self.batch)
            })?;
            Ok(counts.told(rows, model, &experts))
        })?;
        Ok((routing, asked.notes))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::engine::tensor;
    use crate::models::{Plain, fresh::fresh, gates};

    /// Two tokens of one goal and one of another in the last of two layers; filling is told to nobody.
    #[test]
    fn counted_by_hand() {
        let config = json!({
            "model_type": "bert", "vocab_size": 9, "hidden_size": 2, "intermediate_size": 3, "num_hidden_layers": 2,
            "num_attention_heads": 1, "max_position_embeddings": 4,
            "moe": {"experts": 4, "top_k": 2, "goals": ["a", "b"]},
        });
        let all = fresh(&config, 1).unwrap().into_iter();
        let all = all.map(|(name, shape, values)| (name, tensor(values, shape).unwrap()));
        let model = Model::of(Path::new("nowhere"), &config, Plain::new(all)).unwrap();
        let counts = Counts::default();
        let counting = Counting {
            inner: &model.weights,
            counts: &counts,
        };
        let kept = |rows: &[f32], p: f32| {
            let x = tensor(rows.to_vec(), (rows.len() / 4, 4)).unwrap();
            gates::top_p(&Value::constant(x), p).unwrap()
        };
        let two = kept(&[0.7, 0.1, 0.1, 0.1, 0.3, 0.3, 0.3, 0.1], 0.5);
        let one = kept(&[0.0, 0.0, 0.0, 1.0], 0.5);
        counting.routed("encoder.layer.1.moe", 0, &two).unwrap();
        counting.routed("encoder.layer.1.moe", 1, &one).unwrap();
        let experts = model.experts().unwrap().clone();
        let found = counts.told(3, &model, &experts);
        let [a, b] = &found.layers[..] else {
            panic!("{found:?}")
        };
        assert_eq!(
            (a.tokens, &a.chosen[..], a.mean()),
            (2, &[2, 1, 0, 0][..], 1.5)
        );
        assert_eq!(b.shares(), [0.0, 0.0, 0.0, 1.0]);
        // Attention 4 x (4 + 2) and norms 8 in each layer; the first feeds forward by 6 + 3 + 6 + 2. An expert has
        // 4 + 2 + 4 + 2, a gate of a goal 4 x 2.
        let own = 2.0 * 32.0 + 17.0;
        assert_eq!(found.parameters, 81 + 4 * 12 + 2 * 8);
        let uses: Vec<f64> = found.activated.iter().map(|a| a.parameters).collect();
        assert_eq!(uses, [own + 8.0 + 1.5 * 12.0, own + 8.0 + 12.0]);
        assert_eq!(found.activated[1].goal.as_deref(), Some("b"));
    }
}
