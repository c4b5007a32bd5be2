use super::*;
use crate::recipe::{Heads, MissingPolicy, TokenName, TokenSource, Vocabulary};

const GOOD: &str = r#"
version = 1
seed = 7
[base]
path = "b"
[[expert]]
name = "x"
path = "models/x"
[expert.merge]
weight = 0.8
[[expert]]
path = "models/y"
[merge]
method = "ties"
out_dtype = "bf16"
[merge.shared]
lambda = 0.5
[merge.each]
density = [{ filter = "attention", value = 0.3 }, { value = 0.2 }]
[[merge.post]]
step = "lines"
alpha = "auto"
beta = 0.8
[eval]
tasks = ["anything"]
"#;

#[test]
fn a_recipe_is_read() {
    let recipe = parse(GOOD, None).unwrap();
    assert_eq!(
        (recipe.method.as_str(), recipe.seed, recipe.models.len()),
        ("ties", 7, 3)
    );
    assert_eq!(recipe.modules[0].slices[0].sources.len(), 2);
    assert_eq!(recipe.models[recipe.base.unwrap()].name, "base");
    assert_eq!(recipe.models[2].name, "y");
    assert_eq!(recipe.post[0].name, "lines");
    assert!(recipe.settings.contains_key("density") && recipe.settings.contains_key("lambda"));
}

#[test]
fn typos_are_errors_with_their_place() {
    let errors = parse(
        &GOOD
            .replace("density =", "densty =")
            .replace("[eval]", "[evl]"),
        None,
    )
    .unwrap_err();
    let text = errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        text.contains("loom.toml:19:1: unknown key `densty` for merge method `ties`"),
        "{text}"
    );
    assert!(text.contains("   19 | densty"), "{text}");
    assert!(
        text.contains("^^^^^^ expected one of: weight, density"),
        "{text}"
    );
    assert!(text.contains("unknown key `evl`"), "{text}");
    assert!(
        errors
            .iter()
            .any(|e| e.hints().iter().any(|h| h == "did you mean `density`?"))
    );
}

#[test]
fn a_missing_base_names_the_way_out() {
    let text = GOOD.replace("[base]\npath = \"b\"\n", "");
    let errors = parse(&text, None).unwrap_err();
    assert!(
        errors[0]
            .to_string()
            .contains("`ties` works on task vectors and needs a base"),
        "{}",
        errors[0]
    );
}

const STACKED: &str = r#"
[base]
path = "b"
[[expert]]
name = "x"
path = "models/x"
[expert.merge]
weight = 0.5
[[expert]]
name = "y"
path = "models/y"
[[model]]
name = "words"
path = "models/words"
[merge]
method = "task_arithmetic"
[[slice]]
sources = [{ expert = "x", layer_range = [0, 8] }]
[[slice]]
base = "x"
sources = [
  { expert = "x", layer_range = [2, 6] },
  { expert = "y", layer_range = [4, 8], merge = { weight = 2 } },
]
[slice.shared]
lambda = 0.25
[tokenizer]
source = "words"
pad_to_multiple_of = 64
[tokenizer.tokens."<s>"]
source = { kind = "model_token", model = "y", token_id = 3 }
force = true
[tokenizer.tokens.on]
source = "base"
"#;

#[test]
fn slices_and_tokens_are_read() {
    let r = parse(STACKED, None).unwrap();
    let [first, second] = &r.modules[0].slices[..] else {
        panic!("{:?}", r.modules);
    };
    let at = |name: &str| r.models.iter().position(|m| m.name == name).unwrap();
    // The base is named once; where all inputs take the same layers it follows them.
    assert_eq!((first.base, first.base_layers), (None, Some((0, 8))));
    assert!(first.sources[0].settings.contains_key("weight"));
    assert_eq!(
        (second.base, second.base_layers),
        (Some(at("x")), Some((2, 6)))
    );
    assert_eq!(second.sources.len(), 1);
    assert_eq!(
        second.sources[0].settings["weight"].0,
        Setting::Value(2.into())
    );
    assert!(second.settings.contains_key("lambda"));
    let tokens = r.tokenizer.unwrap();
    assert_eq!(tokens.source, Vocabulary::Model(at("words")));
    assert_eq!(tokens.pad_to_multiple_of, Some(64));
    let token = TokenName::Id(3);
    let source = TokenSource::ModelToken {
        model: at("y"),
        token,
    };
    assert_eq!(
        tokens.tokens,
        [
            ("<s>".to_owned(), Some(source), true),
            (
                "on".to_owned(),
                Some(TokenSource::Model(r.base.unwrap())),
                false
            ),
        ]
    );
}

