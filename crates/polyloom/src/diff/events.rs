//! The report as JSON events, one object per line.

use serde_json::{Value, json};

use super::numbers::Numbers;
use super::report::{Report, Row};

/// Finite numbers as they are, others as null.
fn number(v: f64) -> Value {
    json!(v)
}

fn optional(v: Option<f64>) -> Value {
    v.map_or(Value::Null, number)
}

fn table(n: usize, f: impl Fn(usize, usize) -> Value) -> Value {
    (0..n)
        .map(|a| (0..n).map(|b| f(a, b)).collect::<Vec<_>>())
        .collect::<Vec<_>>()
        .into()
}

fn measured(numbers: &Numbers, event: &mut Value) {
    let n = numbers.n;
    let each = |f: &dyn Fn(usize) -> Value| Value::from((0..n).map(f).collect::<Vec<_>>());
    event["parameters"] = json!(numbers.elements);
    if let Some(base) = numbers.base_norm() {
        event["base_norm"] = number(base);
        event["relative_norms"] = each(&|i| optional(numbers.relative(i)));
    }
    event["norms"] = each(&|i| number(numbers.norm(i)));
    event["changed"] = each(&|i| number(numbers.changed_share(i)));
    if n > 1 {
        event["cosine"] = table(n, |a, b| {
            if a == b {
                json!(1.0)
            } else {
                number(numbers.cosine(a, b))
            }
        });
        event["sign_conflict"] = number(numbers.conflict());
        event["sign_conflict_pairs"] = table(n, |a, b| optional(numbers.pair_conflict(a, b)));
        event["top_sign_conflict"] = optional(numbers.top_conflict());
        event["top_sign_conflict_pairs"] =
            table(n, |a, b| optional(numbers.pair_top_conflict(a, b)));
        event["overlap"] = table(n, |a, b| optional(numbers.overlap(a, b)));
    }
    if numbers.spectra.iter().any(|s| s.matrices > 0) {
        let of = |f: &dyn Fn(&super::Spectrum) -> Value| {
            Value::from(numbers.spectra.iter().map(f).collect::<Vec<_>>())
        };
        event["matrices"] = json!(numbers.spectra[0].matrices);
        event["effective_rank"] = of(&|s| number(s.mean_effective()));
        event["effective_rank_share"] = of(&|s| number(s.mean_effective_share()));
        event["stable_rank"] = of(&|s| number(s.mean_stable()));
        event["rank90"] = of(&|s| number(s.mean_rank90()));
        if numbers.spectra.iter().all(|s| s.intruders.is_some()) {
            event["intruders"] = of(&|s| json!(s.intruders));
        }
    }
}

fn row(kind: &str, row: &Row) -> Value {
    let mut event = json!({"type": kind, "name": row.name});
    if kind == "tensor" {
        event["shape"] = json!(row.shape);
    } else {
        event["tensors"] = json!(row.tensors);
    }
    measured(&row.numbers, &mut event);
    event
}

impl Report {
    /// JSON events: `diff` (what was compared), `tensor` and `layer` (one each), `model` (the sum), `clusters`,
    /// `indicator` (one per rule), `note`. Tables are `[n, n]` in the order of `experts`; what does not exist is null.
    pub fn events(&self) -> Vec<Value> {
        let mut events = vec![json!({
            "type": "diff",
            "base": self.base,
            "experts": self.experts,
            "tensors": self.tensors.len(),
            "parameters": self.total.elements,
            "top_k": self.top,
            "spectral": self.spectral.is_some(),
        })];
        events.extend(
            self.notes
                .iter()
                .map(|n| json!({"type": "note", "text": n})),
        );
        events.extend(self.tensors.iter().map(|r| row("tensor", r)));
        events.extend(self.layers.iter().map(|r| row("layer", r)));
        let mut model = json!({"type": "model", "tensors": self.tensors.len()});
        measured(&self.total, &mut model);
        events.push(model);
        let names = |group: &[usize]| -> Vec<&str> {
            group.iter().map(|i| self.experts[*i].as_str()).collect()
        };
        if self.experts.len() > 1 {
            let joins: Vec<Value> = self
                .clusters
                .joins
                .iter()
                .map(|j| json!({"left": names(&j.left), "right": names(&j.right), "distance": j.distance}))
                .collect();
            events.push(json!({
                "type": "clusters",
                "order": names(&self.clusters.order),
                "joins": joins,
            }));
        }
        events.extend(self.indicators.iter().map(|i| {
            json!({
                "type": "indicator",
                "code": i.code,
                "measured": i.measured,
                "value": i.value,
                "shown": i.shown,
                "rule": i.rule,
                "threshold_by": i.threshold_by,
                "speaks": i.speaks.word(),
                "reading": i.reading,
                "source": i.source,
            })
        }));
        events
    }
}
