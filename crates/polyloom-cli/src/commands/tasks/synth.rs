//! `polyloom tasks synth`: generated tasks, as a spec or as files.

use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::tasks::synth::fields::{Fields, Geometry};
use polyloom::tasks::synth::log::Log;
use polyloom::tasks::synth::multitab::{Answer, Multitab};
use polyloom::tasks::synth::shapes::{Classes, Shapes};
use polyloom::tasks::synth::{self, Generator};
use serde_json::json;

use crate::args_synth::{ClassesArg, Common, GeometryArg, KindArg, SynthArg, SynthArgs};
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &SynthArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let (generator, common) = generator(&args.generator);
    generator.check().map_err(|fault| {
        let text = format!("--{}: {}", fault.option, fault.message);
        MergeError::plan("bad-flag", text)
    })?;
    let spec = generator.spec();
    let Some(folder) = &common.output else {
        ui.answer(&super::toml(&spec)?);
        ui.event(&json!({"type": "done", "task": spec.id, "synthetic": true, "spec": spec}));
        return Ok(ExitCode::SUCCESS);
    };
    let (folder, files) = synth::write(&generator, folder, common.force, &mut |_| Ok(()))?;
    for file in &files {
        let path = folder.join(&file.file);
        ui.say(&format!("{}   {} rows", path.display(), file.rows));
        ui.event(&json!({"type": "part", "file": path, "rows": file.rows}));
    }
    if files.iter().any(|f| f.file == "truth.parquet") {
        ui.note("truth.parquet holds the true probabilities: for judges, never for learners");
    }
    ui.answer(&folder.display().to_string());
    ui.event(&json!({
        "type": "done", "task": spec.id, "synthetic": true, "output": folder,
        "source": generator.source(),
    }));
    Ok(ExitCode::SUCCESS)
}

fn generator(args: &SynthArg) -> (Generator, &Common) {
    match args {
        SynthArg::Shapes(a) => {
            let options = Shapes {
                seed: a.common.seed,
                count: a.count,
                missing: a.missing,
                noise: a.noise,
                classes: match a.classes {
                    ClassesArg::Shape => Classes::Shape,
                    ClassesArg::Colour => Classes::Colour,
                },
            };
            (Generator::Shapes(options), &a.common)
        }
        SynthArg::Fields(a) => {
            let options = Fields {
                seed: a.common.seed,
                count: a.count,
                geometry: match a.geometry {
                    GeometryArg::Seen => Geometry::Seen,
                    GeometryArg::Rectangle => Geometry::Rectangle,
                    GeometryArg::Disc => Geometry::Disc,
                    GeometryArg::Ellipse => Geometry::Ellipse,
                    GeometryArg::Corner => Geometry::Corner,
                    GeometryArg::Triangle => Geometry::Triangle,
                },
            };
            (Generator::Fields(options), &a.common)
        }
        SynthArg::Log(a) => {
            let options = Log {
                seed: a.common.seed,
                count: a.count,
                users: a.users,
                items: a.items,
                bias: a.bias,
            };
            (Generator::Log(options), &a.common)
        }
        SynthArg::Multitab(a) => {
            let options = Multitab {
                seed: a.common.seed,
                count: a.count,
                tasks: a.tasks,
                features: a.features,
                correlation: a.correlation,
                degrees: a.degrees.clone(),
                noise: a.noise,
                kind: match a.kind {
                    KindArg::Regression => Answer::Regression,
                    KindArg::Binary => Answer::Binary,
                    KindArg::Mixed => Answer::Mixed,
                },
                missing: a.missing,
                outliers: a.outliers,
            };
            (Generator::Multitab(options), &a.common)
        }
    }
}
