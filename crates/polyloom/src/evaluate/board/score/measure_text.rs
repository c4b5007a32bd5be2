//! Metrics of texts, attempts, spans and tags.

use regex::Regex;

use super::measure::{Form, Pairs, Params, whole};
use super::truth::Truth;
use crate::error::Result;
use crate::evaluate::metric::answer_match::{Disregard, exact_match, squad};
use crate::evaluate::metric::bleu::{BleuOptions, BleuStats, bleu_counts};
use crate::evaluate::metric::chrf::{ChrfOptions, ChrfStats, chrf_counts};
use crate::evaluate::metric::pass_at_k::{pass_at_k, pass_hat_k};
use crate::evaluate::metric::rouge::{RougeKind, rouge};
use crate::evaluate::metric::span::{SpanCounts, bio};
use crate::evaluate::metric::ter::{TerOptions, TerStats, ter_counts};
use crate::evaluate::text::tokenize::Tokenizer;

/// Accepted texts and the first text said, per example.
fn both<'a>(
    params: &Params<'_>,
    pairs: &'a Pairs<'a>,
) -> Result<(Vec<Vec<&'a str>>, Vec<&'a str>)> {
    let (mut accepted, mut said) = (Vec::new(), Vec::new());
    for (truth, given) in pairs.truths.iter().zip(&pairs.given) {
        match truth {
            Truth::Texts(list) => accepted.push(list.iter().map(|t| &**t).collect()),
            Truth::Choice(choices, gold) => accepted.push(vec![&*choices[*gold]]),
            _ => {
                return Err(
                    params.unfit(&format!("tasks of type {} have no texts", pairs.goal.kind))
                );
            }
        }
        if given.texts.len() > 1 {
            return Err(params
                .unfit("an example has several answers")
                .hint("pass_at_k and pass_hat_k are of several attempts"));
        }
        said.push(given.texts.first().map_or(&*given.shown, |t| &**t));
    }
    Ok((accepted, said))
}

pub(super) fn texts<'a>(params: &Params<'_>, pairs: &'a Pairs<'a>) -> Result<Form<'a>> {
    let fail = |e| params.failed(e);
    if params.metric == "exact_match" {
        return exact(params, pairs);
    }
    let (accepted, said) = both(params, pairs)?;
    let n = said.len();
    Ok(match params.metric {
        "squad_em" | "squad_f1" => {
            let mut values = Vec::new();
            for (accepted, said) in accepted.iter().zip(&said) {
                let one = squad(said, accepted).map_err(fail)?;
                values.push(if params.metric == "squad_em" {
                    one.exact_match
                } else {
                    one.f1
                });
            }
            Form::Each(values)
        }
        "rouge1" | "rouge2" | "rougeL" | "rougeLsum" => {
            let kind = match params.metric {
                "rouge1" => RougeKind::N(1),
                "rouge2" => RougeKind::N(2),
                "rougeL" => RougeKind::L,
                _ => RougeKind::Lsum,
            };
            let found = rouge(&said, &accepted, &[kind], params.flag("stem")).map_err(fail)?;
            Form::Each(found.iter().map(|kinds| kinds[0].f1).collect())
        }
        "bleu" => {
            let tokenizer = match params.word("tokenize").unwrap_or("13a") {
                "13a" => Tokenizer::V13a,
                "none" => Tokenizer::None,
                "intl" => Tokenizer::International,
                "char" => Tokenizer::Character,
                "zh" => Tokenizer::Chinese,
                other => {
                    return Err(params.unfit(&format!(
                        "there is no tokenizer `{other}`; 13a, none, intl, char, zh"
                    )));
                }
            };
            let options = BleuOptions {
                tokenizer,
                lowercase: params.flag("lowercase"),
                ..BleuOptions::default()
            };
            let parts = bleu_counts(&said, &accepted, options).map_err(fail)?;
            whole(params, n, move |places| {
                let mut all = BleuStats::default();
                places.iter().for_each(|&i| all.merge(&parts[i as usize]));
                Ok(options.score(&all).score)
            })?
        }
        "chrf" | "chrf_pp" => {
            let words = if params.metric == "chrf" { 0 } else { 2 };
            let options = ChrfOptions {
                words,
                ..ChrfOptions::default()
            };
            let parts = chrf_counts(&said, &accepted, options).map_err(fail)?;
            whole(params, n, move |places| {
                let mut all = ChrfStats::default();
                places.iter().for_each(|&i| all.merge(&parts[i as usize]));
                Ok(options.score(&all))
            })?
        }
        "ter" => {
            let parts = ter_counts(&said, &accepted, TerOptions::default()).map_err(fail)?;
            whole(params, n, move |places| {
                let mut all = TerStats::default();
                places.iter().for_each(|&i| all.merge(&parts[i as usize]));
                Ok(all.score())
            })?
        }
        _ => return Err(params.unfit("it is not computed from texts here")),
    })
}

fn disregard(params: &Params<'_>) -> Result<Disregard> {
    let patterns = params
        .list("regexes_to_ignore")
        .into_iter()
        .map(|p| Regex::new(&p).map_err(|e| params.unfit(&format!("`{p}` is no pattern: {e}"))));
    Ok(Disregard {
        patterns: patterns.collect::<Result<_>>()?,
        case: params.flag("ignore_case"),
        punctuation: params.flag("ignore_punctuation"),
        digits: params.flag("ignore_numbers"),
    })
}

