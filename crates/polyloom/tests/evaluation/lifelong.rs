//! Family `lifelong`.

use polyloom::evaluate::lifelong::experts::{relative_performance, sample_efficiency};
use polyloom::evaluate::lifelong::learning::{
    AtBlock, Reference, Transfer, maintenance, performance_recovery, recovery_times, transfers,
};
use polyloom::evaluate::lifelong::log::{Block, BlockKind, Experts, Log};
use polyloom::evaluate::lifelong::preprocess::smooth;
use polyloom::evaluate::sum::mean;
use serde_json::{Map, Value, json};

use super::statistics::{floats, numbers};
use super::{Case, Outcome};

pub fn solve(case: &Case) -> Outcome {
    let mut found = Map::new();
    if case.id.starts_with("smooth") {
        let smoothed = smooth(&floats(&case.input["x"]));
        found.insert("smoothed".into(), numbers(&smoothed));
    } else {
        found.insert("per_regime".into(), scenario(&case.input));
    }
    Outcome::Values(found)
}

/// The names of the tasks become numbers: A is 0.
fn number(task: &str) -> u32 {
    u32::from(task.as_bytes()[0] - b'A')
}

fn name(task: u32) -> String {
    char::from(b'A' + task as u8).to_string()
}

/// One list per quantity with a place per block, as l2metrics tabulates them; it leaves out those that no block has.
fn scenario(input: &Value) -> Value {
    let blocks = input["blocks"].as_array().unwrap().iter();
    let blocks = blocks.map(|block| Block {
        kind: match block["type"].as_str().unwrap() {
            "test" => BlockKind::Evaluation,
            _ => BlockKind::Learning,
        },
        task: number(block["task"].as_str().unwrap()),
        values: floats(&block["values"]),
    });
    let experts = input["experts"].as_object().unwrap().iter();
    let experts = experts.map(|(task, runs)| Experts {
        task: number(task),
        runs: runs.as_array().unwrap().iter().map(floats).collect(),
    });
    let log = Log::new(blocks.collect(), experts.collect()).unwrap();
    let tasks = log.tasks();
    let mut table = Map::new();
    let column = |values: Vec<(usize, Value)>| {
        let mut places = vec![Value::Null; log.blocks().len()];
        values.into_iter().for_each(|(place, x)| places[place] = x);
        Value::Array(places)
    };
    let last = |task: u32, learning: bool| {
        let wanted = |b: &Block| b.task == task && (!learning || b.kind == BlockKind::Learning);
        log.blocks().iter().rposition(wanted).unwrap()
    };
    let each = |of: fn(&Block) -> Value| column(log.blocks().iter().map(of).enumerate().collect());
    table.insert("term_perf".into(), each(|b| json!(b.terminal())));
    let experiences = |b: &Block| json!(b.experiences_to_terminal());
    table.insert("exp_to_term_perf".into(), each(experiences));

    let at_blocks = |found: &[AtBlock]| {
        let values = found.iter().map(|m| (m.block, json!(m.value)));
        values.collect::<Vec<_>>()
    };
    let over_tasks = |of: &dyn Fn(u32) -> Vec<AtBlock>| {
        let found = tasks.iter().flat_map(|&t| of(t));
        at_blocks(&found.collect::<Vec<_>>())
    };
    let recovery = over_tasks(&|task| recovery_times(&log, task));
    let count = recovery.len();
    if count > 0 {
        table.insert("recovery_time".into(), column(recovery));
    }
    if count > 1 {
        let slopes = tasks.iter().map(|&t| (t, performance_recovery(&log, t)));
        let slopes = slopes.filter(|(_, slope)| !slope.is_nan());
        let values = slopes.map(|(task, slope)| (last(task, false), json!(slope)));
        table.insert("perf_recovery".into(), column(values.collect()));
    }
    for (suffix, reference) in [
        ("mrtlp", Reference::Learning),
        ("mrlep", Reference::Evaluation),
    ] {
        let of = |task| maintenance(&log, task, reference);
        let values = over_tasks(&of);
        if values.is_empty() {
            continue;
        }
        table.insert(format!("maintenance_val_{suffix}"), column(values));
        let means = tasks
            .iter()
            .map(|&t| (t, mean(of(t).iter().map(|m| m.value))));
        let means = means.filter(|(_, mean)| !mean.is_nan());
        let values = means.map(|(task, mean)| (last(task, false), json!(mean)));
        table.insert(
            format!("perf_maintenance_{suffix}"),
            column(values.collect()),
        );
    }
    let transfers = transfers(&log);
    for (direction, forward) in [("forward", true), ("backward", false)] {
        let found = || transfers.iter().filter(|t| t.forward == forward);
        if found().next().is_none() {
            continue;
        }
        let of = |field: fn(&Transfer) -> f64| {
            let value = |t: &Transfer| {
                let by_task = Map::from_iter([(name(t.from), json!(field(t)))]);
                (t.block, Value::Object(by_task))
            };
            column(found().map(value).collect())
        };
        table.insert(format!("{direction}_transfer_ratio"), of(|t| t.ratio));
        table.insert(format!("{direction}_transfer_contrast"), of(|t| t.contrast));
    }
    let of_learned = |of: &dyn Fn(u32) -> Option<Value>| {
        let values = tasks.iter().filter_map(|&t| Some((last(t, true), of(t)?)));
        column(values.collect())
    };
    let relative = |task| relative_performance(&log, task).map(|r| numbers(&r));
    table.insert("ste_rel_perf".into(), of_learned(&relative));
    let efficiency = |task| sample_efficiency(&log, task);
    type Quantity = (
        &'static str,
        fn(&polyloom::evaluate::lifelong::experts::SampleEfficiency) -> Value,
    );
    let quantities: [Quantity; 7] = [
        ("se_task_saturation", |s| json!(s.learner.value)),
        ("se_task_exp_to_sat", |s| json!(s.learner.experiences)),
        ("se_ste_saturation", |s| {
            s.experts.iter().map(|e| json!(e.value)).collect()
        }),
        ("se_ste_exp_to_sat", |s| {
            s.experts.iter().map(|e| json!(e.experiences)).collect()
        }),
        ("se_saturation", |s| {
            let ratio = s.experts.iter().map(|e| s.learner.value / e.value);
            ratio.map(|r| json!(r)).collect()
        }),
        ("se_exp_to_sat", |s| {
            let own = s.learner.experiences as f64;
            let ratio = s.experts.iter().map(|e| e.experiences as f64 / own);
            ratio.map(|r| json!(r)).collect()
        }),
        ("sample_efficiency", |s| numbers(&s.values)),
    ];
    for (name, of) in quantities {
        let value = |task| efficiency(task).map(|s| of(&s));
        table.insert(name.into(), of_learned(&value));
    }
    table.into()
}
