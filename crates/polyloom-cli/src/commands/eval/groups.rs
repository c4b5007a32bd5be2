//! What a group of tasks comes to: the means that its file asks for, with the weight that was used.

use polyloom::evaluate::aggregate::mean::{macro_stderr, pooled_stderr};
use polyloom::evaluate::metric::registry;
use polyloom::evaluate::sum::sum;
use polyloom::tasks::Catalogue;
use polyloom::tasks::spec::{Aggregate, GroupSpec, GroupWeight};
use serde_json::{Value, json};

use crate::ui::{Failure, Ui};

/// A line for every aggregate of every group that was named.
pub fn told(
    catalogue: &Catalogue,
    ids: &[String],
    entries: &[(String, Value)],
    ui: &Ui,
) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for group in catalogue.groups().filter(|g| ids.contains(&g.id)) {
        let members = catalogue.members(&group.id)?;
        for aggregate in &group.aggregate {
            lines.push(one(catalogue, group, aggregate, &members, entries, ui)?);
        }
    }
    Ok(lines)
}

fn one(
    catalogue: &Catalogue,
    group: &GroupSpec,
    aggregate: &Aggregate,
    members: &[String],
    entries: &[(String, Value)],
    ui: &Ui,
) -> Result<String, Failure> {
    let known = registry::find(&aggregate.metric);
    let name = known.map_or(&*aggregate.metric, |m| m.name);
    let (mut values, mut weights, mut sizes, mut errors) = (vec![], vec![], vec![], vec![]);
    let mut without = 0;
    for id in members {
        let eval = catalogue.task(id)?.spec.weights.eval;
        let own = |task: &str| task == id || task.starts_with(&format!("{id}/"));
        for (_, entry) in entries.iter().filter(|(task, _)| own(task)) {
            let cell = match entry["metric"] == name {
                true => entry,
                false => &entry["metrics"][name],
            };
            let (Some(value), Some(n)) = (cell["value"].as_f64(), cell["n"].as_u64()) else {
                without += 1;
                continue;
            };
            values.push(value);
            sizes.push(n);
            errors.push(cell["stderr"].as_f64().unwrap_or(f64::NAN));
            weights.push(match aggregate.weight {
                GroupWeight::Size => n as f64,
                GroupWeight::Equal => 1.0,
                GroupWeight::Eval => eval,
            });
        }
    }
    let total = sum(weights.iter().copied());
    let value = sum(values.iter().zip(&weights).map(|(v, w)| v * w)) / total;
    let stderr = match aggregate.weight {
        GroupWeight::Size => pooled_stderr(&sizes, &errors),
        GroupWeight::Equal => macro_stderr(&errors),
        GroupWeight::Eval => {
            let parts = errors.iter().zip(&weights);
            Ok(sum(parts.map(|(e, w)| (e * w).powi(2))).sqrt() / total)
        }
    };
    let stderr = stderr.ok().filter(|e| e.is_finite());
    let weight = match aggregate.weight {
        GroupWeight::Size => "size",
        GroupWeight::Equal => "equal",
        GroupWeight::Eval => "eval",
    };
    let finite = value.is_finite().then_some(value);
    ui.event(&json!({
        "type": "group", "group": group.id, "metric": name, "how": aggregate.how, "weight": weight,
        "value": finite, "stderr": stderr, "tasks": values.len(), "without": without,
    }));
    let shown = finite.map_or("n/a".into(), |v| format!("{v:.4}"));
    let error = stderr.map_or(String::new(), |e| format!(" (standard error {e:.4})"));
    let left = match without {
        0 => String::new(),
        n => format!(", {n} without it"),
    };
    Ok(format!(
        "{}: {name} {shown}{error}, mean of {} tasks{left}, weight: {weight}",
        group.id,
        values.len()
    ))
}