/// 1 where the text said is an accepted one, white space around them aside.
pub(super) fn exact(params: &Params<'_>, pairs: &Pairs<'_>) -> Result<Form<'static>> {
    let disregard = disregard(params)?;
    let (accepted, said) = both(params, pairs)?;
    let right = |(accepted, said): (&Vec<&str>, &&str)| {
        let same = accepted
            .iter()
            .any(|a| exact_match(said.trim(), a.trim(), &disregard));
        f64::from(u8::from(same))
    };
    Ok(Form::Each(accepted.iter().zip(&said).map(right).collect()))
}

pub(super) fn attempts(params: &Params<'_>, pairs: &Pairs<'_>) -> Result<Form<'static>> {
    let k = params.count("k")?.unwrap_or(1) as u64;
    let disregard = Disregard::default();
    let mut values = Vec::new();
    for (truth, given) in pairs.truths.iter().zip(&pairs.given) {
        let Truth::Texts(accepted) = truth else {
            return Err(params.unfit("it is of tasks of type generation"));
        };
        let right = |t: &String| {
            accepted
                .iter()
                .any(|a| exact_match(t.trim(), a.trim(), &disregard))
        };
        let passes = match &given.passed {
            Some(passed) => passed.iter().filter(|p| **p).count(),
            None => given.texts.iter().filter(|t| right(t)).count(),
        };
        let (n, passes) = (given.texts.len() as u64, passes as u64);
        let of = if params.metric == "pass_at_k" {
            pass_at_k
        } else {
            pass_hat_k
        };
        let value = of(n, passes, k).map_err(|e| params.failed(e))?;
        values.push(
            value.ok_or_else(|| {
                params.unfit(&format!("k is {k}, and an example has {n} attempts"))
            })?,
        );
    }
    Ok(Form::Each(values))
}

/// What a grader's marks come to, per text.
pub(super) fn marks(params: &Params<'_>, pairs: &Pairs<'_>) -> Result<Form<'static>> {
    let mut values = Vec::new();
    for given in &pairs.given {
        let Some(marks) = &given.marks else {
            return Err(params.unfit(
                "it needs the marks of a grader: `skills` (a list of true and false), `topic`, `sense`, `length`",
            ));
        };
        values.push(match params.metric {
            "skill_mix_full" => marks.full(),
            "skill_mix_all" => marks.all_skills(),
            _ => marks.skill_fraction(),
        });
    }
    Ok(Form::Each(values))
}

/// F1 of spans over all examples.
pub(super) fn spans<'a>(params: &Params<'_>, pairs: &'a Pairs<'a>) -> Result<Form<'a>> {
    let mut counts = Vec::new();
    for (truth, given) in pairs.truths.iter().zip(&pairs.given) {
        let one = match (truth, &given.spans, &given.tags) {
            (Truth::Spans(truth), Some(said), _) => SpanCounts::of(truth, said),
            (Truth::Tags(truth), _, Some(said)) => SpanCounts::of(&bio(truth), &bio(said)),
            _ => return Err(params.unfit("it needs spans or tags per example")),
        };
        counts.push(one.map_err(|e| params.failed(e))?);
    }
    let relaxed = params.metric == "span_f1_relaxed";
    whole(params, counts.len(), move |places| {
        let mut all = SpanCounts::default();
        places.iter().for_each(|&i| all.merge(&counts[i as usize]));
        Ok(if relaxed { all.relaxed_f1() } else { all.f1() })
    })
}

/// Metrics of a tag per token, all tokens together.
pub(super) fn tags<'a>(params: &Params<'_>, pairs: &'a Pairs<'a>) -> Result<Form<'a>> {
    let mut counts: Vec<[f64; 4]> = Vec::new();
    for (truth, given) in pairs.truths.iter().zip(&pairs.given) {
        let (Truth::Tags(truth), Some(said)) = (truth, &given.tags) else {
            return Err(params.unfit("it needs a tag per token"));
        };
        if truth.len() != said.len() {
            let why = format!(
                "an example has {} tags for {} tokens",
                said.len(),
                truth.len()
            );
            return Err(params.unfit(&why));
        }
        let count = |fits: &dyn Fn(&str, &str) -> bool| {
            truth.iter().zip(said).filter(|(t, p)| fits(t, p)).count() as f64
        };
        counts.push([
            count(&|t, p| t == p),
            count(&|t, p| t == p && t != "O"),
            count(&|t, _| t != "O"),
            count(&|_, p| p != "O"),
        ]);
    }
    let sizes: Vec<f64> = pairs
        .truths
        .iter()
        .map(|t| match t {
            Truth::Tags(tags) => tags.len() as f64,
            _ => 0.0,
        })
        .collect();
    let accuracy = match params.metric {
        "accuracy" => true,
        "token_f1" => false,
        _ => return Err(params.unfit("of tags there are accuracy, token_f1 and span_f1")),
    };
    whole(params, counts.len(), move |places| {
        let total = |c: usize| places.iter().map(|&i| counts[i as usize][c]).sum::<f64>();
        Ok(match accuracy {
            true => total(0) / places.iter().map(|&i| sizes[i as usize]).sum::<f64>(),
            false => 2.0 * total(1) / (total(2) + total(3)),
        })
    })
}
