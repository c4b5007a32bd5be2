use std::path::{Path, PathBuf};

use polyloom_core::Checkpoint;
use serde_json::json;

use super::*;

fn golden() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("POLYLOOM_GOLDEN").map_or_else(
        || {
            let beside = here.join("../shared/golden");
            if beside.exists() {
                beside
            } else {
                here.join("tests/golden")
            }
        },
        PathBuf::from,
    )
}

fn input(name: &str, tokens: &[(&str, usize, bool)], rows: usize) -> Input {
    let vocab: Map<String, Value> = tokens
        .iter()
        .filter(|t| !t.2)
        .map(|t| (t.0.to_owned(), json!(t.1)))
        .collect();
    let added: Vec<Value> = tokens
        .iter()
        .filter(|t| t.2)
        .map(|t| json!({"id": t.1, "content": t.0, "special": true}))
        .collect();
    Input {
        name: name.into(),
        folder: name.into(),
        vocab: Some(
            Vocab::from_json(
                json!({"added_tokens": added, "model": {"type": "BPE", "vocab": vocab, "merges": []}}),
            )
            .unwrap(),
        ),
        rows,
    }
}

fn spec(source: Vocabulary) -> Tokenizer {
    Tokenizer {
        source,
        tokens: Vec::new(),
        pad_to_multiple_of: None,
    }
}

#[test]
fn default_rows_without_a_base_token() {
    // `n` is in inputs 1 and 2 but not in 0: input 0 gets the mean; `k` only in 2.
    let inputs = [
        input("base", &[("a", 0, false)], 1),
        input("x", &[("a", 0, false), ("n", 1, false)], 2),
        input("y", &[("n", 0, false), ("k", 1, true), ("a", 2, false)], 3),
    ];
    let plan = plan(&inputs, Some(0), &spec(Vocabulary::Union)).unwrap();
    let names: Vec<_> = plan.tokens.iter().flatten().map(String::as_str).collect();
    assert_eq!(names, ["a", "n", "k"]);
    assert_eq!(
        plan.rows[0],
        [
            Row::Own(0),
            Row::Mean(vec![(1, 1), (2, 0)]),
            Row::Mean(vec![(2, 1)])
        ]
    );
    assert_eq!(
        plan.rows[1],
        [Row::Own(0), Row::Own(1), Row::Mean(vec![(2, 1)])]
    );
    assert_eq!(plan.rows[2], [Row::Own(2), Row::Own(0), Row::Own(1)]);
    let json: Value = serde_json::from_slice(&plan.tokenizer_json.unwrap()).unwrap();
    assert_eq!(json["added_tokens"][0]["content"], "n");
    assert_eq!(json["added_tokens"][0]["special"], false);
    assert_eq!(
        json["added_tokens"][1],
        json!({"id": 2, "content": "k", "special": true})
    );
}

#[test]
fn base_vocabulary_copies_files_unchanged() {
    let inputs = [
        input("base", &[("a", 0, false), ("b", 1, false)], 4),
        input("x", &[("b", 0, false)], 1),
    ];
    let plan = plan(&inputs, Some(0), &spec(Vocabulary::Base)).unwrap();
    assert_eq!(
        (plan.size, plan.tokenizer_json, plan.files_from),
        (2, None, 0)
    );
    assert_eq!(plan.rows[1], [Row::Mean(vec![(0, 0)]), Row::Own(0)]);
}

