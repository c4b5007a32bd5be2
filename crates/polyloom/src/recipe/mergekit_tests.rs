use super::*;

fn messages(text: &str) -> Vec<String> {
    parse(text, None)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn several_problems_are_told_at_once_with_their_lines() {
    let got = messages(
        "merge_method: ties
base_model: org/a@b@c
models:
  - model: org/a
    parameters:
      weight: [1, {value: 2}]
  - parameters: {weight: 1}
  - {model: org/b, parameters: {density: {x: 1}}}
dtype: int8
tokenizer:
  pad_to_multiple_of: 0
  tokens:
    '<s>': {source: {kind: none}}
chat_template: [1]
",
    );
    let starts: Vec<&str> = got
        .iter()
        .map(|m| m.split(": ").next().unwrap_or_default())
        .collect();
    assert_eq!(
        starts,
        [
            "recipe:9",
            "recipe:2",
            "recipe:6",
            "recipe:7",
            "recipe:8",
            "recipe:11",
            "recipe:13",
            "recipe:14"
        ],
        "{got:#?}"
    );
}

#[test]
fn a_key_is_found_where_it_stands() {
    // `weight` is a key of another model first.
    let recipe = parse(
        "merge_method: linear
models:
  - {model: org/a, parameters: {weight: 1}}
  - model: org/b
    parameters:
      weight: 2
      wieght: 3
",
        None,
    )
    .unwrap()
    .remove(0);
    let sources = &recipe.modules[0].slices[0].sources;
    assert_eq!(sources[1].settings["weight"].1.text, "recipe:6");
    assert!(
        recipe.notes[0]
            .1
            .starts_with("recipe:7: unknown key `wieght`"),
        "{:?}",
        recipe.notes
    );
}

#[test]
fn ten_problems_of_a_document_are_enough() {
    let mut text = "merge_method: linear\nmodels:\n".to_owned();
    for _ in 0..30 {
        text += "  - {parameters: {weight: 1}}\n";
    }
    assert_eq!(messages(&text).len(), 10);
}

#[test]
fn stages_have_names_of_their_own() {
    let stage = |name: &str| {
        format!(
            "name: {name}\nmerge_method: linear\nmodels: [{{model: org/a, parameters: {{weight: 1}}}}]\n"
        )
    };
    let both = |a: &str, b: &str| format!("{}---\n{}", stage(a), stage(b));
    assert_eq!(parse(&both("one", "two"), None).unwrap().len(), 2);
    assert_eq!(
        messages(&both("one", "one")),
        ["recipe:5: `name: one` names two documents"]
    );
}

#[test]
fn a_base_outside_its_slice_is_refused_as_by_the_peer() {
    let text = |second: &str| {
        format!(
            "merge_method: task_arithmetic
base_model: org/base
parameters: {{weight: 1}}
slices:
  - sources: [{{model: org/a, layer_range: [0, 4]}}, {{model: org/base, layer_range: [0, 4]}}]
  - sources: [{{model: org/a, layer_range: [4, 8]}}{second}]
"
        )
    };
    let got = messages(&text(""));
    assert_eq!(
        got,
        ["slice 2: the base `org/base` is not among its sources, so its layers are not known"]
    );
    let listed = text(", {model: org/base, layer_range: [2, 6]}");
    let recipe = parse(&listed, None).unwrap().remove(0);
    assert_eq!(recipe.modules[0].slices[1].base_layers, Some((2, 6)));
    // A method without a base takes what the slices list, no more.
    let linear = text("").replace("task_arithmetic", "linear");
    let recipe = parse(&linear, None).unwrap().remove(0);
    assert_eq!(recipe.modules[0].slices[1].sources.len(), 1);
}
