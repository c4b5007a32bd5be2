//! `polyloom eval --endpoint`: a server is asked and scored. Answers are kept on disk, so that a run that stopped goes on.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use polyloom::MergeError;
use polyloom::evaluate::board::score::answers::{Answers, Columns};
use polyloom::evaluate::board::score::ask::{self, Asking, Style};
use polyloom::evaluate::board::score::output::{Output, key};
use polyloom::evaluate::board::score::score;
use polyloom::tasks::data::Limits;
use polyloom::tasks::hash::task_hash;
use polyloom::tasks::load::Loader;
use polyloom_core::hash::sha256_text;
use serde_json::{Value, json};

use super::table::table;
use super::{Entries, done, groups, options, reused, settings, tell};
use crate::args_endpoint::Api;
use crate::args_eval::EvalArgs;
use crate::commands::tasks::{catalogue, expanded, roots};
use crate::endpoint::Endpoint;
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &EvalArgs, url: &str, ui: &Ui) -> Result<ExitCode, Failure> {
    let given = &args.server;
    let model = given.model.as_deref().unwrap_or_default();
    let style = match given.api {
        Api::Chat => Style::Chat,
        Api::Completions => Style::Completion,
    };
    let endpoint = Endpoint::new(url, model, style, &given.api_key_env, given.timeout)?;
    if args.tasks.is_empty() {
        return Err(
            MergeError::plan("no-task", "a server names no tasks, and none was given")
                .hint("-t TASK,TASK (`polyloom tasks list`, or spec files)")
                .into(),
        );
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => model.rsplit('/').next().unwrap_or(model).to_owned(),
    };
    let path = match &args.output {
        Some(folder) if folder.is_dir() || folder.as_os_str().to_string_lossy().ends_with('/') => {
            folder.join(format!("{name}.json"))
        }
        Some(file) => file.clone(),
        None => PathBuf::from(format!("{name}.results.json")),
    };
    let address = endpoint.address();
    let setting = json!([
        address,
        model,
        given.seed,
        args.max_tokens,
        args.fewshot,
        args.prompt
    ]);
    let who = Answers {
        path: PathBuf::from(format!("{address}#{model}")),
        hash: sha256_text(&setting.to_string()),
        rows: Vec::new(),
        columns: Vec::new(),
        task: None,
        chosen: Columns::default(),
    };
    let mut output = Output::open(
        &path,
        &name,
        &who,
        args.force || Output::is_stale(&path, &who),
    )?;
    let mut kept = Kept::open(&path.with_extension("responses.jsonl"))?;
    let (catalogue, ids) = catalogue(&args.places, &args.tasks)?;
    let mut asked = Vec::new();
    // What cannot be asked is said before anything is.
    for id in expanded(&catalogue, &ids)? {
        let task = catalogue.task(&id)?;
        let folder = roots(&args.places).folder(task)?;
        let loader = Loader::new(&task.spec, folder, Limits::default());
        loader.split(&args.split)?;
        let settings = settings(args, style, &task.spec);
        let asking = ask::questions(&task.spec, &loader, &settings)?;
        asked.push((id, task, loader, asking));
    }
    let total: usize = asked.iter().map(|(.., a)| a.questions.len()).sum();
    ui.event(&json!({"type": "plan", "endpoint": address, "model": model, "tasks": asked.len(), "requests": total}));
    let mut entries: Entries = Vec::new();
    for (id, task, loader, asking) in &asked {
        let texts = answered(&endpoint, asking, id, args, &mut kept, ui)?;
        let (answers, unread) = asking.answers(&who.path, &who.hash, &texts);
        if unread > 0 {
            ui.note(&format!(
                "{id}: {unread} answers hold no number and are left out"
            ));
        }
        let hash = task_hash(&task.spec, &loader.hashes()?);
        // The same words under the same settings make the same scores.
        let said = sha256_text(&json!(texts).to_string());
        let mut options = options(args)?;
        options.allow_partial |= unread > 0;
        let key = key(
            &format!("{hash} rows {:?} said {said}", args.limit),
            &who,
            &options,
        );
        if let Some(found) = output.unchanged(&key).filter(|_| !args.force) {
            reused(id, ui);
            entries.extend(found);
            continue;
        }
        if answers.rows.is_empty() {
            return Err(MergeError::plan(
                "bad-answers",
                format!("no answer on task `{id}` holds a number"),
            )
            .at(kept.path.display().to_string())
            .hint("the file shows what was asked and answered")
            .into());
        }
        let scored = score(&task.spec, loader, &hash, &answers, &options)?;
        entries.extend(output.add(id, &key, &scored)?);
        output.write()?;
    }
    output.write()?;
    tell(None, &entries, args.limit.is_none(), ui);
    ui.answer(&table(&entries, args));
    let lines = groups::told(&catalogue, &ids, &entries, ui)?;
    lines.iter().for_each(|line| ui.answer(line));
    ui.answer(&format!("results: {}", path.display()));
    done(&path.display().to_string(), entries.len(), ui);
    Ok(ExitCode::SUCCESS)
}