#[test]
fn fixed_tokens_force_and_padding() {
    let inputs = [
        input("base", &[("a", 0, false), ("b", 1, false)], 2),
        input("x", &[("a", 0, false)], 1),
    ];
    let mut spec = spec(Vocabulary::Base);
    spec.pad_to_multiple_of = Some(4);
    spec.tokens = vec![
        (
            "a".into(),
            Some(TokenSource::ModelToken {
                model: 0,
                token: TokenName::Id(1),
            }),
            true,
        ),
        ("b".into(), Some(TokenSource::Zero), false),
        ("new".into(), None, false),
    ];
    let plan = plan(&inputs, Some(0), &spec).unwrap();
    assert_eq!((plan.size, plan.padded_size), (3, 4));
    let forced = Row::Mean(vec![(0, 1)]);
    assert_eq!(
        plan.rows[0],
        [forced.clone(), Row::Own(1), Row::Zero, Row::MeanOfReal]
    );
    assert_eq!(
        plan.rows[1],
        [forced, Row::Zero, Row::Zero, Row::MeanOfReal]
    );
    assert!(
        plan.warnings.iter().any(|w| w.contains("new")),
        "{:?}",
        plan.warnings
    );
    let config = json!({"added_tokens_decoder": {"7": {"content": "gone"}}, "k": 1});
    let config = plan.edit_tokenizer_config(&config);
    assert_eq!(config["added_tokens_decoder"]["2"]["content"], "new");
    assert!(config["added_tokens_decoder"].get("7").is_none());
}

#[test]
fn a_missing_tokenizer_is_named() {
    let mut inputs = [
        input("base", &[("a", 0, false)], 1),
        input("x", &[("a", 0, false)], 2),
    ];
    inputs[1].vocab = None;
    let error = plan(&inputs, Some(0), &spec(Vocabulary::Union)).unwrap_err();
    assert_eq!(error.code(), "no-tokenizer");
    assert!(error.to_string().contains("x/tokenizer.json"), "{error}");
    assert!(
        error
            .hints()
            .iter()
            .any(|h| h.contains("--unsafe-truncate-embeddings"))
    );
    inputs[1].rows = 1;
    let plan = plan(&inputs, Some(0), &spec(Vocabulary::Union)).unwrap();
    assert!(plan.warnings[0].contains("no tokenizer files"));
    let mut wrong = self::spec(Vocabulary::Base);
    wrong.tokens = vec![("zz".into(), Some(TokenSource::Model(0)), false)];
    assert_eq!(
        super::plan(&inputs, Some(0), &wrong).unwrap_err().code(),
        "token-source"
    );
}

/// Assembles an input's vocabulary tensor by the plan, in f64.
fn assemble(plan: &VocabPlan, tensors: &[Vec<f32>], width: usize, m: usize) -> Vec<Vec<f64>> {
    let row = |m: usize, r: u32| -> Vec<f64> {
        let at = r as usize * width;
        tensors[m][at..at + width]
            .iter()
            .map(|v| f64::from(*v))
            .collect()
    };
    let mut out: Vec<Vec<f64>> = Vec::new();
    for source in &plan.rows[m] {
        out.push(match source {
            Row::Own(r) => row(m, *r),
            Row::Zero => vec![0.0; width],
            Row::Mean(list) => {
                let mut sum = vec![0.0; width];
                for (m, r) in list {
                    sum.iter_mut().zip(row(*m, *r)).for_each(|(s, v)| *s += v);
                }
                sum.iter().map(|s| s / list.len() as f64).collect()
            }
            Row::MeanOfReal => (0..width)
                .map(|c| out[..plan.size].iter().map(|r| r[c]).sum::<f64>() / plan.size as f64)
                .collect(),
        });
    }
    out
}

