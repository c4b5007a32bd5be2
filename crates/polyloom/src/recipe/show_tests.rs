use super::*;
use crate::recipe::{mergekit, toml as loom};

const TIES: &str = "
merge_method: ties
base_model: org/base
models:
  - model: org/a
    parameters:
      weight: 0.3
      density: [1, 0.7, 0.1]
  - model: org/b+lora/x@v2
    parameters:
      weight: [{filter: mlp, value: 0.5}, {value: 0.1}]
parameters:
  density: 0.5
  int8_mask: true
dtype: torch.float32
out_dtype: bfloat16
tokenizer: {source: base, pad_to_multiple_of: 64}
";

const SLERP: &str = "
slices:
  - sources:
      - model: org/a
        layer_range: [0, 32]
      - model: org/b
        layer_range: [0, 32]
merge_method: slerp
base_model: org/a
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
dtype: bfloat16
";

const STACK: &str = "
slices:
  - sources: [{model: org/a, layer_range: [0, 24]}]
  - sources: [{model: org/b, layer_range: [8, 32], parameters: {scale: [{filter: down_proj, value: 0.5}, {value: 1.0}]}}]
    residual_weight: 0.5
merge_method: passthrough
dtype: bfloat16
";

const TOWERS: &str = "
merge_method: linear
modules:
  text_decoder:
    models: [{model: org/a, parameters: {weight: 1}}, {model: org/b, parameters: {weight: 2}}]
  vision_tower:
    models: [{model: org/a}, {model: org/b}]
    parameters: {weight: 0.5}
tokenizer:
  source: union
  tokens:
    '<|im_start|>': {source: org/a, force: true}
    'on': {source: {kind: zero}}
    \"a b\": {source: {kind: model_token, model: org/b, token_id: 3}}
chat_template: chatml
";

const RANGES: &str = "
merge_method: task_arithmetic
base_model: org/base
slices:
  - sources:
      - {model: org/a, layer_range: [0, 4], parameters: {weight: 0.5}}
      - {model: org/base, layer_range: [2, 6]}
    parameters: {lambda: 0.25}
  - sources:
      - {model: org/other, layer_range: [4, 8]}
      - {model: org/a, layer_range: [0, 4], parameters: {weight: 2}}
      - {model: org/b, layer_range: [0, 4]}
    base_model: org/other
parameters: {weight: 1}
tokenizer:
  source: org/c
  tokens:
    '<|im_start|>': {source: org/a, force: true}
    'on': {source: {kind: zero}}
    \"a b\": {source: {kind: model_token, model: org/b, token_id: 3}}
    'as it comes': {}
";

type Flat = Vec<(String, Option<(usize, usize)>, Map<String, Value>)>;

/// What counts, without origins, order of models and source text.
fn essence(r: &Recipe) -> (String, Option<String>, Flat, Vec<Map<String, Value>>) {
    let path = |i: usize| r.models[i].reference.to_string();
    let mut sources = Vec::new();
    let mut scopes = Vec::new();
    for module in &r.modules {
        scopes.push(plain(&module.settings));
        for slice in &module.slices {
            scopes.push(plain(&slice.settings));
            if let (Some(base), Some(layers)) = (slice.base.or(r.base), slice.base_layers) {
                sources.push((format!("base {}", path(base)), Some(layers), Map::new()));
            }
            for s in &slice.sources {
                sources.push((path(s.model), s.layers, plain(&s.settings)));
            }
        }
    }
    (r.method.clone(), r.base.map(path), sources, scopes)
}

/// The vocabulary rules with models by reference.
fn tokens(r: &Recipe) -> Option<(String, Option<usize>, Vec<String>)> {
    let path = |i: usize| r.models[i].reference.to_string();
    r.tokenizer.as_ref().map(|t| {
        let source = match t.source {
            Vocabulary::Model(m) => path(m),
            ref other => format!("{other:?}"),
        };
        let rules = t.tokens.iter().map(|(token, source, force)| {
            let source = match source {
                Some(TokenSource::Model(m)) => path(*m),
                Some(TokenSource::ModelToken { model, token }) => {
                    format!("{} {token:?}", path(*model))
                }
                other => format!("{other:?}"),
            };
            format!("{token} {source} {force}")
        });
        (source, t.pad_to_multiple_of, rules.collect())
    })
}

