//! `polyloom route profile`, `recruit` and `threshold`: choosing among systems whose answers are saved

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::board::predictions::{Columns, Predictions};
use polyloom::tasks::data::{self, Limits};
use polyloom_core::checkpoint::read_json;
use polyloom_core::writer::OutputFile;
use polyloom_learn::route::records;
use polyloom_learn::route::skills::Profiles;
use polyloom_learn::route::win_rate::{self, Curve};
use serde_json::json;

use super::named;
use crate::args_route::{ProfileArgs, RecruitArgs, ThresholdArgs};
use crate::ui::{Failure, Ui};

/// Skills by task and id; the task is empty where the table names none.
type Skills = HashMap<(String, String), Vec<String>>;

/// Runs `route profile`.
pub fn profile(args: &ProfileArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    OutputFile::check(&args.output, args.writing.force)?;
    let given = args.results.iter().map(|r| named(r, "NAME=RESULTS"));
    let given: Vec<(&str, &str)> = given.collect::<Result<_, _>>()?;
    let table = args.skills.as_deref().map(skills).transpose()?;
    let mut made = Profiles::new(given.iter().map(|(name, _)| (*name).to_owned()));
    let (mut counted, mut without) = (0u64, 0u64);
    for (name, file) in &given {
        let tags = match &table {
            Some(_) => HashMap::new(),
            None => tags(Path::new(file))?,
        };
        for (task, examples) in records::read(Path::new(file))? {
            for (id, score) in examples {
                let own = match &table {
                    None => tags.get(&task),
                    Some(table) => table
                        .get(&(task.clone(), id.clone()))
                        .or_else(|| table.get(&(String::new(), id))),
                };
                match own {
                    Some(own) if !own.is_empty() => {
                        made.add(name, own, score >= args.right);
                        counted += 1;
                    }
                    _ => without += 1,
                }
            }
        }
    }
    if counted == 0 {
        let what = "none of the answers has a skill";
        let error = MergeError::plan("no-skills", what);
        return Err(error
            .hint("--skills FILE with columns id and skill, or tasks with the tag `skill`")
            .into());
    }
    if without > 0 {
        ui.note(&format!(
            "{without} answers have no skill and are not counted"
        ));
    }
    made.save(&args.output, args.writing.force, !args.writing.no_sync)?;
    ui.answer(&args.output.display().to_string());
    ui.event(&json!({
        "type": "done", "output": args.output, "answers": counted, "without_skill": without,
        "models": made.models,
    }));
    Ok(ExitCode::SUCCESS)
}

/// The tag `skill` of each task of a results file.
fn tags(file: &Path) -> Result<HashMap<String, Vec<String>>, Failure> {
    if file
        .extension()
        .is_none_or(|e| !e.eq_ignore_ascii_case("json"))
    {
        return Ok(HashMap::new());
    }
    let said = read_json(file)?;
    let list = |entry: &serde_json::Value| -> Vec<String> {
        let words = entry["tags"]["skill"].as_array().into_iter().flatten();
        words
            .filter_map(|w| w.as_str().map(str::to_owned))
            .collect()
    };
    let tasks = said["tasks"].as_object().into_iter().flatten();
    Ok(tasks
        .map(|(task, entry)| (task.clone(), list(entry)))
        .collect())
}

