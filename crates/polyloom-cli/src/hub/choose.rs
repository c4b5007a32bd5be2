//! Which files of a repository a merge reads.

use std::collections::BTreeSet;

/// How a reference uses a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// As a model.
    Model,
    /// As the part after `+`.
    Adapter,
}

/// Why no weights can be chosen.
#[derive(Debug, PartialEq, Eq)]
pub enum Unclear {
    /// There are none in a format that is read.
    Nothing,
    /// Several files of this ending and nothing that says how they belong together.
    Several(&'static str, usize),
}

/// The weight files to take, indexes first, in the order of preference in which a folder is opened: safetensors before
/// `.bin` before the rest, one representation only. `shards_of` lists the files that an index names.
///
/// # Errors
/// Those of `shards_of`; the inner result says why there is no choice.
pub fn weights<E>(
    names: &BTreeSet<String>,
    role: Role,
    mut shards_of: impl FnMut(&str) -> Result<Vec<String>, E>,
) -> Result<Result<Vec<String>, Unclear>, E> {
    let has = |name: &str| names.contains(name);
    let one = |name: &str| Ok(Ok(vec![name.to_owned()]));
    let adapter = ["adapter_model.safetensors", "adapter_model.bin"]
        .into_iter()
        .find(|n| has(n));
    if role == Role::Adapter
        && let Some(name) = adapter
    {
        return one(name);
    }
    let mut by_index = |index: &str| -> Result<Result<Vec<String>, Unclear>, E> {
        let mut files = shards_of(index)?;
        files.sort();
        files.dedup();
        files.insert(0, index.to_owned());
        Ok(Ok(files))
    };
    for single in ["model.safetensors", "pytorch_model.bin"] {
        if has(single) {
            return one(single);
        }
        let index = format!("{single}.index.json");
        if has(&index) {
            return by_index(&index);
        }
        if single == "model.safetensors"
            && let Some(name) = adapter
            && !has("pytorch_model.bin")
            && !has("pytorch_model.bin.index.json")
        {
            return one(name);
        }
    }
    let root = || names.iter().filter(|n| !n.contains('/'));
    for suffix in [".safetensors.index.json", ".bin.index.json"] {
        if let Some(index) = root().find(|n| n.ends_with(suffix)) {
            return by_index(index);
        }
    }
    for suffix in [".safetensors", ".bin", ".pt", ".pth", ".gguf"] {
        let found: Vec<String> = root()
            .filter(|n| n.ends_with(suffix) && !is_state_of_training(n))
            .cloned()
            .collect();
        match found.len() {
            0 => {}
            1 => return Ok(Ok(found)),
            n if counted_in_full(&found) => {
                debug_assert!(n > 1);
                return Ok(Ok(found));
            }
            n => return Ok(Err(Unclear::Several(suffix, n))),
        }
    }
    Ok(Err(Unclear::Nothing))
}

/// The files that an index names.
pub fn shards(index: &[u8]) -> Option<Vec<String>> {
    let json: serde_json::Value = serde_json::from_slice(index).ok()?;
    let files: Option<BTreeSet<String>> = json["weight_map"]
        .as_object()?
        .values()
        .map(|v| v.as_str().map(str::to_owned))
        .collect();
    Some(files?.into_iter().collect())
}

fn is_state_of_training(name: &str) -> bool {
    matches!(
        name,
        "training_args.bin"
            | "optimizer.bin"
            | "optimizer.pt"
            | "scheduler.bin"
            | "scheduler.pt"
            | "rng_state.pth"
            | "scaler.pt"
    )
}

/// True if the names are `...-00001-of-00003...` for all numbers up to the count.
fn counted_in_full(names: &[String]) -> bool {
    let number = |text: &str| -> Option<usize> {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let mut seen = BTreeSet::new();
    for name in names {
        let Some((before, after)) = name.split_once("-of-") else {
            return false;
        };
        let digits = before.len() - before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (Some(i), Some(n)) = (number(&before[before.len() - digits..]), number(after)) else {
            return false;
        };
        if n != names.len() {
            return false;
        }
        seen.insert(i);
    }
    seen.len() == names.len()
}

/// True for the small files that belong to a model: configuration, tokenizer, chat template, licence.
pub fn is_companion(name: &str) -> bool {
    if let Some(template) = name.strip_prefix("additional_chat_templates/") {
        return !template.contains('/') && template.ends_with(".jinja");
    }
    if name.contains('/') || name.starts_with('.') || name.ends_with(".index.json") {
        return false;
    }
    let training = [
        "trainer_state.json",
        "all_results.json",
        "train_results.json",
        "eval_results.json",
        "flax_model.json",
    ];
    let endings = [".json", ".txt", ".model", ".jinja", ".tiktoken"];
    !training.contains(&name)
        && (endings.iter().any(|e| name.ends_with(e))
            || name.starts_with("LICENSE")
            || name.starts_with("NOTICE"))
}

/// True for a name that stays inside the folder it is put into.
pub fn is_inside(name: &str) -> bool {
    !name.is_empty()
        && name.len() < 512
        && !name.contains(['\\', ':'])
        && !name.chars().any(char::is_control)
        && name
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(names: &[&str], role: Role) -> Result<Vec<String>, Unclear> {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        let shards = |index: &str| -> Result<Vec<String>, ()> {
            let stem = index.split('.').next().unwrap();
            Ok(vec![
                format!("{stem}-2"),
                format!("{stem}-1"),
                format!("{stem}-2"),
            ])
        };
        weights(&names, role, shards).unwrap()
    }

    #[test]
    fn one_representation_is_taken_and_safetensors_first() {
        let all = [
            "model.safetensors",
            "pytorch_model.bin",
            "tf_model.h5",
            "flax_model.msgpack",
            "onnx/model.onnx",
            "adapter_model.safetensors",
        ];
        assert_eq!(pick(&all, Role::Model).unwrap(), ["model.safetensors"]);
        assert_eq!(
            pick(&all[1..5], Role::Model).unwrap(),
            ["pytorch_model.bin"]
        );
        assert_eq!(
            pick(&all, Role::Adapter).unwrap(),
            ["adapter_model.safetensors"]
        );
        assert_eq!(
            pick(&["a.q4.gguf", "a.q8.gguf"], Role::Model),
            Err(Unclear::Several(".gguf", 2))
        );
        assert_eq!(
            pick(&["onnx/model.onnx"], Role::Model),
            Err(Unclear::Nothing)
        );
    }

    #[test]
    fn an_index_decides_over_what_else_lies_there() {
        let names = ["consolidated.safetensors", "model.safetensors.index.json"];
        assert_eq!(
            pick(&names, Role::Model).unwrap(),
            ["model.safetensors.index.json", "model-1", "model-2"]
        );
    }

    #[test]
    fn shards_without_an_index_are_taken_only_in_full() {
        let both = [
            "a-00001-of-00002.bin",
            "a-00002-of-00002.bin",
            "training_args.bin",
        ];
        assert_eq!(pick(&both, Role::Model).unwrap().len(), 2);
        assert_eq!(
            pick(
                &["a-00001-of-00003.bin", "a-00002-of-00003.bin"],
                Role::Model
            ),
            Err(Unclear::Several(".bin", 2))
        );
    }

    #[test]
    fn companions_are_what_a_merged_folder_needs() {
        for yes in [
            "config.json",
            "tokenizer.model",
            "merges.txt",
            "chat_template.jinja",
            "LICENSE.md",
        ] {
            assert!(is_companion(yes), "{yes}");
        }
        for no in [
            "README.md",
            "modeling_x.py",
            "onnx/config.json",
            ".gitattributes",
            "model.safetensors.index.json",
        ] {
            assert!(!is_companion(no), "{no}");
        }
    }

    #[test]
    fn names_of_a_server_cannot_leave_the_folder() {
        for bad in [
            "../x",
            "a/../../x",
            "/etc/x",
            "a\\b",
            "c:x",
            "",
            "a//b",
            "a\n",
        ] {
            assert!(!is_inside(bad), "{bad:?}");
        }
        assert!(is_inside("additional_chat_templates/tool.jinja"));
    }
}