/// Answers to all questions of a task, those on disk first.
fn answered(
    endpoint: &Endpoint,
    asking: &Asking,
    task: &str,
    args: &EvalArgs,
    kept: &mut Kept,
    ui: &Ui,
) -> Result<Vec<String>, Failure> {
    let how = &asking.generation;
    let bodies: Vec<Value> = asking
        .questions
        .iter()
        .map(|q| {
            let seed = args.server.seed + u64::from(q.attempt);
            endpoint.request(&q.prompt, how.max_tokens, how.temperature, seed, &how.stop)
        })
        .collect();
    let keys: Vec<String> = bodies
        .iter()
        .map(|b| sha256_text(&format!("{}\n{b}", endpoint.address())))
        .collect();
    let open: Vec<usize> = (0..keys.len())
        .filter(|i| !kept.said.contains_key(&keys[*i]))
        .collect();
    let there = keys.len() - open.len();
    if there > 0 && !open.is_empty() {
        ui.note(&format!(
            "{task}: {there} of {} answers are there already",
            keys.len()
        ));
    }
    let progress = ui.steps("asking", keys.len() as u64);
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (send, receive) = mpsc::channel();
    let mut failed: Option<Failure> = None;
    std::thread::scope(|scope| {
        for _ in 0..(args.server.concurrency as usize).min(open.len()) {
            let send = send.clone();
            let (open, bodies, next, stop) = (&open, &bodies, &next, &stop);
            scope.spawn(move || {
                let stopped = || stop.load(Ordering::Relaxed);
                while let Some(&i) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if stopped() || send.send((i, endpoint.ask(&bodies[i], &stopped))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut at = there;
        for (i, said) in receive {
            let written = said.map_err(Failure::from).and_then(|text| {
                let question = &asking.questions[i];
                let line = json!({
                    "key": keys[i], "task": task, "id": question.id, "prompt": question.prompt, "response": text,
                });
                kept.add(&keys[i], text, &line).map_err(Failure::from)
            });
            match written {
                Ok(()) => at += 1,
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    failed.get_or_insert(error);
                }
            }
            progress.at(at as u64, task);
        }
    });
    progress.end();
    if let Some(error) = failed {
        return Err(error);
    }
    let text = |key: &String| kept.said.get(key).cloned().unwrap_or_default();
    Ok(keys.iter().map(text).collect())
}

/// Answers on disk, one JSON object a line; a line that a stop cut off is no answer.
struct Kept {
    path: PathBuf,
    said: HashMap<String, String>,
    file: Option<std::fs::File>,
}

impl Kept {
    fn open(path: &Path) -> Result<Self, MergeError> {
        let mut said = HashMap::new();
        if path.exists() {
            let bytes =
                std::fs::read(path).map_err(|e| polyloom_core::Error::io(path, "read", e))?;
            for line in String::from_utf8_lossy(&bytes).lines() {
                let line: Value = serde_json::from_str(line).unwrap_or_default();
                if let (Some(key), Some(text)) = (line["key"].as_str(), line["response"].as_str()) {
                    said.insert(key.to_owned(), text.to_owned());
                }
            }
        }
        Ok(Self {
            path: path.to_owned(),
            said,
            file: None,
        })
    }

    fn add(&mut self, key: &str, text: String, line: &Value) -> Result<(), MergeError> {
        let io = |e| polyloom_core::Error::io(&self.path, "write", e);
        if self.file.is_none() {
            if let Some(folder) = self.path.parent().filter(|f| !f.as_os_str().is_empty()) {
                std::fs::create_dir_all(folder).map_err(io)?;
            }
            let mut open = std::fs::OpenOptions::new();
            let mut file = open
                .create(true)
                .append(true)
                .open(&self.path)
                .map_err(io)?;
            // A line that was cut off must not run into the next.
            if file.metadata().map_err(io)?.len() > 0 {
                file.write_all(b"\n").map_err(io)?;
            }
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            file.write_all(format!("{line}\n").as_bytes()).map_err(io)?;
        }
        self.said.insert(key.to_owned(), text);
        Ok(())
    }
}
