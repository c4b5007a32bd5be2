//! Tables that are tasks of texts.

use super::{Inferred, Role, Wishes};
use crate::tasks::spec::TaskSpec;

/// One running text and no other feature, or texts that were asked for: a text task instead of a table.
pub(super) fn texts(spec: &mut TaskSpec, columns: &[Inferred], wishes: &Wishes) {
    let found: Vec<&str> = columns
        .iter()
        .filter(|c| c.role == Role::Text)
        .map(|c| &*c.name)
        .collect();
    let others = columns
        .iter()
        .any(|c| matches!(c.role, Role::Numeric | Role::Categorical));
    let inputs = match (&wishes.inputs[..], &found[..], others) {
        ([], [text], false) => vec![(*text).to_owned()],
        ([], ..) => return,
        (named, ..) => named.to_vec(),
    };
    spec.fields.input.clone_from(&inputs[0]);
    spec.fields.input2 = inputs.get(1).cloned().unwrap_or_default();
    spec.modality.input = vec!["text".into()];
    let number = spec.targets.iter().all(|t| t.kind.is_number());
    spec.modality.output = if number { "number" } else { "label" }.into();
    if spec.targets.len() == 1 {
        let target = spec.targets.remove(0);
        spec.kind = Some(target.kind);
        spec.fields.target = target.column;
        spec.labels.names = target.labels;
        spec.metrics = target.metrics;
    }
    if let Some(table) = &mut spec.table {
        for list in [
            &mut table.drop,
            &mut table.categorical,
            &mut table.numeric,
            &mut table.text,
        ] {
            list.retain(|c| !inputs.contains(c));
        }
        // Of a task of texts the table says who belongs together and what rows count, no more.
        let features = [&mut table.categorical, &mut table.numeric, &mut table.text];
        let features: Vec<String> = features.into_iter().flat_map(std::mem::take).collect();
        table.drop.extend(features);
        if table.group.is_empty() && table.time.is_empty() && table.weight.is_empty() {
            spec.table = None;
        }
    }
}
