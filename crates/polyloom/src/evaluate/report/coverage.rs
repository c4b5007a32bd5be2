//! Coverage: how many problems at least one of k attempts passes; of one system tried often, or of several systems.

use indexmap::IndexMap;

use super::calibration::lines;
use crate::evaluate::board::predictions::Predictions;
use crate::evaluate::metric::pass_at_k::{coverage, doublings};

/// Curves drawn at most.
const MOST: usize = 8;

/// A curve.
pub struct Coverage {
    /// Name of the system, or what the attempts are.
    pub name: String,
    /// k and the share of problems that at least one of k attempts passes.
    pub points: Vec<(f64, f64)>,
    /// The attempts are different systems, not repeated ones.
    pub systems: bool,
}

/// The curves that the data allow, systems in the order of the leaderboard.
pub fn of(
    attempts: &IndexMap<String, Vec<(u64, u64)>>,
    predictions: &IndexMap<String, Predictions>,
    order: &[String],
) -> Vec<Coverage> {
    let own = order.iter().filter_map(|name| {
        let points = curve(attempts.get(name)?)?;
        Some(Coverage {
            name: name.clone(),
            points,
            systems: false,
        })
    });
    let mut found: Vec<Coverage> = own.take(MOST).collect();
    if let Some((systems, points)) = together(predictions, order) {
        found.push(Coverage {
            name: format!("one of k of the {systems} systems"),
            points,
            systems: true,
        });
    }
    found
}

fn curve(problems: &[(u64, u64)]) -> Option<Vec<(f64, f64)>> {
    let most = problems.iter().map(|p| p.0).min()?;
    if most < 2 {
        return None;
    }
    let ks = doublings(most);
    let found = coverage(problems, &ks).ok()?;
    let points = ks.iter().zip(found);
    Some(points.filter_map(|(k, c)| Some((*k as f64, c?))).collect())
}

/// How often one of k systems, drawn from all, is right: what choosing the right system for each example could bring.
fn together(
    predictions: &IndexMap<String, Predictions>,
    order: &[String],
) -> Option<(usize, Vec<(f64, f64)>)> {
    let each: Vec<&Predictions> = order
        .iter()
        .filter_map(|name| predictions.get(name))
        .collect();
    if each.len() < 3 || each.iter().any(|p| !p.binary) {
        return None;
    }
    let mut problems = Vec::new();
    for (task, examples) in &each[0].tasks {
        for id in examples.keys() {
            let all = each.iter().map(|p| p.tasks.get(task)?.get(id));
            if let Some(all) = all.collect::<Option<Vec<_>>>() {
                let right = all.iter().filter(|e| e.value == 1.0).count();
                problems.push((each.len() as u64, right as u64));
            }
        }
    }
    Some((each.len(), curve(&problems)?))
}

/// The drawing and what it says.
pub fn section(found: &[Coverage]) -> String {
    let curves: Vec<(String, Vec<(f64, f64)>)> = found
        .iter()
        .map(|c| (c.name.clone(), c.points.clone()))
        .collect();
    let mut out = lines(&curves, "attempts k", "share of problems passed", true);
    if let Some(all) = found.iter().find(|c| c.systems)
        && let (Some(first), Some(last)) = (all.points.first(), all.points.last())
    {
        use std::fmt::Write as _;
        let _ = write!(
            out,
            "<p class=\"soft\">A system taken at random is right on {:.1} % of the examples, at least one of all on {:.1} %: no choice among them can do better.</p>",
            100.0 * first.1,
            100.0 * last.1
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_by_hand() {
        // Two problems, four attempts: 1 and 4 passes. At least one of 2 passes with 1 − C(3,2)/C(4,2) = 1/2, and 1.
        let found = curve(&[(4, 1), (4, 4)]).unwrap();
        assert_eq!(found, [(1.0, 0.625), (2.0, 0.75), (4.0, 1.0)]);
        assert_eq!(curve(&[(1, 1)]), None);
        assert_eq!(curve(&[]), None);
    }
}
