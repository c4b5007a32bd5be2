//! The `polyloom` command: arguments, messages, progress, exit codes. No logic worth testing alone lives here.

mod args;
mod args_adapt;
mod args_board;
mod args_calibrate;
mod args_compare;
mod args_compress;
mod args_diag;
mod args_diff;
mod args_endpoint;
mod args_eval;
mod args_export;
mod args_fuse;
mod args_predict;
mod args_quickstart;
mod args_report;
mod args_results;
mod args_route;
mod args_run;
mod args_stats;
mod args_synth;
mod args_tasks;
mod args_train;
mod args_tune;
mod commands;
mod endpoint;
mod hub;
mod ui;

use std::process::ExitCode;

fn main() -> ExitCode {
    ui::quiet_panics();
    polyloom_core::memory::return_large_buffers();
    let args = match args::Cli::read(args::spelled_as_habit(std::env::args_os())) {
        Ok(args) => args,
        Err(error) => return ui::usage_error(&error),
    };
    let ui = ui::Ui::new(&args.global);
    match commands::run(args, &ui) {
        Ok(code) => code,
        Err(failure) => ui.fail(failure),
    }
}
