//! Events of a comparison.

use polyloom::evaluate::board::compare::{Bounds, Overall, Paired, Test, Verdict};
use polyloom::evaluate::board::predictions::Example;
use polyloom::evaluate::statistics::Interval;
use polyloom::evaluate::statistics::mcnemar::McNemarForm;
use serde_json::{Value, json};

use super::settings;
use crate::args_compare::CompareArgs;

/// A number, or null where it is not defined.
pub fn number(x: f64) -> Value {
    if x.is_finite() { json!(x) } else { Value::Null }
}

/// An interval as a list of two.
pub fn pair(i: Interval) -> Value {
    json!([number(i.low), number(i.high)])
}

/// Column and value of a slice.
pub fn slice(t: &Paired) -> Value {
    match &t.slice {
        Some((column, value)) => json!({"column": column, "value": value}),
        None => Value::Null,
    }
}

/// The mean over the tasks.
pub fn overall(all: &Overall) -> Value {
    json!({
        "type": "overall",
        "tasks": all.tasks,
        "old": number(all.means[0]),
        "new": number(all.means[1]),
        "difference": number(all.difference),
        "standard_error": number(all.error),
        "interval": pair(all.interval),
        "p": number(all.p),
    })
}

/// One task or slice.
pub fn comparison(t: &Paired, args: &CompareArgs) -> Value {
    let flips: Vec<Value> = t
        .worse
        .iter()
        .take(args.flips)
        .map(|f| {
            let side = |e: &Example| {
                let prediction = e.texts.as_ref().map(|t| t.0.clone());
                json!({"value": number(e.value), "prediction": prediction})
            };
            let label = f.examples.0.texts.as_ref().map(|t| t.1.clone());
            json!({"id": f.id, "old": side(&f.examples.0), "new": side(&f.examples.1), "label": label})
        })
        .collect();
    let n = t.n as f64;
    let (negative, positive) = (t.worse.len() as f64 / n, t.better.len() as f64 / n);
    // As if mistakes were independent: what was right before times what is wrong now.
    let independent = match t.test {
        Test::McNemar(_) => t.first.mean * (1.0 - t.second.mean),
        _ => f64::NAN,
    };
    json!({
        "type": "comparison",
        "task": t.task,
        "slice": slice(t),
        "metric": settings(args).metric.name(),
        "n": t.n,
        "old": {"value": number(t.first.mean), "mean": number(t.first.mean), "interval": pair(t.first.interval)},
        "new": {"value": number(t.second.mean), "mean": number(t.second.mean), "interval": pair(t.second.interval)},
        "difference": number(t.difference),
        "interval": pair(t.interval),
        "interval_kind": match t.bounds {
            Bounds::Percentile => "percentile",
            Bounds::Bca => "bca",
            Bounds::Auto | Bounds::Student => "student",
        },
        "p": number(t.p),
        "p_holm": number(t.p_holm),
        "test": match t.test {
            Test::McNemar(McNemarForm::Exact) => "mcnemar-exact",
            Test::McNemar(McNemarForm::MidP) => "mcnemar-mid-p",
            Test::PairedT => "paired-t",
            Test::Wilcoxon => "wilcoxon",
            Test::Sign => "sign",
            Test::Permutation => "permutation",
            Test::Bootstrap => "bootstrap",
        },
        "minimum_detectable": number(t.detectable),
        "worse": t.worse.len(),
        "better": t.better.len(),
        "negative_flip_rate": number(negative),
        "positive_flip_rate": number(positive),
        "relative_negative_flip_rate": number(negative / independent),
        "verdict": match t.verdict {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Open => "no clear change",
        },
        "flips": flips,
    })
}
