//! Families of text, retrieval, answer choices and repeated sampling.

use polyloom::evaluate::metric::answer_match::squad;
use polyloom::evaluate::metric::bleu::{BleuOptions, Smoothing, bleu as corpus_bleu, bleu_counts};
use polyloom::evaluate::metric::chrf::{ChrfOptions, chrf};
use polyloom::evaluate::metric::rouge::{Overlap, Rouge as Scorer, RougeKind};
use polyloom::evaluate::metric::ter::{TerOptions, ter};
use polyloom::evaluate::text::porter;
use polyloom::evaluate::text::tokenize::Tokenizer;
use serde_json::{Map, Value, json};

use crate::{Case, Outcome, number};

/// The strings of a list.
fn strings(value: &Value) -> Vec<&str> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|v| v.as_str().unwrap()).collect()
}

/// Quantities, or the reason why there are none.
fn outcome(values: polyloom::evaluate::Result<Value>) -> Outcome {
    match values {
        Ok(Value::Object(values)) => Outcome::Values(values),
        Ok(other) => panic!("not an object: {other}"),
        Err(problem) => Outcome::Refused(problem.to_string()),
    }
}

pub fn rouge(case: &Case) -> Outcome {
    let input = &case.input;
    if let Some(words) = input.get("words") {
        let stems: Vec<String> = strings(words).into_iter().map(porter::stem).collect();
        return outcome(Ok(json!({ "stems": stems })));
    }
    let kinds = [
        ("rouge1", RougeKind::N(1)),
        ("rouge2", RougeKind::N(2)),
        ("rouge3", RougeKind::N(3)),
        ("rougeL", RougeKind::L),
        ("rougeLsum", RougeKind::Lsum),
    ];
    let mut scorer = Scorer::new(
        &kinds.map(|k| k.1),
        case.params["use_stemmer"].as_bool().unwrap(),
    )
    .unwrap();
    let prediction = input["prediction"].as_str().unwrap();
    let found = match input.get("targets") {
        Some(targets) => scorer.score_best(prediction, &strings(targets)).unwrap(),
        None => scorer.score(prediction, input["target"].as_str().unwrap()),
    };
    let shown = |o: &Overlap| {
        json!({
            "precision": number(o.precision), "recall": number(o.recall), "f1": number(o.f1),
        })
    };
    let values: Map<String, Value> = kinds
        .iter()
        .zip(&found)
        .map(|((name, _), overlap)| ((*name).to_owned(), shown(overlap)))
        .collect();
    Outcome::Values(values)
}

pub fn answer_match(case: &Case) -> Outcome {
    let accepted = strings(&case.input["references"]);
    let found = squad(case.input["prediction"].as_str().unwrap(), &accepted);
    outcome(found.map(|s| json!({ "exact_match": s.exact_match, "f1": s.f1 })))
}

/// References by segment, from streams in which some are missing.
fn by_segment<'a>(streams: &'a Value, segments: usize) -> Vec<Vec<&'a str>> {
    let streams = streams.as_array().unwrap();
    (0..segments)
        .map(|i| streams.iter().filter_map(|s| s[i].as_str()).collect())
        .collect()
}

pub fn bleu(case: &Case) -> Outcome {
    let params = &case.params;
    let tokenize = params["tokenize"].as_str().unwrap_or("13a");
    let options = BleuOptions {
        tokenizer: Tokenizer::by_name(tokenize).unwrap(),
        lowercase: params["lowercase"].as_bool().unwrap_or(false),
        smoothing: match params["smooth_method"].as_str().unwrap_or("exp") {
            "none" => Smoothing::None,
            "floor" => Smoothing::Floor(0.1),
            "add-k" => Smoothing::AddK(1.0),
            "exp" => Smoothing::Exp,
            other => panic!("{other}"),
        },
        order: params["max_ngram_order"].as_u64().unwrap_or(4) as usize,
        effective_order: params["effective_order"].as_bool().unwrap_or(false),
    };
    let system = strings(&case.input["hyp"]);
    let references = by_segment(&case.input["refs"], system.len());
    if params["level"] == "sentence" {
        let scores = bleu_counts(&system, &references, options).map(|counts| {
            let scores: Vec<f64> = counts.iter().map(|c| options.score(c).score).collect();
            json!({ "sentence": scores })
        });
        return outcome(scores);
    }
    outcome(
        corpus_bleu(&system, &references, options).map(|(score, stats)| {
            json!({
                "score": score.score, "bp": score.brevity, "precisions": score.precisions,
                "counts": score.matched, "totals": score.total,
                "sys_len": stats.system, "ref_len": stats.reference,
            })
        }),
    )
}

pub fn chrf_ter(case: &Case) -> Outcome {
    let params = &case.params;
    let set = |key: &str| params[key].as_bool().unwrap_or(false);
    let system = strings(&case.input["hyp"]);
    let references = by_segment(&case.input["refs"], system.len());
    let score = if case.input["metric"] == "ter" {
        let options = TerOptions {
            normalized: set("normalized"),
            no_punct: set("no_punct"),
            asian_support: set("asian_support"),
            case_sensitive: set("case_sensitive"),
        };
        ter(&system, &references, options).map(|found| found.0)
    } else {
        let size = |key: &str, default| params[key].as_u64().map_or(default, |n| n as usize);
        let options = ChrfOptions {
            chars: size("char_order", 6),
            words: size("word_order", 0),
            beta: params["beta"].as_f64().unwrap_or(2.0),
            lowercase: set("lowercase"),
            whitespace: set("whitespace"),
            eps_smoothing: set("eps_smoothing"),
        };
        chrf(&system, &references, options).map(|found| found.0)
    };
    outcome(score.map(|score| json!({ "score": score })))
}