#[allow(
    clippy::print_stdout,
    reason = "a golden test says how many cases it compared"
)]
#[test]
fn golden_vocabulary_cases() {
    let root = golden().join("merging");
    let manifest = polyloom_core::checkpoint::read_json(&root.join("manifest.json")).unwrap();
    let mut ran = 0;
    for case in manifest["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let config = &case["config"];
        if config
            .get("tokenizer")
            .or(config.get("tokenizer_source"))
            .is_none()
        {
            continue;
        }
        ran += 1;
        let mut paths: Vec<&str> = config["models"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["model"].as_str().unwrap())
            .collect();
        let mut weights: Vec<f64> = config["models"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["parameters"]["weight"].as_f64().unwrap())
            .collect();
        paths.push(config["base_model"].as_str().unwrap());
        weights.push(config["parameters"]["weight"].as_f64().unwrap());
        let index = |path: &Value| paths.iter().position(|p| path == p).unwrap();
        let checkpoints: Vec<Checkpoint> = paths
            .iter()
            .map(|p| Checkpoint::open(root.join("models").join(&p[2..])).unwrap())
            .collect();
        let inputs: Vec<Input> = checkpoints
            .iter()
            .map(|c| Input {
                name: c.origin().display().to_string(),
                folder: c.origin().display().to_string(),
                vocab: Vocab::read(c.origin()).unwrap(),
                rows: c.get("model.embed_tokens.weight").unwrap().shape[0],
            })
            .collect();
        let tokenizer = config.get("tokenizer").cloned().unwrap_or_default();
        let source = tokenizer
            .get("source")
            .or(config.get("tokenizer_source"))
            .unwrap();
        let spec = Tokenizer {
            source: match source.as_str().unwrap() {
                "union" => Vocabulary::Union,
                "base" => Vocabulary::Base,
                _ => Vocabulary::Model(index(source)),
            },
            pad_to_multiple_of: tokenizer["pad_to_multiple_of"].as_u64().map(|n| n as usize),
            tokens: tokenizer["tokens"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(text, t)| {
                    let source = match t["source"]["kind"].as_str() {
                        Some("zero") => TokenSource::Zero,
                        Some("model_token") => TokenSource::ModelToken {
                            model: index(&t["source"]["model"]),
                            token: TokenName::Text(t["source"]["token"].as_str().unwrap().into()),
                        },
                        other => panic!("{other:?}"),
                    };
                    (
                        text.clone(),
                        Some(source),
                        t["force"].as_bool().unwrap_or(false),
                    )
                })
                .collect(),
        };
        let base = Some(paths.len() - 1);
        let plan = plan(&inputs, base, &spec).unwrap();
        assert_eq!(
            plan.padded_size as u64,
            case["expected_config"]["vocab_size"].as_u64().unwrap(),
            "{name}"
        );
        let expected_vocab = case["expected_config"]["output_vocab"].as_object().unwrap();
        assert_eq!(plan.size, expected_vocab.len(), "{name}");
        // Writing the plan's tokenizer.json and reading it back gives the same rows.
        if let Some(json) = &plan.tokenizer_json {
            let read = Vocab::from_json(serde_json::from_slice(json).unwrap()).unwrap();
            for (i, token) in plan.tokens.iter().enumerate() {
                assert_eq!(read.id(token.as_ref().unwrap()), Some(i), "{name}");
            }
        }
        let expected = Checkpoint::open(root.join(case["expected"].as_str().unwrap())).unwrap();
        let total: f64 = weights.iter().sum();
        let (rtol, atol) = (
            case["tolerance"]["rtol"].as_f64().unwrap(),
            case["tolerance"]["atol"].as_f64().unwrap(),
        );
        for tensor in ["model.embed_tokens.weight", "lm_head.weight"] {
            let stored = expected.get(tensor).unwrap();
            let width = stored.row_len();
            let want = expected.read_all(stored).unwrap();
            let data: Vec<Vec<f32>> = checkpoints
                .iter()
                .map(|c| c.read_all(c.get(tensor).unwrap()).unwrap())
                .collect();
            let parts: Vec<_> = (0..inputs.len())
                .map(|m| assemble(&plan, &data, width, m))
                .collect();
            for (row, token) in plan
                .tokens
                .iter()
                .map(Option::as_deref)
                .chain([None])
                .enumerate()
            {
                if row == plan.padded_size {
                    break;
                }
                let at = token.map_or(row, |t| expected_vocab[t].as_u64().unwrap() as usize);
                for c in 0..width {
                    let got: f64 = parts
                        .iter()
                        .zip(&weights)
                        .map(|(p, w)| p[row][c] * w)
                        .sum::<f64>()
                        / total;
                    let want = f64::from(want[at * width + c]);
                    assert!(
                        (got - want).abs() <= atol + rtol * want.abs(),
                        "{name}: {tensor} {token:?} column {c}: {got} but {want}"
                    );
                }
            }
        }
    }
    println!("golden: {ran} vocabulary cases");
    assert!(ran >= 4);
}
