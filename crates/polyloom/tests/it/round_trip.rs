//! Every mergekit file of golden/merging written as `loom.toml` plans the same merge.

use polyloom::plan::reference::Places;
use polyloom::plan::{self, How, Input, Plan};
use polyloom::recipe::{self, TokenSource, Vocabulary, mergekit, show};
use serde_json::Value;

use crate::support;

/// Everything that decides the output, with models by reference.
fn essence(plan: &Plan) -> Vec<String> {
    let path = |m: usize| plan.models[m].model.reference.to_string();
    let input = |i: &Input| format!("{}:{}:{}", path(i.model), i.name, i.by_token);
    let mut out = Vec::new();
    for output in &plan.outputs {
        let how = match &output.how {
            How::Copy(i) => format!("copy {}", input(i)),
            How::Equal(all) => format!("equal {:?}", all.iter().map(input).collect::<Vec<_>>()),
            How::Merge(g, m) => {
                let group = &plan.groups[*g];
                let member = &group.members[*m];
                format!(
                    "{:?} over {:?}: base {:?}, inputs {:?}, shared {:?}, each {:?}, layer {:?}, before {}",
                    group.composition,
                    group.experts.iter().map(|e| path(*e)).collect::<Vec<_>>(),
                    member.base.as_ref().map(input),
                    member
                        .inputs
                        .iter()
                        .map(|i| i.as_ref().map(input))
                        .collect::<Vec<_>>(),
                    member.job.shared,
                    member.job.each,
                    member.job.layer,
                    member.job.before,
                )
            }
        };
        out.push(format!("{:?} {how}", output.tensor));
    }
    let r = &plan.recipe;
    out.push(format!(
        "{:?} {:?} {} {:?} {:?} {:?} {}",
        r.dtype,
        r.out_dtype,
        r.seed,
        r.chat_template,
        plan.truncated,
        plan.stacked,
        path(plan.template)
    ));
    if let Some(t) = &r.tokenizer {
        let source = match t.source {
            Vocabulary::Model(m) => path(m),
            ref other => format!("{other:?}"),
        };
        out.push(format!("{source} {:?}", t.pad_to_multiple_of));
        for (token, source, force) in &t.tokens {
            let source = match source {
                Some(TokenSource::Model(m)) => path(*m),
                Some(TokenSource::ModelToken { model, token }) => {
                    format!("{} {token:?}", path(*model))
                }
                other => format!("{other:?}"),
            };
            out.push(format!("{token} {source} {force}"));
        }
    }
    if let Some(v) = &plan.vocabulary {
        out.push(format!("{} rows", v.padded_size));
    }
    out
}

#[test]
fn golden_mergekit_files_survive_toml() {
    let folder = support::golden("merging");
    let manifest = polyloom_core::checkpoint::read_json(&folder.join("manifest.json")).unwrap();
    let models = std::fs::canonicalize(folder.join("models")).unwrap();
    let mut ran = 0;
    for case in manifest["cases"].as_array().unwrap() {
        let (Some(config), None) = (
            case.get("config"),
            case.get("error").filter(|e| **e != Value::Null),
        ) else {
            continue;
        };
        let name = case["name"].as_str().unwrap();
        let text = config
            .to_string()
            .replace("@@", &format!("{}/", models.display()));
        let mut first = mergekit::parse(&text, None).unwrap().remove(0);
        let written = show::to_toml(&first).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut second = recipe::toml::parse(&written, None)
            .unwrap_or_else(|e| panic!("{name}: {e:?}\n{written}"));
        first.truncate_embeddings =
            case["options"]["unsafe_truncate_embeddings"].as_bool() == Some(true);
        second.truncate_embeddings = first.truncate_embeddings;
        let plan = |recipe| {
            let plan = plan::build(recipe, &Places::default());
            essence(&plan.unwrap_or_else(|e| panic!("{name}: {e:?}\n{written}")))
        };
        let (a, b) = (plan(first), plan(second));
        assert_eq!(a.len(), b.len(), "{name}\n{written}");
        for (a, b) in a.iter().zip(&b) {
            assert_eq!(a, b, "{name}\n{written}");
        }
        ran += 1;
    }
    println!("golden merging, mergekit files as loom.toml: {ran} ran");
    assert!(ran > 20);
}
