//! Families of text, retrieval, answer choices and repeated sampling.

use std::collections::{BTreeMap, BTreeSet};

use polyloom::evaluate::metric::answer_match::{Disregard, exact_match, squad};
use polyloom::evaluate::metric::bleu::{BleuOptions, Smoothing, bleu as corpus_bleu, bleu_counts};
use polyloom::evaluate::metric::chrf::{ChrfOptions, chrf};
use polyloom::evaluate::metric::multiple_choice::{
    Choices, brier, graded, greedy_match, is_right, preferred, softmax,
};
use polyloom::evaluate::metric::pass_at_k::{
    PowerLaw, SizeLaw, coverage, pass_at_k as at_k, pass_hat_k, pass_rate,
};
use polyloom::evaluate::metric::perplexity::{Perplexity, group, perplexity_of_mean};
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
fn by_segment(streams: &Value, segments: usize) -> Vec<Vec<&str>> {
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
    let judged: BTreeSet<&str> = judged
        .values()
        .flat_map(|d| d.keys().map(String::as_str))
        .collect();
    outcome(ranked(input).map(|queries| {
        let (mut mrr, mut capped, mut hole) = (Map::new(), Map::new(), Map::new());
        for k in input["ks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|k| k.as_u64().unwrap() as usize)
        {
            let of = |f: &dyn Fn(&Ranked) -> Value| queries.values().map(f).collect::<Vec<_>>();
            mrr.insert(
                format!("MRR@{k}"),
                of(&|q| q.reciprocal_rank(k).into()).into(),
            );
            let name = format!("R_cap_at_{k}");
            capped.insert(name, of(&|q| q.capped_recall(k).into()).into());
            let name = format!("Hole_at_{k}");
            hole.insert(
                name,
                of(&|q| q.hole(k, |d| judged.contains(d)).into()).into(),
            );
        }
        json!({ "mrr": mrr, "recall_cap": capped, "hole": hole })
    }))
}

pub fn ndcg_tie_averaged(case: &Case) -> Outcome {
    let (gains, scores) = (rows(&case.input["gain"]), rows(&case.input["score"]));
    let k = case.input["k"].as_u64().map_or(usize::MAX, |k| k as usize);
    let mean = |ties| -> polyloom::evaluate::Result<f64> {
        let each = gains
            .iter()
            .zip(&scores)
            .map(|(g, s)| ndcg_by_score(g, s, k, ties));
        let each: Vec<f64> = each.collect::<polyloom::evaluate::Result<_>>()?;
        Ok(each.iter().sum::<f64>() / each.len() as f64)
    };
    outcome(mean(Ties::Average).and_then(|averaged| {
        Ok(json!({ "tie_averaged": averaged, "ignore_ties": mean(Ties::LaterFirst)? }))
    }))
}

pub fn multiple_choice(case: &Case) -> Outcome {
    let input = &case.input;
    if input.get("reference").is_some() {
        return matched(case);
    }
    if let Some(sizes) = input.get("sizes") {
        let sizes = counts(sizes);
        let found = group(
            &floats(&input["scores"]),
            &sizes,
            &floats(&input["stderrs"]),
        );
        return outcome(found.map(|g| {
            json!({
                "weighted": g.weighted, "unweighted": g.unweighted,
                "pooled_stderr": g.standard_error,
            })
        }));
    }
    let loglik = floats(&input["loglik"]);
    if let Some(words) = input.get("words") {
        let mut whole = Perplexity::default();
        for ((loglik, words), bytes) in loglik
            .iter()
            .zip(counts(words))
            .zip(counts(&input["bytes"]))
        {
            whole.add(*loglik, words, bytes).unwrap();
        }
        let each: Vec<f64> = loglik.iter().map(|l| l / 100.0).collect();
        return outcome(perplexity_of_mean(&each).map(|mean| {
            json!({
                "word_perplexity": whole.per_word(), "byte_perplexity": whole.per_byte(),
                "bits_per_byte": whole.bits_per_byte(), "perplexity_mean": mean,
                "note_perplexity_input": each,
            })
        }));
    }
    if let Some(scores) = input.get("target_scores") {
        return outcome(graded(&loglik, &floats(scores)).map(|g| {
            json!({
                "normalised": g.probabilities, "multiple_choice_grade": g.grade,
                "calibration_brier": g.calibration_brier, "expected_target_score": g.expected,
            })
        }));
    }
    outcome(choices(input, &loglik))
}

fn choices(input: &Value, loglik: &[f64]) -> polyloom::evaluate::Result<Value> {
    let texts = strings(&input["choices"]);
    let unconditional = input.get("unconditional").map(floats);
    let found = preferred(&Choices {
        texts: &texts,
        loglik,
        unconditional: unconditional.as_deref(),
        tokens: None,
    })?;
    let gold: Vec<usize> = match &input["gold"] {
        Value::Array(gold) => gold.iter().map(|g| g.as_u64().unwrap() as usize).collect(),
        gold => vec![gold.as_u64().unwrap() as usize],
    };
    let greedy: Vec<bool> = floats(&input["is_greedy"])
        .iter()
        .map(|g| *g > 0.0)
        .collect();
    let right = |choice| is_right(choice, &gold, texts.len());
    let mut values = json!({
        "argmax": found.raw, "argmax_norm": found.per_char, "argmax_bytes": found.per_byte,
        "acc": right(found.raw)?, "acc_norm": right(found.per_char)?,
        "acc_bytes": right(found.per_byte)?, "exact_match": greedy_match(&greedy, &gold)?,
        "softmax": softmax(loglik)?,
    });
    if let Some(mutual) = found.mutual {
        values["argmax_mutual_info"] = mutual.into();
        values["acc_mutual_info"] = right(mutual)?.into();
    }
    if input["gold"].is_u64() {
        values["brier"] = brier(loglik, gold[0])?.into();
    }
    Ok(values)
}

/// `exact_match` with what it disregards.
fn matched(case: &Case) -> Outcome {
    let set = |key: &str| case.params[key].as_bool().unwrap_or(false);
    let patterns = strings(&case.params["regexes_to_ignore"]);
    let disregard = Disregard {
        patterns: patterns
            .iter()
            .map(|p| regex::Regex::new(p).unwrap())
            .collect(),
        case: set("ignore_case"),
        punctuation: set("ignore_punctuation"),
        digits: set("ignore_numbers"),
    };
    let pairs = strings(&case.input["prediction"])
        .into_iter()
        .zip(strings(&case.input["reference"]));
    let each: Vec<f64> = pairs
        .map(|(p, r)| f64::from(u8::from(exact_match(p, r, &disregard))))
        .collect();
    let mean = each.iter().sum::<f64>() / each.len() as f64;
    outcome(Ok(json!({ "each": each, "mean": mean })))
}

/// The whole numbers of a list.
fn counts(value: &Value) -> Vec<u64> {
    floats(value).iter().map(|x| *x as u64).collect()
}

pub fn pass_at_k(case: &Case) -> Outcome {
    let input = &case.input;
    if input.get("trials").is_some() {
        let rates = counts(&input["trials"])
            .into_iter()
            .zip(counts(&input["passes"]));
        let rates: polyloom::evaluate::Result<Vec<_>> = rates
            .map(|(trials, passes)| pass_rate(trials, passes))
            .collect();
        return outcome(rates.map(|rates| {
            let mle: Vec<f64> = rates.iter().map(|r| r.most_likely).collect();
            let unbiased: Vec<Option<f64>> = rates.iter().map(|r| r.unbiased).collect();
            json!({ "mle": mle, "unbiased": unbiased })
        }));
    }
    if let Some(sizes) = input.get("size") {
        let law = SizeLaw::fit(&floats(sizes), &floats(&input["pass_rate"]));
        let at = input["predict_at"].as_f64().unwrap();
        return outcome(law.map(
            |law| json!({ "log_c": law.log_c, "alpha": law.alpha, "predicted": law.at(at) }),
        ));
    }
    if let Some(points) = input.get("coverage") {
        let law = PowerLaw::fit(&floats(&input["k"]), &floats(points));
        return outcome(law.map(|law| json!({ "a": law.a, "b": law.b })));
    }
    let passes = counts(&input["c"]);
    if let Some(n) = input["n"].as_u64() {
        let problems: Vec<(u64, u64)> = passes.iter().map(|c| (n, *c)).collect();
        let found = coverage(&problems, &counts(&input["ks"]));
        return outcome(found.map(|c| json!({ "coverage": c })));
    }
    let mut values = Map::new();
    type PassK = fn(u64, u64, u64) -> polyloom::evaluate::Result<Option<f64>>;
    for (name, f) in [("pass_at_k", at_k as PassK), ("pass_hat_k", pass_hat_k)] {
        let cases = counts(&input["n"])
            .into_iter()
            .zip(&passes)
            .zip(counts(&input["k"]));
        let found: polyloom::evaluate::Result<Vec<Option<f64>>> =
            cases.map(|((n, c), k)| f(n, *c, k)).collect();
        match found {
            Ok(found) => values.insert(name.into(), json!(found)),
            Err(problem) => return Outcome::Refused(problem.to_string()),
        };
    }
    if case.id == "pass-k-undefined" {
        values.remove("pass_hat_k");
    }
    Outcome::Values(values)
}
