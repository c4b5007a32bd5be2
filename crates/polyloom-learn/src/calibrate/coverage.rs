//! How many rows of a split intervals hold.

use polyloom::evaluate::board::score::examples::Wanted;
use polyloom::evaluate::statistics::proportion::{ProportionMethod, proportion};

use super::conformal::Level;
use crate::tasks::Head;
use crate::tasks::forward::Output;
use crate::tasks::head::HeadKind;

/// The distance of an answer from what is right, as [`super::OfHead::errors`] counts it: `None` where nothing is right, and
/// for sets of labels.
#[must_use]
pub fn error(said: &[f32], wanted: Option<&Wanted>) -> Option<f64> {
    match wanted? {
        Wanted::Number(y) => Some((y - f64::from(*said.first()?)).abs()),
        Wanted::Class(class) => Some(1.0 - f64::from(*said.get(*class as usize)?)),
        Wanted::Set(_) | Wanted::Relevant { .. } | Wanted::Map { .. } => None,
    }
}

/// In a line, the share of rows that intervals of a level hold, with its 95 % interval (Wilson's); `None` where nothing was
/// fitted for the head, or too few rows for the level.
#[must_use]
pub fn told(
    head: &Head,
    said: &[Output],
    wanted: &[Option<Wanted>],
    level: Level,
) -> Option<String> {
    let of = head.calibration.as_ref()?;
    let most = of.errors.quantile(level, &head.task).ok()?;
    let errors = said.iter().zip(wanted);
    let errors: Vec<f64> = errors.filter_map(|(s, w)| error(s, w.as_ref())).collect();
    let (n, held) = (errors.len(), errors.iter().filter(|e| **e <= most).count());
    let spread = proportion(held as u64, n as u64, 0.95, ProportionMethod::Wilson).ok()?;
    let what = match head.kind {
        HeadKind::Regression => format!("intervals of {} (± {most:.4})", level.shown()),
        _ => format!("sets of classes of {}", level.shown()),
    };
    Some(format!(
        "{}: {what} hold {held} of {n} rows: {:.1} % ({:.1} .. {:.1})",
        head.task,
        100.0 * held as f64 / n as f64,
        100.0 * spread.low,
        100.0 * spread.high
    ))
}
