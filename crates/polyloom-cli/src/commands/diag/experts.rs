//! `polyloom diag experts`

use std::process::ExitCode;

use polyloom_learn::tasks::experts::{Block, Expert, Experts, Gate, Limits};
use polyloom_learn::tasks::routing::Routing;
use serde_json::json;

use super::{on, routing};
use crate::args_diag::ExpertsArgs;
use crate::ui::{Failure, Ui};

/// Gates that have a column of their own.
const COLUMNS: usize = 5;

/// Letters of a gate's name in the head of a column.
const NAME: usize = 12;

/// Runs the command.
pub fn run(args: &ExpertsArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let (found, notes) = on(&args.on, ui, |mut on| {
        let of = (&on.found[..], &mut on.shelf);
        if on.run.ready.model().experts().is_some() {
            let (found, notes) = on.run.routing(on.spec, &on.loader, of)?;
            return Ok((Looked::Tokens(found), notes));
        }
        let (found, notes) = on.run.experts(on.spec, &on.loader, of, Limits::default())?;
        Ok((Looked::Gates(found), notes))
    })?;
    notes.iter().for_each(|n| ui.note(n));
    match found {
        Looked::Tokens(found) => routing::tell(&found, &args.on.split, ui),
        Looked::Gates(found) => gates(&found, &args.on.split, ui),
    }
    Ok(ExitCode::SUCCESS)
}

/// What was looked at.
enum Looked {
    /// Gates of a model of tables.
    Gates(Experts),
    /// Experts in the layers of a transformer.
    Tokens(Routing),
}

/// Gates and experts of a model of tables.
fn gates(found: &Experts, split: &str, ui: &Ui) {
    ui.answer(&format!("{} rows of split {split}", found.rows));
    for gate in &found.gates {
        ui.event(&json!({
            "type": "gate",
            "gate": gate.name,
            "goal": gate.goal.and_then(|g| found.goals.get(g)),
            "rows": gate.rows,
            "experts": gate.experts,
            "entropy": gate.entropy,
            "spread": gate.spread,
        }));
    }
    let mut odd = 0;
    for block in &found.blocks {
        odd += tell(block, found, ui);
    }
    let sharp = |gate: &&Gate| gate.experts > 1 && gate.spread < 0.05;
    for gate in found.gates.iter().filter(sharp) {
        ui.note(&format!(
            "gate `{}` gives nearly all rows the same expert (spread {:.2} of 1)",
            gate.name, gate.spread
        ));
    }
    let experts: usize = found.blocks.iter().map(|b| b.experts.len()).sum();
    ui.answer(&match odd {
        0 => format!("nothing odd among {experts} experts"),
        _ => format!("{odd} of {experts} experts are odd: `polyloom diag experts --help` says what is called what"),
    });
    ui.event(&json!({"type": "done", "rows": found.rows, "experts": experts, "odd": odd}));
}

/// A block with its experts; how many of these have an anomaly.
fn tell(block: &Block, found: &Experts, ui: &Ui) -> usize {
    for expert in &block.experts {
        let weights = block.gates.iter().zip(&expert.weights);
        let weights = weights.map(|((gate, _), w)| (gate.clone(), json!(w)));
        ui.event(&json!({
            "type": "expert",
            "block": block.name,
            "shared": block.is_shared(),
            "expert": expert.place,
            "zeros": expert.zeros,
            "size": expert.size,
            "weights": weights.collect::<serde_json::Map<_, _>>(),
            "anomalies": expert.anomalies,
        }));
    }
    let kind = if block.is_shared() { ", shared" } else { "" };
    let several = block.gates.len() > COLUMNS;
    let mut head = vec!["expert".to_owned(), "zeros".into(), "size".into()];
    match several {
        true => head.extend(["mean weight", "most", "by"].map(str::to_owned)),
        false => head.extend(block.gates.iter().map(|gate| short(gate, found))),
    }
    let mut rows = vec![head];
    for expert in &block.experts {
        rows.push(row(expert, block, found, several));
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0))
        .collect();
    ui.answer(&format!("{}{kind}", block.name));
    for (line, expert) in rows
        .iter()
        .zip(std::iter::once(None).chain(block.experts.iter().map(Some)))
    {
        let cells = line.iter().zip(&widths).map(|(c, w)| format!("{c:>w$}"));
        let words = expert.iter().flat_map(|e| &e.anomalies);
        let words = words.map(|a| format!("{a:?}").to_lowercase());
        let words: Vec<String> = words.collect();
        let line = format!(
            "  {}  {}",
            cells.collect::<Vec<_>>().join("  "),
            words.join(", ")
        );
        ui.answer(line.trim_end());
    }
    block
        .experts
        .iter()
        .filter(|e| !e.anomalies.is_empty())
        .count()
}

fn row(expert: &Expert, block: &Block, found: &Experts, several: bool) -> Vec<String> {
    let share = |x: f64| format!("{:.0} %", 100.0 * x);
    let mut cells = vec![
        expert.place.to_string(),
        share(expert.zeros),
        format!("{:.2}", expert.size),
    ];
    if several {
        let mean = expert.weights.iter().sum::<f64>() / expert.weights.len() as f64;
        let most = expert.weights.iter().zip(&block.gates);
        let most = most.max_by(|a, b| a.0.total_cmp(b.0));
        cells.push(share(mean));
        cells.extend(most.map(|(w, _)| share(*w)));
        cells.extend(most.map(|(_, gate)| short(gate, found)));
    } else {
        cells.extend(expert.weights.iter().map(|w| share(*w)));
    }
    cells
}

/// The goal of a gate, else the gate's own name.
fn short((gate, goal): &(String, Option<usize>), found: &Experts) -> String {
    let name = goal.and_then(|g| found.goals.get(g)).unwrap_or(gate);
    let name = name.rsplit('/').next().unwrap_or(name);
    match name.chars().count() > NAME {
        true => name.chars().take(NAME - 1).chain(['…']).collect(),
        false => name.to_owned(),
    }
}
