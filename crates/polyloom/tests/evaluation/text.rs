//! Families of text, retrieval, answer choices and repeated sampling.

use std::collections::{BTreeMap, BTreeSet};

use polyloom::evaluate::metric::answer_match::squad;
use polyloom::evaluate::metric::bleu::{BleuOptions, Smoothing, bleu as corpus_bleu, bleu_counts};
use polyloom::evaluate::metric::chrf::{ChrfOptions, chrf};
use polyloom::evaluate::metric::ranking::{Ties, abstention_nauc, confidence, ndcg_by_score};
use polyloom::evaluate::metric::retrieval::{Ranked, Table, rank_all, rank_change};
use polyloom::evaluate::metric::rouge::{Overlap, Rouge as Scorer, RougeKind};
use polyloom::evaluate::metric::ter::{TerOptions, ter};
use polyloom::evaluate::text::porter;
use polyloom::evaluate::text::tokenize::Tokenizer;
use serde_json::{Map, Value, json};

use crate::{Case, Outcome, float, number};

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

/// Query, document, value.
fn table<T>(value: &Value, read: impl Fn(&Value) -> T) -> Table<T> {
    let rows = value.as_object().unwrap().iter();
    rows.map(|(query, documents)| {
        let documents = documents.as_object().unwrap().iter();
        let documents = documents.map(|(name, v)| (name.clone(), read(v)));
        (query.clone(), documents.collect())
    })
    .collect()
}

fn ranked(input: &Value) -> polyloom::evaluate::Result<BTreeMap<String, Ranked>> {
    let judged = table(&input["qrels"], |v| v.as_i64().unwrap());
    let run = table(&input["run"], |v| v.as_f64().unwrap());
    rank_all(&judged, &run)
}

pub fn retrieval(case: &Case) -> Outcome {
    const ALL: usize = usize::MAX;
    let queries = match ranked(&case.input) {
        Ok(queries) => queries,
        Err(problem) => return Outcome::Refused(problem.to_string()),
    };
    let mut values = Map::new();
    for (query, q) in queries {
        let mut found = BTreeMap::from([
            ("Rndcg".to_owned(), q.r_ndcg()),
            ("Rprec".into(), q.r_precision()),
            ("bpref".into(), q.bpref()),
            ("map".into(), q.average_precision(ALL)),
            ("ndcg".into(), q.ndcg(ALL)),
            ("num_rel".into(), q.relevant() as f64),
            ("num_rel_ret".into(), q.relevant_retrieved() as f64),
            ("num_ret".into(), q.retrieved() as f64),
            ("recip_rank".into(), q.reciprocal_rank(ALL)),
            ("set_F".into(), q.set_f()),
            ("set_P".into(), q.set_precision()),
            ("set_recall".into(), q.recall(ALL)),
        ]);
        for k in [1, 3, 5, 10, 100] {
            found.insert(format!("P_{k}"), q.precision(k));
            found.insert(format!("map_cut_{k}"), q.average_precision(k));
            found.insert(format!("ndcg_cut_{k}"), q.ndcg(k));
            found.insert(format!("recall_{k}"), q.recall(k));
            if k < 100 {
                found.insert(format!("success_{k}"), q.success(k));
            }
        }
        values.insert(query, json!(found));
    }
    Outcome::Values(values)
}

/// The numbers of a list.
fn floats(value: &Value) -> Vec<f64> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|v| float(v).unwrap()).collect()
}

/// A list of lists.
fn rows(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(floats).collect()
}

pub fn retrieval_extra(case: &Case) -> Outcome {
    let input = &case.input;
    if input.get("metric").is_some() {
        let found = abstention_nauc(&floats(&input["confidence"]), &floats(&input["metric"]));
        return outcome(found.map(|x| json!({ "nauc": number(x) })));
    }
    if let Some(ranks) = input.get("ranks") {
        let scores: polyloom::evaluate::Result<Vec<f64>> = rows(ranks)
            .iter()
            .map(|pair| rank_change(pair[0] as usize, pair[1] as usize))
            .collect();
        return outcome(scores.map(|scores| json!({ "score": scores })));
    }
    if let Some(sims) = input.get("sims") {
        let found: polyloom::evaluate::Result<Vec<Value>> = rows(sims)
            .iter()
            .map(|scores| {
                confidence(scores).map(|c| json!({ "max": c.max, "std": c.std, "diff1": c.lead }))
            })
            .collect();
        return outcome(found.map(|out| json!({ "out": out })));
    }
    let judged = table(&input["qrels"], |v| v.as_i64().unwrap());
    let judged: BTreeSet<&str> = judged.values().flat_map(|d| d.keys().map(String::as_str)).collect();
    outcome(ranked(input).map(|queries| {
        let (mut mrr, mut capped, mut hole) = (Map::new(), Map::new(), Map::new());
        for k in input["ks"].as_array().unwrap().iter().map(|k| k.as_u64().unwrap() as usize) {
            let of = |f: &dyn Fn(&Ranked) -> Value| queries.values().map(f).collect::<Vec<_>>();
            mrr.insert(format!("MRR@{k}"), of(&|q| q.reciprocal_rank(k).into()).into());
            let name = format!("R_cap_at_{k}");
            capped.insert(name, of(&|q| q.capped_recall(k).into()).into());
            let name = format!("Hole_at_{k}");
            hole.insert(name, of(&|q| q.hole(k, |d| judged.contains(d)).into()).into());
        }
        json!({ "mrr": mrr, "recall_cap": capped, "hole": hole })
    }))
}

pub fn ndcg_tie_averaged(case: &Case) -> Outcome {
    let (gains, scores) = (rows(&case.input["gain"]), rows(&case.input["score"]));
    let k = case.input["k"].as_u64().map_or(usize::MAX, |k| k as usize);
    let mean = |ties| -> polyloom::evaluate::Result<f64> {
        let each = gains.iter().zip(&scores).map(|(g, s)| ndcg_by_score(g, s, k, ties));
        let each: Vec<f64> = each.collect::<polyloom::evaluate::Result<_>>()?;
        Ok(each.iter().sum::<f64>() / each.len() as f64)
    };
    outcome(mean(Ties::Average).and_then(|averaged| {
        Ok(json!({ "tie_averaged": averaged, "ignore_ties": mean(Ties::LaterFirst)? }))
    }))
}
