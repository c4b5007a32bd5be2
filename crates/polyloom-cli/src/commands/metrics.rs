//! `polyloom metrics`

use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::metric::page;
use polyloom::evaluate::metric::registry::{METRICS, Metric, find, names};
use serde_json::json;

use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(name: Option<&str>, ui: &Ui) -> Result<ExitCode, Failure> {
    let Some(name) = name else {
        METRICS.iter().for_each(|m| event(m, ui));
        ui.answer(page::list().trim_end());
        ui.event(&json!({"type": "done", "metrics": METRICS.len()}));
        return Ok(ExitCode::SUCCESS);
    };
    let Some(metric) = find(name) else {
        let error = MergeError::plan("unknown-metric", format!("unknown metric `{name}`"));
        let near = polyloom::suggest::nearest(name, &names(), 3);
        let hint = match near.is_empty() {
            true => "`polyloom metrics` lists them".to_owned(),
            false => format!("did you mean {}?", near.join(", ")),
        };
        return Err(error.hint(hint).into());
    };
    event(metric, ui);
    ui.answer(page::explain(metric).trim_end());
    ui.event(&json!({"type": "done", "metrics": 1}));
    Ok(ExitCode::SUCCESS)
}

fn event(metric: &Metric, ui: &Ui) {
    let bound = |x: f64| if x.is_finite() { json!(x) } else { json!(null) };
    let (least, most) = metric.range;
    ui.event(&json!({
        "type": "metric",
        "name": metric.name,
        "higher_is_better": metric.higher_is_better(),
        "range": [bound(least), bound(most)],
        "per_example": metric.per_example(),
        "summary": metric.summary,
        "source": metric.source,
        "differs": metric.differs,
    }));
}