/// Settings of the widest scope with the defaults.
fn widest(r: &Recipe) -> std::collections::BTreeMap<String, Value> {
    plain(&r.settings).into_iter().chain(defaults(r)).collect()
}

#[test]
fn yaml_comes_back_the_same() {
    for text in [TIES, SLERP, STACK, TOWERS] {
        let first = mergekit::parse(text, None).unwrap().remove(0);
        let written = to_yaml(&first).unwrap();
        let second = mergekit::parse(&written, None)
            .unwrap_or_else(|e| panic!("{e:?}\n{written}"))
            .remove(0);
        assert_eq!(essence(&first), essence(&second), "{written}");
        assert_eq!(widest(&first), widest(&second), "{written}");
        assert_eq!(
            (
                first.dtype,
                first.out_dtype,
                &first.tokenizer,
                &first.chat_template
            ),
            (
                second.dtype,
                second.out_dtype,
                &second.tokenizer,
                &second.chat_template
            )
        );
        assert!(
            second.notes.iter().all(|n| !n.1.contains("unknown")),
            "{:?}",
            second.notes
        );
        assert_eq!(
            to_yaml(&second).unwrap(),
            written,
            "writing settles after one turn"
        );
    }
}

#[test]
fn toml_says_the_same_as_the_file_it_came_from() {
    for text in [TIES, SLERP, STACK, RANGES] {
        let first = mergekit::parse(text, None).unwrap().remove(0);
        let written = to_toml(&first).unwrap();
        let second = loom::parse(&written, None).unwrap_or_else(|e| panic!("{e:?}\n{written}"));
        assert_eq!(essence(&first), essence(&second), "{written}");
        for (name, value) in widest(&first) {
            assert_eq!(widest(&second)[&name], value, "{name}\n{written}");
        }
        assert_eq!(
            (first.dtype, first.out_dtype),
            (second.dtype, second.out_dtype)
        );
        assert_eq!(tokens(&first), tokens(&second), "{written}");
        // Our own default of a weight that mergekit requires is written in the second turn; then the text settles.
        let again = to_toml(&second).unwrap();
        assert_eq!(to_toml(&loom::parse(&again, None).unwrap()).unwrap(), again);
    }
}

#[test]
fn defaults_are_written_and_named() {
    let recipe = mergekit::parse(TIES, None).unwrap().remove(0);
    let written = to_toml(&recipe).unwrap();
    assert!(
        written.contains("normalize = true") && written.contains("lambda = 1.0"),
        "{written}"
    );
    let all = values(&recipe);
    let find = |key: &str| all.iter().find(|v| v.key == key).unwrap();
    assert_eq!(
        (&find("lambda").value, find("lambda").origin.as_str()),
        (&json!(1.0), "default")
    );
    assert_eq!(find("density").value, json!(0.5));
    assert_eq!(find("experts.a.density").value, json!([1, 0.7, 0.1]));
    assert_eq!(find("experts.a.weight").origin, "recipe:7");
}

#[test]
fn what_a_form_cannot_hold_is_named() {
    let towers = mergekit::parse(TOWERS, None).unwrap().remove(0);
    let error = to_toml(&towers).unwrap_err();
    assert_eq!(
        error.to_string(),
        "loom.toml cannot hold several towers (`modules`)"
    );
    let mut ties = mergekit::parse(TIES, None).unwrap().remove(0);
    ties.heads = Heads::Separate;
    assert!(to_yaml(&ties).unwrap_err().to_string().contains("`heads`"));
}

#[test]
fn a_layer_range_with_a_word_in_it_is_refused() {
    let text = STACK.replace("[0, 24]", "[0, x, 24]");
    let errors = mergekit::parse(&text, None).unwrap_err();
    assert!(
        errors[0].to_string().contains("is not a pair [first, end)"),
        "{}",
        errors[0]
    );
}
