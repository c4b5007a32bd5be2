//! Metrics of rankings, choices and likelihoods.

use std::collections::HashSet;

use super::given::Given;
use super::measure::{Form, Pairs, Params, whole};
use super::truth::Truth;
use crate::error::Result;
use crate::evaluate::metric::multiple_choice::{self, Choices, preferred};
use crate::evaluate::metric::perplexity::Perplexity;
use crate::evaluate::metric::ranking::{Ties, ndcg_by_score};
use crate::evaluate::metric::retrieval::{Ranked, rank_change};
use crate::evaluate::sum::mean;

/// A value per query.
pub(super) fn rankings(params: &Params<'_>, pairs: &Pairs<'_>) -> Result<Form<'static>> {
    let k = params.count("k")?;
    let ten = k.unwrap_or(10);
    let all = k.unwrap_or(usize::MAX);
    let mut values = Vec::new();
    let mut known = HashSet::new();
    if params.metric == "hole_at_k" {
        for truth in &pairs.truths {
            if let Truth::Judged(list, _) = truth {
                known.extend(list.iter().map(|(d, _)| &**d));
            }
        }
    }
    for (truth, given) in pairs.truths.iter().zip(&pairs.given) {
        let (Truth::Judged(judged, own), Some(run)) = (truth, &given.ranking) else {
            return Err(params.unfit("it needs a ranking per query"));
        };
        let run: Vec<(&str, f64)> = run
            .iter()
            .filter(|(d, _)| own.as_ref() != Some(d))
            .map(|(d, s)| (&**d, *s))
            .collect();
        let judged: Vec<(&str, i64)> = judged
            .iter()
            .filter(|(d, _)| own.as_ref() != Some(d))
            .map(|(d, g)| (&**d, *g))
            .collect();
        let ranked = Ranked::new(&run, &judged).map_err(|e| params.failed(e))?;
        if params.metric == "p_mrr" {
            values.push(moved(params, &ranked, &judged, given)?);
            continue;
        }
        values.push(match params.metric {
            "ndcg" => ranked.ndcg(all),
            "map" => ranked.average_precision(all),
            "mrr" => ranked.reciprocal_rank(all),
            "recall_at_k" => ranked.recall(ten),
            "precision_at_k" => ranked.precision(ten),
            "success_at_k" => ranked.success(ten),
            "hole_at_k" => ranked.hole(ten, |d| known.contains(d)),
            "capped_recall" => ranked.capped_recall(ten).unwrap_or(f64::NAN),
            "r_precision" => ranked.r_precision(),
            "bpref" => ranked.bpref(),
            "ndcg_ties" => {
                let score = |d: &str| run.iter().find(|(r, _)| *r == d).map(|(_, s)| *s);
                let found = judged
                    .iter()
                    .filter_map(|(d, g)| Some((*g as f64, score(d)?)));
                let (gains, scores): (Vec<f64>, Vec<f64>) = found.unzip();
                match gains.is_empty() {
                    true => 0.0,
                    false => ndcg_by_score(&gains, &scores, all.min(gains.len()), Ties::Average)
                        .map_err(|e| params.failed(e))?,
                }
            }
            _ => return Err(params.unfit("it is not of rankings")),
        });
    }
    Ok(Form::Each(values))
}

/// Mean change of the ranks of the documents that an instruction excludes: those judged below 0. `NaN` without any. A
/// document that a ranking lacks stands after its last one.
fn moved(
    params: &Params<'_>,
    after: &Ranked,
    judged: &[(&str, i64)],
    given: &Given,
) -> Result<f64> {
    let Some(before) = &given.before else {
        return Err(params
            .unfit("it compares two rankings of every query")
            .hint("a column `ranking_before`: the ranking without the instruction"));
    };
    let before: Vec<(&str, f64)> = before.iter().map(|(d, s)| (&**d, *s)).collect();
    let before = Ranked::new(&before, &[]).map_err(|e| params.failed(e))?;
    let rank = |list: &Ranked, document: &str| {
        let place = list.documents().iter().position(|d| d == document);
        place.unwrap_or(list.retrieved()) + 1
    };
    let changes = judged
        .iter()
        .filter(|(_, grade)| *grade < 0)
        .map(|(d, _)| rank_change(rank(&before, d), rank(after, d)).map_err(|e| params.failed(e)));
    Ok(mean(changes.collect::<Result<Vec<f64>>>()?))
}

