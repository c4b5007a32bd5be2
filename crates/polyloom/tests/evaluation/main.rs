//! The vectors of `golden/evaluation`, through the public interface. One walker: a family names the function that solves
//! its cases, and the walker compares every quantity that the function gives with the expected one.

#![allow(clippy::print_stdout, reason = "the walker reports which cases ran")]

mod aggregate;
mod catalogue;
mod change;
mod labels;
mod lifelong;
mod mteb_board;
mod numbers;
mod statistics;
mod strengths;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// A case of a family.
pub struct Case {
    /// Name within the family.
    pub id: String,
    /// What the reference was given.
    pub input: Value,
    /// How it was called; null where nothing is set.
    pub params: Value,
    expected: Value,
    rtol: f64,
    atol: f64,
}

/// What a family's function says of a case.
pub enum Outcome {
    /// The quantities that it computes, by the keys of the vectors.
    Values(Map<String, Value>),
    /// The input was refused.
    Refused(String),
    /// The case belongs to something that is not built; the walker prints it.
    NotBuilt,
}

/// Solves a case.
pub type Solve = fn(&Case) -> Outcome;

/// The families that are built, one line each.
const FAMILIES: &[(&str, Solve)] = &[
    ("irt", strengths::irt),
    ("pairwise_ranking", strengths::pairwise_ranking),
    ("statistics", statistics::solve),
    ("lifelong", lifelong::solve),
    ("change_over_time", change::solve),
    ("rouge", text::rouge),
    ("answer_match", text::answer_match),
    ("classification", labels::classification),
    ("bleu", text::bleu),
    ("chrf_ter", text::chrf_ter),
    ("prompt_templates", catalogue::templates),
    ("task_catalogue", catalogue::imports),
    ("aggregation", aggregate::aggregation),
    ("borda_consensus", aggregate::borda_consensus),
    ("win_rate", aggregate::win_rate),
    ("retrieval", text::retrieval),
    ("retrieval_extra", text::retrieval_extra),
    ("ndcg_tie_averaged", text::ndcg_tie_averaged),
    ("multiple_choice", text::multiple_choice),
    ("pass_at_k", text::pass_at_k),
    ("multilabel", labels::multilabel),
    ("clustering", labels::clustering),
    ("probabilistic", numbers::probabilistic),
    ("regression", numbers::regression),
    ("concordance", numbers::concordance),
];

#[test]
fn golden_evaluation() {
    let root = golden("evaluation");
    let mut ran = 0;
    let mut failures = Vec::new();
    for (family, solve) in FAMILIES {
        let text = std::fs::read_to_string(root.join(format!("{family}.json"))).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        let mut skipped = BTreeMap::<String, usize>::new();
        let mut not_built = BTreeSet::new();
        let cases = file["cases"].as_array().unwrap();
        for case in cases.iter().map(Case::of) {
            match solve(&case) {
                Outcome::NotBuilt => {
                    not_built.insert(case.id.clone());
                    continue;
                }
                outcome => {
                    if let Err(problem) = case.compare(&outcome, &mut skipped) {
                        failures.push(format!("{family}/{}: {problem}", case.id));
                    }
                }
            }
            ran += 1;
        }
        let count = cases.len();
        println!("{family}: {} of {count} cases", count - not_built.len());
        for (key, n) in skipped {
            println!("  quantity not checked: {key} ({n} cases)");
        }
        for id in not_built {
            println!("  not built: {id}");
        }
    }
    println!("{ran} cases of golden/evaluation");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

impl Case {
    fn of(case: &Value) -> Self {
        let number = |key: &str| case[key].as_f64().unwrap_or(0.0);
        Self {
            id: case["id"].as_str().unwrap().to_owned(),
            input: case["input"].clone(),
            params: case.get("params").cloned().unwrap_or(Value::Null),
            expected: case["expected"].clone(),
            rtol: number("rtol"),
            atol: number("atol"),
        }
    }

    /// Whether the vector holds this quantity: references leave out what an input does not define.
    pub fn wants(&self, key: &str) -> bool {
        self.expected.get(key).is_some()
    }

    fn compare(
        &self,
        outcome: &Outcome,
        skipped: &mut BTreeMap<String, usize>,
    ) -> Result<(), String> {
        let refused = self.expected.get("error").is_some();
        match outcome {
            Outcome::Refused(_) if refused => Ok(()),
            Outcome::Refused(why) => Err(format!("refused: {why}")),
            Outcome::Values(_) if refused => Err("the reference refuses this".into()),
            Outcome::Values(found) => {
                let none = Map::new();
                let expected = self.expected.as_object().unwrap_or(&none);
                assert!(!found.is_empty(), "{}: nothing was computed", self.id);
                for key in expected.keys().filter(|k| !found.contains_key(*k)) {
                    *skipped.entry(key.clone()).or_default() += 1;
                }
                for (key, value) in found {
                    let want = expected
                        .get(key)
                        .ok_or(format!("{key} is not in the vector"))?;
                    self.same(key, want, value)?;
                }
                Ok(())
            }
            Outcome::NotBuilt => Ok(()),
        }
    }

    /// Numbers within the tolerance, everything else equal.
    fn same(&self, at: &str, want: &Value, got: &Value) -> Result<(), String> {
        let differ = || Err(format!("{at}: expected {want}, got {got}"));
        match (want, got) {
            (Value::Array(w), Value::Array(g)) => {
                if w.len() != g.len() {
                    return differ();
                }
                let pairs = w.iter().zip(g).enumerate();
                pairs
                    .into_iter()
                    .try_for_each(|(i, (w, g))| self.same(&format!("{at}[{i}]"), w, g))
            }
            (Value::Object(w), Value::Object(g)) => {
                // A quantity that both refuse, each in its own words.
                if w.contains_key("error") && g.contains_key("error") {
                    return Ok(());
                }
                if !w.keys().eq(g.keys()) {
                    return differ();
                }
                w.iter()
                    .try_for_each(|(k, w)| self.same(&format!("{at}.{k}"), w, &g[k]))
            }
            _ => match (float(want), float(got)) {
                (Some(w), Some(g)) => {
                    let close = (w - g).abs() <= self.atol + self.rtol * w.abs();
                    if close || w == g || (w.is_nan() && g.is_nan()) {
                        Ok(())
                    } else {
                        differ()
                    }
                }
                _ if want == got => Ok(()),
                _ => differ(),
            },
        }
    }
}

/// A number of the vectors; non-finite ones are words there.
pub fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => match s.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// A number as the vectors write it.
pub fn number(x: f64) -> Value {
    match x {
        x if x.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        x => x.into(),
    }
}

/// The folder of a family of vectors: `POLYLOOM_GOLDEN`, else `../shared/golden` beside the checkout, else the subset
/// in the repository.
pub fn golden(family: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let given = std::env::var_os("POLYLOOM_GOLDEN").map(PathBuf::from);
    let places = [root.join("../shared/golden"), root.join("tests/golden")];
    given
        .into_iter()
        .chain(places)
        .map(|p| p.join(family))
        .find(|p| p.is_dir())
        .unwrap_or_else(|| panic!("no vectors of {family}: set POLYLOOM_GOLDEN"))
}
