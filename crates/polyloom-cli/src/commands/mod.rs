//! One file per command.

mod adapt;
mod board;
mod calibrate;
mod compare;
mod compress;
mod convert;
mod diag;
mod diff;
mod eval;
mod export;
mod fuse;
mod look;
mod merge;
mod metrics;
mod predict;
mod quickstart;
mod report;
mod route;
mod run;
mod stats;
mod tasks;
mod train;
mod tune;
mod weave;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use clap::CommandFactory;
use polyloom::MergeError;

use crate::args::{Cli, Command, ReferencePage};
use crate::hub::Hub;
use crate::ui::{Failure, Ui};

/// Runs a command.
pub fn run(args: Cli, ui: &Ui) -> Result<ExitCode, Failure> {
    if let Some(threads) = args.global.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|e| Failure::Other(anyhow::anyhow!("cannot start {threads} threads: {e}")))?;
    }
    within(args, ui)
}

/// Runs the words of a command that another one types, with the threads of that one.
fn typed(words: &[String], ui: &Ui) -> Result<(), Failure> {
    let all = std::iter::once("polyloom").chain(words.iter().map(String::as_str));
    let read = Cli::read(all.map(Into::into))
        .map_err(|e| MergeError::Internal(format!("a wrong command was typed: {e}")))?;
    within(read, ui).map(|_| ())
}

fn within(args: Cli, ui: &Ui) -> Result<ExitCode, Failure> {
    let hub = |dry_run| Hub {
        download: args.global.download,
        dry_run,
    };
    let fetches = matches!(
        args.command,
        Command::Merge(_)
            | Command::Adapt(_)
            | Command::Convert(_)
            | Command::Compress(_)
            | Command::Diff(_)
            | Command::Inspect(_)
            | Command::Run(_)
            | Command::Eval(_)
            | Command::Predict(_)
            | Command::Train(_)
            | Command::Stats(_)
            | Command::Route(_)
            | Command::Tune(_)
    );
    if args.global.download && !fetches {
        ui.note("no effect here: --download");
    }
    match args.command {
        Command::Merge(args) => merge::run(*args, hub, ui),
        Command::Adapt(args) => adapt::run(args, hub, ui),
        Command::Convert(args) => convert::run(&args, hub, ui),
        Command::Compress(args) => compress::run(*args, hub, ui),
        Command::Board(args) => board::run(&args, ui),
        Command::Report(args) => report::run(&args, ui),
        Command::Run(args) => run::run(&args, hub, ui),
        Command::Predict(args) => predict::run(&args, hub(false), ui),
        Command::Calibrate(args) => calibrate::run(&args, ui),
        Command::Export(args) => export::run(&args, ui),
        Command::Compare(args) => compare::run(&args, ui),
        Command::Eval(args) => eval::run(&args, hub, ui),
        Command::Diag(args) => diag::run(&args, ui),
        Command::Diff(args) => diff::run(&args, hub, ui),
        Command::Inspect(args) => look::inspect(&args, hub(false), ui),
        Command::Quickstart(args) => quickstart::run(&args, ui),
        Command::Train(args) => train::run(&args, hub, ui),
        Command::Stats(args) => stats::run(&args, hub, ui),
        Command::Tune(args) => tune::run(&args, hub, ui),
        Command::Route(args) => route::run(&args, hub, ui),
        Command::Tasks(args) => tasks::run(args, ui),
        Command::Doctor(args) => Ok(look::doctor(args, ui)),
        Command::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "polyloom", &mut out);
            ui.answer(&String::from_utf8_lossy(&out));
            Ok(ExitCode::SUCCESS)
        }
        Command::Metrics { name } => metrics::run(name.as_deref(), ui),
        Command::Reference { page } => {
            let text = match page {
                ReferencePage::Methods => polyloom::reference::methods_page(),
                ReferencePage::Metrics => polyloom::evaluate::metric::page::metrics_page(),
                ReferencePage::Balancers => polyloom_learn::balance::page::balancers_page(),
                ReferencePage::Architectures => {
                    polyloom_learn::models::table::page::architectures_page()
                }
            };
            ui.answer(text.trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            let mut out = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut out)
                .map_err(|e| Failure::Other(anyhow::anyhow!("manual page: {e}")))?;
            ui.answer(&String::from_utf8_lossy(&out));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Writes a file so that it is there whole or not at all.
pub fn replace(file: &Path, content: &str) -> Result<(), polyloom_core::Error> {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    std::fs::write(part, content)
        .and_then(|()| std::fs::rename(part, file))
        .map_err(|e| {
            let _ = std::fs::remove_file(part);
            polyloom_core::Error::io(file, "write", e)
        })
}

/// A flag that the first Ctrl-C raises (stop after the current chunk or step); the second ends the program at once.
pub fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    static RAISED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    if let Some(raised) = RAISED.get() {
        return Ok(raised.clone());
    }
    let raised = RAISED.get_or_init(Arc::default).clone();
    let seen = raised.clone();
    ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::SeqCst) {
            #[allow(clippy::exit, reason = "the user asked twice")]
            std::process::exit(130);
        }
    })
    .map_err(|e| Failure::Other(anyhow::anyhow!("cannot watch for Ctrl-C: {e}")))?;
    Ok(raised)
}