/// A value per question.
pub(super) fn choices(params: &Params<'_>, pairs: &Pairs<'_>) -> Result<Form<'static>> {
    let mut values = Vec::new();
    for (truth, given) in pairs.truths.iter().zip(&pairs.given) {
        let Truth::Choice(texts, gold) = truth else {
            return Err(params.unfit("it is of tasks of type multiple_choice"));
        };
        values.push(choice(params, texts, *gold, given)?);
    }
    Ok(Form::Each(values))
}

fn choice(params: &Params<'_>, texts: &[String], gold: usize, given: &Given) -> Result<f64> {
    let right = |chosen: usize| f64::from(u8::from(chosen == gold));
    let Some(loglik) = given.scores.as_ref() else {
        return match (params.metric, given.class) {
            ("accuracy" | "multiple_choice_grade", Some(class)) => Ok(right(class as usize)),
            _ => {
                Err(params.unfit("it needs the log-likelihood of every choice: a list in `loglik`"))
            }
        };
    };
    if let ("accuracy", Some(class)) = (params.metric, given.class) {
        return Ok(right(class as usize));
    }
    let texts: Vec<&str> = texts.iter().map(|t| &**t).collect();
    let counted = |x: &f64| (*x >= 0.0 && x.fract() == 0.0).then_some(*x as usize);
    let tokens = given.tokens.as_ref().map(|list| {
        let counts: Option<Vec<usize>> = list.iter().map(counted).collect();
        counts.ok_or_else(|| params.unfit("a number of tokens is no whole number"))
    });
    let tokens = tokens.transpose()?;
    let asked = Choices {
        texts: &texts,
        loglik,
        unconditional: given.premise.as_deref(),
        tokens: tokens.as_deref(),
    };
    let best = preferred(&asked).map_err(|e| params.failed(e))?;
    let chosen = match params.metric {
        "accuracy" => Some(best.raw),
        "acc_norm" => Some(best.per_char),
        "acc_bytes" => Some(best.per_byte),
        "acc_mutual_info" => best.mutual,
        "multiple_choice_grade" => {
            let scores: Vec<f64> = (0..texts.len()).map(right).collect();
            let graded = multiple_choice::graded(loglik, &scores).map_err(|e| params.failed(e))?;
            return Ok(graded.grade);
        }
        "acc_token" => best.per_token,
        _ => return Err(params.unfit("it is not of choices")),
    };
    let lacks = match params.metric {
        "acc_token" => "it needs `tokens`, the number of tokens of every choice: a list",
        _ => "it needs `loglik_premise`, a list per question",
    };
    let chosen = chosen.ok_or_else(|| params.unfit(lacks))?;
    Ok(right(chosen))
}

/// Perplexities of all texts together.
pub(super) fn perplexities<'a>(params: &Params<'_>, pairs: &'a Pairs<'a>) -> Result<Form<'a>> {
    let mut rows = Vec::new();
    for (truth, given) in pairs.truths.iter().zip(&pairs.given) {
        let (Truth::Size(words, bytes), Some(loglik)) = (truth, given.number) else {
            return Err(
                params.unfit("it needs the log-likelihood of every text: a column `loglik`")
            );
        };
        rows.push((loglik, *words, *bytes));
    }
    let metric = params.metric;
    whole(params, rows.len(), move |places| {
        let mut all = Perplexity::default();
        for &i in places {
            let (loglik, words, bytes) = rows[i as usize];
            // One unit per example: the mean over examples.
            let words = if metric == "perplexity" { 1 } else { words };
            all.add(loglik, words, bytes)?;
        }
        Ok(match metric {
            "perplexity" | "word_perplexity" => all.per_word(),
            "byte_perplexity" => all.per_byte(),
            _ => all.bits_per_byte(),
        })
    })
}