#[test]
fn slices_say_what_is_wrong_with_them() {
    for (from, to, want) in [
        ("expert = \"y\"", "expert = \"yy\"", "`yy` names no model"),
        ("base = \"x\"", "base = \"z\"", "`z` names no model"),
        (
            "{ expert = \"x\", layer_range = [2, 6] },",
            "",
            "slice 2: the base `models/x` is not among",
        ),
        ("layer_range = [0, 8]", "layer_range = [0]", "is not a pair"),
        (
            "  { expert = \"y\", layer_range = [4, 8], merge = { weight = 2 } },",
            "",
            "expert `y` is in no slice",
        ),
        (
            "pad_to_multiple_of = 64",
            "pad_to_multiple_of = 0",
            "not a positive",
        ),
        ("token_id = 3", "tok = 3", "unknown key `tok`"),
        ("force = true", "force = 1", "is not true or false"),
        (
            "kind = \"model_token\"",
            "kind = \"none\"",
            "unknown kind `none`",
        ),
        ("lambda = 0.25", "lamda = 0.25", "unknown key `lamda`"),
    ] {
        assert!(STACKED.contains(from));
        let mut text = STACKED.replacen(from, to, 1);
        if want.contains("slice 2") {
            // The other source takes other layers than the base could follow.
            text = text.replace(
                "{ expert = \"y\",",
                "{ expert = \"base\", layer_range = [0, 4] }, { expert = \"y\",",
            );
        }
        let errors = parse(&text, None).unwrap_err();
        assert!(errors[0].to_string().contains(want), "{want}: {errors:?}");
    }
}

#[test]
fn every_key_can_be_set() {
    let mut r = parse(STACKED, None).unwrap();
    for (key, value) in [
        ("name", "5"),
        ("seed", "11"),
        ("chat_template", "chatml"),
        ("merge.dtype", "f32"),
        ("merge.out_dtype", "bf16"),
        ("merge.heads", "separate"),
        ("merge.missing", "union"),
        ("merge.truncate_embeddings", "true"),
        ("merge.pre", "[{step = \"elect_sign\"}]"),
        ("merge.post", "[{step = \"scale\", factor = 2}]"),
        ("merge.shared.lambda", "0.75"),
        ("base.path", "other/base"),
        ("expert.y.path", "other/y"),
        ("expert.y.task", "7"),
        ("expert.y.stats", "y.stats"),
        ("expert.y.strip_prefix", "a."),
        ("expert.y.add_prefix", "b."),
        ("expert.y.layer_range", "[0, 4]"),
        ("expert.y.merge.weight", "3"),
        ("tokenizer.source", "union"),
        ("tokenizer.pad_to_multiple_of", "8"),
        ("tokenizer.tokens.on.force", "true"),
    ] {
        r.set(key, value).unwrap_or_else(|e| panic!("{key}: {e}"));
    }
    assert_eq!((r.name.as_deref(), r.seed), (Some("5"), 11));
    assert_eq!(r.chat_template.as_deref(), Some("chatml"));
    assert_eq!(r.dtype, Some(polyloom_core::DType::F32));
    assert_eq!(r.out_dtype, Some(polyloom_core::DType::BF16));
    assert_eq!(r.heads, Heads::Separate);
    assert_eq!(r.missing, MissingPolicy::Union);
    assert!(r.truncate_embeddings);
    assert_eq!(
        (r.pre[0].name.as_str(), r.post[0].name.as_str()),
        ("elect_sign", "scale")
    );
    assert_eq!(r.models[r.base.unwrap()].reference.path, "other/base");
    let y = r.models.iter().position(|m| m.name == "y").unwrap();
    let model = &r.models[y];
    assert_eq!(model.reference.path, "other/y");
    assert_eq!(
        [
            &model.task,
            &model.stats,
            &model.strip_prefix,
            &model.add_prefix
        ]
        .map(|t| t.as_deref().unwrap()),
        ["7", "y.stats", "a.", "b."]
    );
    let source = &r.modules[0].slices[1].sources[0];
    assert_eq!((source.model, source.layers), (y, Some((0, 4))));
    assert_eq!(source.settings["weight"].0, Setting::Value(3.into()));
    assert_eq!(source.settings["weight"].1.text, "flag");
    assert!(
        !r.modules[0].slices[1].settings.contains_key("lambda"),
        "a flag wins"
    );
    let tokens = r.tokenizer.as_ref().unwrap();
    assert_eq!(
        (&tokens.source, tokens.pad_to_multiple_of),
        (&Vocabulary::Union, Some(8))
    );
    assert!(tokens.tokens.len() == 2 && tokens.tokens[1].2 && tokens.tokens[1].1.is_some());
    r.set(
        "slice",
        "[{sources = [{expert = \"y\"}, {expert = \"x\"}]}]",
    )
    .unwrap();
    assert_eq!(r.modules[0].slices.len(), 1);
    let mut r = parse(
        &GOOD
            .replace("weight = 0.8", "mask_lambda = 0.8")
            .replace("\"ties\"", "\"consensus\"")
            .replace("density =", "mask_lambda ="),
        None,
    )
    .unwrap();
    r.set("merge.on", "{method = \"ties\", density = 0.5}")
        .unwrap();
    r.set("merge.on.lambda", "2").unwrap();
    let on = r.on.unwrap();
    assert_eq!((on.name.as_str(), on.settings.len()), ("ties", 2));
}

