//! What can be typed after `polyloom calibrate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use polyloom_learn::calibrate::Rule;

use crate::args_tasks::Places;

/// `polyloom calibrate`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom calibrate people -t people.task.toml
  polyloom calibrate people -t people.task.toml --method isotonic --threshold f1
  polyloom calibrate people -t people.task.toml --threshold rich=cost=1:5 --threshold clicked=0.3 --force
  polyloom calibrate people -t people.task.toml --method none --threshold youden --dry-run
  polyloom predict people new.csv --interval 90%

It writes calibration.json beside the weights; predict, eval and inspect use it from then on. Remove the file, and the
model answers as it did before.")]
pub struct CalibrateArgs {
    /// A model of tables, networks or trees, that `polyloom train` wrote
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// The task that it learned: an id or a spec file, whose validation rows are used [default: those of its heads]
    #[arg(
        short,
        long = "task",
        visible_alias = "tasks",
        value_name = "TASK",
        value_delimiter = ','
    )]
    pub tasks: Vec<String>,
    /// Only these targets [default: all]
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub targets: Vec<String>,
    /// How probabilities are calibrated
    #[arg(long, value_name = "NAME", default_value = "temperature")]
    pub method: MethodArg,
    /// Answer the second of two classes from the probability on that is best for f1, balanced_accuracy, youden or cost=FP:FN
    /// (costs of a false positive and a false negative), or from this one on; TARGET=RULE for one target (repeatable)
    #[arg(long, value_name = "[TARGET=]RULE", value_parser = cut)]
    pub threshold: Vec<(Option<String>, Rule)>,
    /// Fit and measure, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Replace what was fitted before, all of it
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub places: Places,
}

/// How probabilities are calibrated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MethodArg {
    /// Logits divided by one number for each target: keeps the order of answers, needs few rows
    Temperature,
    /// A curve that never falls, of two classes: follows any shape, wants a thousand rows
    Isotonic,
    /// Probabilities stay as they are
    None,
}

/// `RULE` or `TARGET=RULE`.
fn cut(text: &str) -> Result<(Option<String>, Rule), String> {
    let all = Rule::parse(text);
    match (all, text.split_once('=')) {
        (Ok(rule), _) => Ok((None, rule)),
        (Err(_), Some((target, rule))) if target != "cost" => {
            Ok((Some(target.to_owned()), Rule::parse(rule)?))
        }
        (Err(error), _) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_may_name_their_target() {
        let of = |target: &str, rule| Ok((Some(target.to_owned()), rule));
        assert_eq!(cut("f1"), Ok((None, Rule::F1)));
        assert_eq!(cut("cost=1:5"), Ok((None, Rule::Cost(1.0, 5.0))));
        assert_eq!(cut("rich=0.3"), of("rich", Rule::Fixed(0.3)));
        assert_eq!(cut("rich=cost=1:5"), of("rich", Rule::Cost(1.0, 5.0)));
        assert_eq!(
            cut("cost=cost=2:1"),
            Err("`cost=2:1` are no two costs FP:FN from 0 on, such as 1:5".into())
        );
        assert!(cut("rich=f9").is_err() && cut("cost=1").is_err());
    }
}
