//! `polyloom quickstart`: from nothing to experts, merges, a board and a report, by the commands that a user would type.

mod files;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use polyloom::MergeError;
use serde_json::{Value, json};

use crate::args::Cli;
use crate::args_quickstart::QuickstartArgs;
use crate::ui::{Failure, Ui};

/// The tasks, in the order of the board.
const TASKS: [&str; 7] = [
    "digits",
    "sign_digits",
    "fashion_mnist_900",
    "omniglot_greek",
    "omniglot_latin",
    "omniglot_japanese_katakana",
    "omniglot_korean",
];

/// Merges: the name of the folder, and what follows `polyloom merge recipes/merge.toml`. The numbers were
/// fixed beforehand, near the papers' and the registry's defaults; none was chosen on these data.
const MERGES: [(&str, &[&str]); 8] = [
    ("average", &["--method", "linear"]),
    (
        "task_arithmetic",
        &["--method", "task_arithmetic", "--shared", "lambda=0.4"],
    ),
    (
        "ties",
        &[
            "--method",
            "ties_reference",
            "--shared",
            "density=0.2",
            "--shared",
            "lambda=1.0",
        ],
    ),
    (
        "breadcrumbs",
        &[
            "--method",
            "breadcrumbs_reference",
            "--shared",
            "lambda=0.5",
        ],
    ),
    (
        "pcb",
        &[
            "--method",
            "pcb",
            "--shared",
            "ratio=0.1",
            "--shared",
            "lambda=1.2",
        ],
    ),
    (
        "consensus",
        &["--method", "consensus", "--shared", "lambda=0.4"],
    ),
    ("lines", &["--method", "lines", "--shared", "beta=0.6"]),
    ("tsv_m", &["--method", "tsv_m"]),
];

/// Stores of deltas, whose models are restored for a task that is known.
const BUNDLES: [&str; 2] = ["tall", "emr"];

/// Runs the command.
pub fn run(args: &QuickstartArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let folder = &args.output;
    if folder.exists() && !args.force {
        let error = MergeError::plan("output-exists", "exists already");
        return Err(error
            .at(folder.display().to_string())
            .hint("choose another folder (-o DIR), or --force to replace it")
            .into());
    }
    if folder.exists() {
        remove(folder)?;
    }
    files::unpack(folder, !args.from_scratch)?;
    let here = std::env::current_dir().map_err(|e| polyloom_core::Error::io(".", "read", e))?;
    std::env::set_current_dir(folder).map_err(|e| polyloom_core::Error::io(folder, "open", e))?;
    let mut script = Script {
        ui,
        muted: ui.muted(),
        done: Vec::new(),
        began,
    };
    let result = script.all(args);
    std::env::set_current_dir(&here).map_err(|e| polyloom_core::Error::io(&here, "open", e))?;
    result?;
    let shown = folder.display();
    let report = folder.join("report.html");
    let seconds = began.elapsed().as_secs_f64();
    ui.answer(&format!(
        "\n{shown}/report.html   the same as a page, with intervals, charts and every answer\n\n\
         Everything lies in {shown}/ to go on with ({seconds:.0} s; README.md says what is what). Try next:\n  \
         cd {shown}\n  \
         polyloom merge recipes/merge.toml --method ties --each density=0.3 -o merges/mine\n  \
         polyloom eval merges/mine --heads heads --catalogue data -o results/\n  \
         polyloom board results/*.json\n  \
         polyloom diff --base base experts/digits experts/omniglot_greek\n  \
         polyloom train recipes/experts.toml --epochs 10 -o stronger",
    ));
    ui.event(&json!({"type": "done", "output": folder, "report": report, "seconds": seconds, "commands": script.done}));
    Ok(ExitCode::SUCCESS)
}

fn remove(folder: &Path) -> Result<(), Failure> {
    // Only what this command made is taken away.
    if !folder.join(files::MARK).exists() {
        let error = MergeError::plan(
            "output-exists",
            "was not made by quickstart and is not removed",
        );
        return Err(error
            .at(folder.display().to_string())
            .hint("-o DIR chooses another folder")
            .into());
    }
    std::fs::remove_dir_all(folder).map_err(|e| polyloom_core::Error::io(folder, "remove", e))?;
    Ok(())
}

fn specs() -> Vec<String> {
    TASKS
        .iter()
        .map(|t| format!("data/{t}/task.toml"))
        .collect()
}

struct Script<'u> {
    ui: &'u Ui,
    muted: Ui,
    /// Commands, as one would type them.
    done: Vec<String>,
    began: Instant,
}