#[test]
fn a_wrong_set_is_told_as_in_the_file() {
    let mut r = parse(STACKED, None).unwrap();
    for (key, value, want) in [
        ("merge.dtpe", "f32", "unknown key `dtpe` in `[merge]`"),
        ("mrge.dtype", "f32", "unknown key `mrge`"),
        ("merge.dtype", "int8", "`dtype = \"int8\"` is not a type"),
        ("seed", "-1", "`seed` is not a whole number"),
        ("merge.heads", "no", "expected \"merge\" or \"separate\""),
        ("expert.z.task", "t", "`z` names no model"),
        ("expert.x.tsk", "t", "unknown key `tsk` in `[[expert]]`"),
        ("expert.y.merge.wight", "1", "unknown key `wight`"),
        ("merge.method", "tie", "unknown merge method `tie`"),
        (
            "merge.method",
            "slerp",
            "which is no parameter of merge method `slerp`",
        ),
        ("eval.tasks", "a", "`eval` belongs to another command"),
        ("a b", "1", "is not a key"),
    ] {
        let error = r.clone().set(key, value).unwrap_err().to_string();
        assert!(error.contains(want), "{key}: {error}");
    }
    let error = r.set("merge.method", "linear").err().map(|e| e.to_string());
    assert_eq!(
        error.as_deref(),
        Some(
            "--set merge.method: the recipe sets `lambda`, which is no parameter of merge method `linear`"
        )
    );
}

#[test]
fn another_method_leaves_out_what_it_does_not_know_and_says_so() {
    let mut r = parse(GOOD, None).unwrap();
    r.set_method("task_arithmetic").unwrap();
    assert_eq!((r.method.as_str(), r.notes.len()), ("task_arithmetic", 0));
    r.set_method("emr").unwrap();
    let texts: Vec<&str> = r.notes.iter().map(|n| n.1.as_str()).collect();
    for name in ["lambda", "density", "weight"] {
        let want = format!(
            "the recipe sets `{name}`, which is no parameter of merge method `emr`: left out"
        );
        assert!(texts.contains(&want.as_str()), "{texts:?}");
    }
    assert!(r.notes.iter().all(|n| n.0) && r.settings.is_empty());
}