/// Skills of a table.
fn skills(file: &Path) -> Result<Skills, Failure> {
    let bad = |what: String| MergeError::plan("bad-input", what).at(file.display().to_string());
    let kind = data::kind_of(file).ok_or_else(|| {
        bad("is no table that is known by its name".into()).hint(".csv, .tsv, .jsonl or .parquet")
    })?;
    let mut found = Skills::new();
    data::read(file, kind, &Limits::default(), &mut |table| {
        let names: Vec<&str> = table.columns().map(|(n, _)| n).collect();
        let of = |name: &str| {
            table.column(name).ok_or_else(|| {
                bad(format!("has no column `{name}`"))
                    .hint(format!("its columns: {}", names.join(", ")))
            })
        };
        let (id, skill, task) = (of("id")?, of("skill")?, table.column("task"));
        for row in 0..table.rows() {
            let text = skill.cell(row).to_text();
            let words = text.split(';').map(|w| w.trim().to_owned());
            let words: Vec<String> = words.filter(|w| !w.is_empty()).collect();
            let task = task.map_or_else(String::new, |t| t.cell(row).to_text());
            found
                .entry((task, id.cell(row).to_text()))
                .or_default()
                .extend(words);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Runs `route recruit`.
pub fn recruit(args: &RecruitArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let bad = |what: &str| MergeError::plan("bad-flag", what.to_owned());
    if !(args.temperature > 0.0 && args.temperature.is_finite()) {
        return Err(bad("--temperature must be above 0").into());
    }
    if !(0.0..1.0).contains(&args.rare) {
        return Err(bad("--rare must be in 0 to below 1").into());
    }
    let profiles = Profiles::open(&args.profiles)?;
    let names: Vec<&String> = profiles.models.keys().collect();
    let words = |q: &String| -> Vec<String> {
        let words = q.split(',').map(|w| w.trim().to_owned());
        words.filter(|w| !w.is_empty()).collect()
    };
    let questions: Vec<Vec<String>> = args.questions.iter().map(words).collect();
    let picks: Vec<Vec<usize>> = questions
        .iter()
        .enumerate()
        .map(|(i, q)| profiles.recruit(q, args.temperature, args.picks, (args.seed, i as u64)))
        .collect();
    let picks = profiles.without_rare(&picks, args.rare, args.seed);
    for (question, picks) in questions.iter().zip(&picks) {
        let known = |w: &&String| profiles.models.values().any(|p| p.contains_key(*w));
        let strange: Vec<&str> = question
            .iter()
            .filter(|w| !known(w))
            .map(|w| &**w)
            .collect();
        if !strange.is_empty() {
            ui.note(&format!("no system has the skill {}", strange.join(", ")));
        }
        let drawn: Vec<&str> = picks.iter().map(|m| &**names[*m]).collect();
        let candidates: Vec<_> = profiles
            .candidates(question, args.temperature)
            .into_iter()
            .map(|c| json!({"system": names[c.model], "score": c.local, "probability": c.probability}))
            .collect();
        ui.answer(&format!("{}\t{}", question.join(","), drawn.join(" ")));
        ui.event(&json!({"type": "recruit", "skills": question, "picks": drawn, "candidates": candidates}));
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `route threshold`.
pub fn threshold(args: &ThresholdArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let columns = Columns {
        score: Some(args.column.clone()),
        ..Columns::default()
    };
    let given = Predictions::read(&args.file, &columns)?;
    let mut rows: Vec<(&str, &str, f64)> = Vec::new();
    for (task, examples) in &given.tasks {
        rows.extend(examples.iter().map(|(id, e)| (&**task, &**id, e.value)));
    }
    let rates: Vec<f64> = rows.iter().map(|(.., rate)| *rate).collect();
    let mut lines = vec!["share of strong calls   threshold".to_owned()];
    let mut found = Vec::new();
    for share in &args.share {
        let at = win_rate::threshold(&rates, *share)?;
        let strong = rates.iter().filter(|r| **r >= at).count() as f64 / rates.len() as f64;
        lines.push(format!(
            "{share:>21}   {at:.6}   ({:.1} % of these prompts)",
            100.0 * strong
        ));
        found.push(json!({"share": share, "threshold": at, "calls": strong}));
    }
    let mut event = json!({"type": "result", "prompts": rates.len(), "thresholds": found});
    if let (Some(strong), Some(weak)) = (&args.strong, &args.weak) {
        let scores = |file: &Path| -> Result<Vec<f64>, Failure> {
            let all = records::read(file)?;
            let one = |(task, id, _): &(&str, &str, f64)| {
                // A table without tasks is about the only task of the records.
                let own = match (task.is_empty(), all.len()) {
                    (true, 1) => all.first().map(|(_, s)| s),
                    _ => all.get(*task),
                };
                own.and_then(|s| s.get(*id)).copied().ok_or_else(|| {
                    let what = format!("has no score for the prompt `{id}`");
                    let error = MergeError::plan("no-records", what);
                    error.at(file.display().to_string()).into()
                })
            };
            rows.iter().map(one).collect()
        };
        let curve = Curve::new(&rates, &scores(strong)?, &scores(weak)?)?;
        let (low, high) = curve.ends();
        lines.push(format!(
            "weak {low:.4}, strong {high:.4}; APGR {:.4}",
            curve.recovered_area()
        ));
        let mut calls = Vec::new();
        for recovered in [0.5, 0.8, 0.95] {
            if let Some(place) = curve.least_calls(recovered) {
                lines.push(format!(
                    "{:.0} % of the gap: {:.1} % strong calls, threshold {:.6}, score {:.4}",
                    100.0 * recovered,
                    100.0 * place.share,
                    place.threshold,
                    place.score
                ));
                calls.push(json!({"recovered": recovered, "share": place.share, "threshold": place.threshold, "score": place.score}));
            }
        }
        event["weak"] = json!(low);
        event["strong"] = json!(high);
        event["apgr"] = json!(curve.recovered_area());
        event["cpt"] = json!(calls);
    }
    ui.answer(&lines.join("\n"));
    ui.event(&event);
    Ok(ExitCode::SUCCESS)
}