impl Script<'_> {
    fn all(&mut self, args: &QuickstartArgs) -> Result<(), Failure> {
        let seed = args.seed.to_string();
        if args.from_scratch {
            self.say("training the base on half of the classes of every task");
            self.run(&["train", "recipes/base.toml", "-o", "base", "--seed", &seed])?;
        }
        self.say(&format!("tuning {} experts, one per task", TASKS.len()));
        self.run(&[
            "train",
            "recipes/experts.toml",
            "-o",
            "experts",
            "--seed",
            &seed,
        ])?;
        self.say("training one model on all tasks together");
        self.run(&[
            "train",
            "recipes/joint.toml",
            "-o",
            "joint",
            "--seed",
            &seed,
        ])?;
        collect_heads()?;
        self.say(&format!("merging by {} methods", MERGES.len()));
        for (name, flags) in MERGES {
            let out = format!("merges/{name}");
            let mut words = vec!["merge", "recipes/merge.toml"];
            words.extend(flags);
            words.extend(["-o", &out]);
            self.run(&words)?;
        }
        self.say("storing deltas as masks, and restoring the model of every task");
        for method in BUNDLES {
            let bundle = format!("bundles/{method}");
            self.run(&[
                "compress",
                "recipes/merge.toml",
                "--method",
                method,
                "-o",
                &bundle,
            ])?;
            for task in TASKS {
                let out = format!("restored/{method}/{task}");
                self.run(&["compress", "restore", &bundle, "--task", task, "-o", &out])?;
            }
        }
        self.say("scoring every model on every task");
        let specs = specs().join(",");
        let mut systems = vec!["base".to_owned(), "joint".to_owned()];
        systems.extend(MERGES.iter().map(|(name, _)| format!("merges/{name}")));
        let mut words = vec!["eval"];
        words.extend(systems.iter().map(String::as_str));
        words.extend(["-t", &specs, "--heads", "heads", "-o", "results/"]);
        self.run(&words)?;
        let experts: Vec<String> = TASKS.iter().map(|t| format!("experts/{t}")).collect();
        let mut words = vec!["eval"];
        words.extend(experts.iter().map(String::as_str));
        words.extend(["-t", &specs, "--heads", "heads", "-o", "results/each/"]);
        self.run(&words)?;
        own_tasks("results/each", "results/experts.json", "experts", TASKS)?;
        for method in BUNDLES {
            let into = format!("results/{method}/");
            for task in TASKS {
                let model = format!("restored/{method}/{task}");
                let spec = format!("data/{task}/task.toml");
                self.run(&["eval", &model, "-t", &spec, "--heads", "heads", "-o", &into])?;
            }
            let known = format!("{method} (task known)");
            own_tasks(&into, &format!("results/{method}.json"), &known, TASKS)?;
        }
        let files = files::results(&MERGES.map(|(name, _)| name), &BUNDLES);
        self.say("");
        let mut words = vec!["board"];
        words.extend(files.iter().map(String::as_str));
        words.extend([
            "--aggregate",
            "mean,normalised,win_rate",
            "--expert",
            "results/experts.json",
        ]);
        self.shown(&words)?;
        let mut words = vec!["report"];
        words.extend(files.iter().map(String::as_str));
        words.extend([
            "-o",
            "report.html",
            "--expert",
            "results/experts.json",
            "--baseline",
            "base",
            "--title",
            "Quickstart: seven tasks in one model",
        ]);
        self.run(&words)?;
        files::commands(&self.done)
    }

    fn say(&self, what: &str) {
        if !what.is_empty() {
            let seconds = self.began.elapsed().as_secs();
            self.ui.say(&format!("{seconds:>4} s  {what}"));
        }
        self.ui.event(&json!({"type": "progress", "stage": what, "seconds": self.began.elapsed().as_secs_f64()}));
    }

    /// Runs a command quietly.
    fn run(&mut self, words: &[&str]) -> Result<(), Failure> {
        let cli = self.parsed(words)?;
        super::run(cli, &self.muted).map(|_| ())
    }

    /// Runs a command whose answer is shown.
    fn shown(&mut self, words: &[&str]) -> Result<(), Failure> {
        let cli = self.parsed(words)?;
        super::run(cli, self.ui).map(|_| ())
    }

    fn parsed(&mut self, words: &[&str]) -> Result<Cli, Failure> {
        let quoted = |w: &&str| match w.contains([' ', '(', ')']) {
            true => format!("\"{w}\""),
            false => (*w).to_owned(),
        };
        let line: Vec<String> = words.iter().map(quoted).collect();
        self.done.push(format!("polyloom {}", line.join(" ")));
        let typed = std::iter::once("polyloom").chain(words.iter().copied());
        Cli::read(typed.map(Into::into)).map_err(|e| {
            MergeError::Internal(format!("quickstart types a wrong command: {e}")).into()
        })
    }
}

/// Puts the experts' heads side by side: they were fitted to the base and are those of all models but the joint one.
fn collect_heads() -> Result<(), Failure> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |e| polyloom_core::Error::io(&path, "copy", e)
    };
    std::fs::create_dir_all("heads").map_err(io(Path::new("heads")))?;
    for task in TASKS {
        let from = PathBuf::from(format!("experts/{task}/heads/{task}.safetensors"));
        let to = format!("heads/{task}.safetensors");
        std::fs::copy(&from, to).map_err(io(&from))?;
    }
    Ok(())
}

/// A results file with every task's entry from the system that was made for it.
fn own_tasks(from: &str, to: &str, name: &str, tasks: [&str; 7]) -> Result<(), Failure> {
    let folder = Path::new(from);
    let mut whole: Option<Value> = None;
    for task in tasks {
        let file = folder.join(format!("{task}.json"));
        let mut one: Value = polyloom_core::checkpoint::read_json(&file)?;
        let mut entry = one["tasks"][task].take();
        if let Some(samples) = entry["samples"].as_str() {
            // Records stay where they are; the new file lies one folder above.
            let inner = folder.file_name().unwrap_or_default().to_string_lossy();
            entry["samples"] = format!("{inner}/{samples}").into();
        }
        let whole = whole.get_or_insert_with(|| {
            let mut first = one.clone();
            first["tasks"] = json!({});
            first["model"] = json!({"name": name, "path": from, "hash": ""});
            first
        });
        whole["tasks"][task] = entry;
    }
    let text = serde_json::to_string_pretty(&whole)
        .map_err(|e| MergeError::Internal(format!("{to}: {e}")))?;
    super::replace(Path::new(to), &format!("{text}\n"))?;
    Ok(())
}
