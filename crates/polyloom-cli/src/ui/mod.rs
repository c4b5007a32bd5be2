//! The only place that prints.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this module is the printer"
)]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use polyloom::MergeError;
use serde_json::{Value, json};

use crate::args::{Color, Global};

/// What follows an internal error.
const BUG: &str = "This is a bug in Polyloom. Please report it with the recipe and the output of `polyloom doctor --json`";

/// Why a command did not end well.
#[derive(Debug)]
pub enum Failure {
    /// Problems of the user's input, all of them.
    Problems(Vec<MergeError>),
    /// Anything else that could not run.
    Other(anyhow::Error),
}

impl From<MergeError> for Failure {
    fn from(error: MergeError) -> Self {
        Self::Problems(vec![error])
    }
}

impl From<Vec<MergeError>> for Failure {
    fn from(errors: Vec<MergeError>) -> Self {
        Self::Problems(errors)
    }
}

impl From<polyloom_learn::Error> for Failure {
    fn from(error: polyloom_learn::Error) -> Self {
        use polyloom_learn::Error as E;
        match error {
            E::Core(error) => error.into(),
            E::Merge(error) => error.into(),
            E::File { file, what, hint } => {
                let error = MergeError::plan("bad-model", what).at(file.display().to_string());
                match hint {
                    Some(hint) => error.hint(hint).into(),
                    None => error.into(),
                }
            }
            other => MergeError::plan("bad-model", other.to_string()).into(),
        }
    }
}

impl From<polyloom_core::Error> for Failure {
    fn from(error: polyloom_core::Error) -> Self {
        Self::Problems(vec![error.into()])
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Printer, verbosity, colour, progress.
pub struct Ui {
    /// JSON lines on stdout.
    pub json: bool,
    quiet: u8,
    verbose: u8,
    colour: bool,
    progress: bool,
    /// Nothing but warnings and errors is told.
    muted: bool,
}

impl Ui {
    /// The same for commands that are steps of another: they tell warnings and errors alone.
    pub fn muted(&self) -> Self {
        Self {
            json: false,
            quiet: 1,
            verbose: 0,
            colour: self.colour,
            progress: false,
            muted: true,
        }
    }

    /// From the global options.
    pub fn new(global: &Global) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let colour = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        };
        Self {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
            colour,
            progress: terminal
                && !global.no_progress
                && !global.json
                && global.quiet == 0
                && global.verbose == 0,
            muted: false,
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// The answer: stdout.
    pub fn answer(&self, text: &str) {
        if !self.json && !self.muted {
            print_out(text);
        }
    }

    /// One JSON event; nothing without `--json`.
    pub fn event(&self, value: &Value) {
        if self.json {
            print_out(&value.to_string());
        }
    }

    /// A remark: stderr, hidden by `-q`.
    pub fn note(&self, text: &str) {
        if self.json {
            self.event(&json!({"type": "note", "text": text}));
        } else if self.quiet == 0 {
            eprintln!("{} {text}", self.paint("1;36", "note:"));
        }
    }

    /// A warning: something was changed for the user; hidden by `-qq`.
    pub fn warning(&self, text: &str) {
        if self.json {
            self.event(&json!({"type": "warning", "text": text}));
        } else if self.quiet < 2 {
            eprintln!("{} {text}", self.paint("1;33", "warning:"));
        }
    }

    /// Detail, shown with `-v`.
    pub fn detail(&self, text: &str) {
        if self.verbose > 0 && !self.json {
            eprintln!("{text}");
        }
    }

    /// Plain text on stderr, hidden by `-q`.
    pub fn say(&self, text: &str) {
        if self.quiet == 0 && !self.json {
            eprintln!("{text}");
        }
    }

    /// Ends with an error.
    pub fn fail(&self, failure: Failure) -> ExitCode {
        match failure {
            Failure::Problems(errors) => {
                let mut code = 2;
                for error in &errors {
                    match error {
                        MergeError::Internal(_) => code = 70,
                        MergeError::Core(polyloom_core::Error::Interrupted) => code = 130,
                        _ => {}
                    }
                    self.problem(error);
                }
                ExitCode::from(code)
            }
            Failure::Other(error) => {
                if self.json {
                    self.event(
                        &json!({"type": "error", "code": "other", "message": format!("{error:#}")}),
                    );
                } else {
                    eprintln!("{} {error:#}", self.paint("1;31", "error:"));
                }
                ExitCode::from(2)
            }
        }
    }

    fn problem(&self, error: &MergeError) {
        if self.json {
            let mut event = json!({"type": "error", "code": error.code(), "message": error.to_string(), "hints": error.hints()});
            match error {
                MergeError::Plan {
                    place: Some(place), ..
                } => event["file"] = json!(place),
                MergeError::NonFinite {
                    file,
                    tensor,
                    index,
                    ..
                } => {
                    event["file"] = json!(file);
                    event["tensor"] = json!(tensor);
                    event["index"] = json!(index);
                }
                MergeError::Core(polyloom_core::Error::Tensor { path, tensor, .. }) => {
                    event["file"] = json!(path);
                    event["tensor"] = json!(tensor);
                }
                MergeError::Core(
                    polyloom_core::Error::Format { path, .. }
                    | polyloom_core::Error::Full { path, .. }
                    | polyloom_core::Error::Io { path, .. },
                ) => {
                    event["file"] = json!(path);
                }
                _ => {}
            }
            self.event(&event);
            return;
        }
        eprintln!("{}", self.told(error));
    }

    /// An error as people read it: what, then the fixes.
    fn told(&self, error: &MergeError) -> String {
        if let MergeError::Internal(_) = error {
            return format!("{error}\n{BUG}");
        }
        let mut text = format!("{} {error}", self.paint("1;31", "error:"));
        for hint in error.hints() {
            text += &format!("\n{} {hint}", self.paint("1;36", "hint:"));
        }
        text
    }

    /// A line of words, on a terminal alone.
    pub fn running(&self) -> Option<Running> {
        self.progress.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                bar.set_style(style);
            }
            Running(bar)
        })
    }

    /// A progress line over `total` bytes.
    pub fn progress(&self, verb: &str, total: u64) -> Progress<'_> {
        let template =
            "{prefix}  [{bar:28}]  {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {wide_msg}";
        self.line(verb, total, "bytes", template)
    }

    /// A progress line over `total` steps of one kind.
    pub fn steps(&self, verb: &str, total: u64) -> Progress<'_> {
        self.line(
            verb,
            total,
            "step",
            "{prefix}  [{bar:28}]  {pos}/{len}  {wide_msg}",
        )
    }

    fn line(&self, verb: &str, total: u64, unit: &'static str, template: &str) -> Progress<'_> {
        let bar = self.progress.then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("##-"));
            }
            bar.set_prefix(verb.to_owned());
            bar
        });
        Progress {
            ui: self,
            bar,
            total,
            unit,
            last: Mutex::new(Instant::now()),
        }
    }
}

