//! What `polyloom train` shows while it runs.

use std::path::Path;
use std::time::Instant;

use polyloom_learn::train::run::{Step, Told};
use serde_json::json;

use super::{scores, seen};
use crate::ui::Ui;

/// The progress line.
pub struct Line<'a> {
    ui: &'a Ui,
    bar: Option<crate::ui::Running>,
    each: bool,
    mean: Option<f64>,
    told: Instant,
}

impl<'a> Line<'a> {
    /// Before anything is told; `each`: runs have folders of their own.
    pub fn new(ui: &'a Ui, each: bool) -> Self {
        Self {
            ui,
            bar: ui.running(),
            each,
            mean: None,
            told: Instant::now(),
        }
    }

    /// Shows what happened.
    pub fn tell(&mut self, folder: &Path, told: &Told) {
        match told {
            Told::Begun {
                trained,
                all,
                rows,
                epochs,
                steps,
                from,
            } => {
                self.mean = None;
                let list: Vec<String> = rows.iter().map(|(t, n)| format!("{t} {n}")).collect();
                let place = match self.each {
                    true => format!("{}: ", folder.display()),
                    false => String::new(),
                };
                let from = match from {
                    0 => String::new(),
                    n => format!(", from step {n}"),
                };
                let what = match (*trained, *steps) {
                    (0, 0) => format!("growing trees on {} rows", list.join(" + ")),
                    _ => format!(
                        "training {:.2} of {:.2} M numbers on {} rows, {steps} steps{from}",
                        *trained as f64 / 1e6,
                        *all as f64 / 1e6,
                        list.join(" + "),
                    ),
                };
                self.ui.say(&format!("{place}{what}"));
                if !epochs.is_empty() {
                    let list = epochs.iter().map(|(t, x)| (t, *x));
                    self.ui.detail(&format!("expected epochs: {}", seen(list)));
                }
                self.ui.event(&json!({"type": "begin", "folder": folder, "trained": trained, "numbers": all, "rows": rows.iter().map(|(t, n)| (t.clone(), json!(n))).collect::<serde_json::Map<_, _>>(), "epochs": epochs.iter().map(|(t, x)| (t.clone(), json!(x))).collect::<serde_json::Map<_, _>>(), "steps": steps, "from": from}));
            }
            Told::Stage {
                number: (number, count),
                tasks,
                steps,
                heads,
            } => {
                let what = if *heads { ", heads alone" } else { "" };
                let text = format!(
                    "stage {number} of {count}: {}, {steps} steps{what}",
                    tasks.join(", ")
                );
                match &self.bar {
                    Some(bar) => bar.above(&text),
                    None => self.ui.say(&text),
                }
                self.ui.event(&json!({"type": "stage", "stage": number, "stages": count, "tasks": tasks, "steps": steps, "heads": heads}));
            }
            Told::Labelled(counts) => {
                for (head, [got, of]) in counts {
                    self.ui.say(&format!(
                        "{head}: {got} of {of} rows without a label got one from a teacher"
                    ));
                }
                let counts: serde_json::Map<String, serde_json::Value> = counts
                    .iter()
                    .map(|(head, [got, of])| (head.clone(), json!({"labelled": got, "lacked": of})))
                    .collect();
                self.ui.event(&json!({"type": "pseudo", "heads": counts}));
            }
            Told::Step(step) => {
                if let Some(bar) = &self.bar {
                    bar.say(&self.shown(step));
                } else if self.ui.json && self.told.elapsed().as_secs() >= 1 {
                    self.told = Instant::now();
                    self.ui.event(&json!({"type": "progress", "step": step.step, "steps": step.steps, "loss": step.loss, "losses": step.losses, "weights": step.weights, "seconds_left": step.left.round()}));
                }
            }
            Told::Evaluated(e) => {
                self.mean = Some(e.mean);
                let best = if e.best { ", the best so far" } else { "" };
                let text = format!("step {}{}{best}", e.step, scores(e));
                match &self.bar {
                    Some(bar) => bar.above(&text),
                    None => self.ui.detail(&text),
                }
                let tasks: serde_json::Map<String, serde_json::Value> = e
                    .tasks
                    .iter()
                    .map(|(name, (_, value, _))| (name.clone(), json!(value)))
                    .collect();
                self.ui.event(&json!({"type": "evaluation", "step": e.step, "mean": e.mean, "tasks": tasks, "best": e.best}));
            }
            Told::Saved(step) => self.ui.detail(&format!("checkpoint of step {step}")),
        }
    }

    /// `step 400/2000  loss 0.412 (banking77 0.61, mpqa 0.21)  val mean 0.861  eta 3m12s`
    fn shown(&self, step: &Step) -> String {
        let mut of_tasks: Vec<String> = step
            .losses
            .iter()
            .take(4)
            .map(|(t, l)| format!("{} {l:.2}", t.rsplit('/').next().unwrap_or(t)))
            .collect();
        if step.losses.len() > 4 {
            of_tasks.push("...".into());
        }
        let of_tasks = match step.losses.len() {
            0 | 1 => String::new(),
            _ => format!(" ({})", of_tasks.join(", ")),
        };
        // In the order of the tasks.
        let weights: Vec<String> = step
            .weights
            .values()
            .take(8)
            .map(|w| format!("{w:.2}"))
            .collect();
        let weights = match weights.is_empty() {
            true => String::new(),
            false => format!("  weights {}", weights.join("/")),
        };
        let mean = self
            .mean
            .map(|m| format!("  val mean {m:.3}"))
            .unwrap_or_default();
        format!(
            "step {}/{}  loss {:.3}{of_tasks}{weights}{mean}  eta {}",
            step.step,
            step.steps,
            step.loss,
            time(step.left)
        )
    }

    /// Nothing more is told.
    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.end();
        }
    }
}

fn time(seconds: f64) -> String {
    let s = seconds.round().max(0.0) as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
    }
}
