//! What `polyloom diag experts` says of a model whose layers have experts for tokens.

use polyloom_learn::tasks::routing::Routing;
use serde_json::json;

use crate::ui::Ui;

/// Experts that have a number of their own in a line.
const SHOWN: usize = 16;

/// Layer by layer, then what a token uses.
pub fn tell(found: &Routing, split: &str, ui: &Ui) {
    ui.answer(&format!("{} rows of split {split}", found.rows));
    for layer in &found.layers {
        let (goal, shares) = (of(layer.goal.as_ref()), layer.shares());
        let mut list: Vec<String> = shares.iter().map(|s| format!("{:.0}", 100.0 * s)).collect();
        if list.len() > SHOWN {
            list.truncate(SHOWN);
            list.push("…".into());
        }
        let (mean, tokens) = (layer.mean(), layer.tokens);
        ui.answer(&format!(
            "{}{goal}: {mean:.2} of {} experts a token, {tokens} tokens; % of them by expert: {}",
            layer.name,
            found.experts,
            list.join(" ")
        ));
        ui.event(&json!({
            "type": "layer",
            "layer": layer.name,
            "goal": layer.goal,
            "tokens": tokens,
            "mean": mean,
            "shares": shares,
        }));
    }
    for one in &found.activated {
        let share = one.parameters / found.parameters.max(1) as f64;
        ui.answer(&format!(
            "a token{} uses {:.2} of {} experts, {:.0} of {} parameters of the layers ({:.1} %)",
            of(one.goal.as_ref()),
            one.experts,
            found.experts,
            one.parameters,
            found.parameters,
            100.0 * share,
        ));
        ui.event(&json!({
            "type": "activated",
            "goal": one.goal,
            "experts": one.experts,
            "of": found.experts,
            "parameters": one.parameters,
            "all": found.parameters,
            "share": share,
        }));
    }
    ui.event(&json!({"type": "done", "rows": found.rows, "experts": found.experts}));
}

/// Whose tokens, in words.
fn of(goal: Option<&String>) -> String {
    goal.map_or_else(String::new, |g| format!(" for {g}"))
}