/// A line that says what goes on, in place of itself.
pub struct Running(ProgressBar);

impl Running {
    /// Says something else.
    pub fn say(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }

    /// Says something that stays, above the line.
    pub fn above(&self, text: &str) {
        self.0.println(text);
    }

    /// Removes the line.
    pub fn end(self) {
        self.0.finish_and_clear();
    }
}

/// A running progress line (or JSON `progress` events, at most one per second).
pub struct Progress<'a> {
    ui: &'a Ui,
    bar: Option<ProgressBar>,
    total: u64,
    unit: &'static str,
    last: Mutex<Instant>,
}

impl Progress<'_> {
    /// Bytes done so far, and what is being worked on.
    pub fn at(&self, done: u64, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            if let Ok(mut last) = self.last.try_lock()
                && last.elapsed().as_millis() > 100
            {
                *last = Instant::now();
                bar.set_message(what.to_owned());
            }
        } else if self.ui.json
            && let Ok(mut last) = self.last.try_lock()
            && last.elapsed().as_secs() >= 1
        {
            *last = Instant::now();
            let thing = if self.unit == "bytes" {
                "tensor"
            } else {
                "what"
            };
            self.ui.event(
                &json!({"type": "progress", (self.unit): done, "total": self.total, (thing): what}),
            );
        }
    }

    /// Removes the line.
    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Writes a line to stdout; a closed pipe ends the program quietly.
fn print_out(text: &str) {
    let mut out = std::io::stdout().lock();
    let result = out.write_all(text.as_bytes()).and_then(|()| {
        if text.ends_with('\n') {
            Ok(())
        } else {
            out.write_all(b"\n")
        }
    });
    if let Err(error) = result.and_then(|()| out.flush())
        && error.kind() == std::io::ErrorKind::BrokenPipe
    {
        quit(0);
    }
}

#[allow(
    clippy::exit,
    reason = "a closed pipe must end the program without a message"
)]
fn quit(code: i32) -> ! {
    std::process::exit(code)
}

/// Makes panics that come from a closed pipe (help text piped into `head`) end quietly, and those of decoders, which the
/// library turns into errors about a file, not be told at all.
pub fn quiet_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if polyloom::tasks::data::panics_are_caught() {
            return;
        }
        let text = info
            .payload()
            .downcast_ref::<String>()
            .cloned()
            .unwrap_or_default();
        if text.contains("Broken pipe") {
            quit(0);
        }
        default(info);
        eprintln!("{BUG}");
        quit(70);
    }));
}

/// Prints what clap has to say (help and version are answers, the rest are errors).
pub fn usage_error(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Ui {
        Ui {
            json: false,
            quiet: 0,
            verbose: 0,
            colour: false,
            progress: false,
            muted: false,
        }
    }

    #[test]
    fn an_internal_error_asks_for_a_report_and_ends_with_70() {
        let error = || MergeError::Internal("survey pass visited 198 of 199 tensors".into());
        assert_eq!(
            plain().told(&error()),
            "internal error: survey pass visited 198 of 199 tensors\n\
             This is a bug in Polyloom. Please report it with the recipe and the output of `polyloom doctor --json`"
        );
        assert_eq!(
            format!("{:?}", plain().fail(error().into())),
            format!("{:?}", ExitCode::from(70))
        );
    }

    #[test]
    fn hints_follow_the_error_and_colour_carries_no_meaning() {
        let error = MergeError::plan("x", "is odd")
            .at("a.toml:3:1")
            .hint("mend it");
        assert_eq!(
            plain().told(&error),
            "error: a.toml:3:1: is odd\nhint: mend it"
        );
        let painted = Ui {
            colour: true,
            ..plain()
        };
        assert_eq!(
            painted.told(&error),
            "\x1b[1;31merror:\x1b[0m a.toml:3:1: is odd\n\x1b[1;36mhint:\x1b[0m mend it"
        );
    }
}
