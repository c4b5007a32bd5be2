//! The files beside the tensors: `config.json`, tokenizer and processor files, chat template, model card.

pub mod card;
pub mod chat_template;
pub mod config;

use std::path::{Component, Path, PathBuf};

use polyloom_core::checkpoint::read_json;

use crate::error::Result;

/// Files that travel from an input folder to the output as they are, if they exist.
const COMPANIONS: &[&str] = &[
    // Tokenizers.
    "added_tokens.json",
    "bpe.codes",
    "dict.txt",
    "merges.txt",
    "qwen.tiktoken",
    "sentencepiece.bpe.model",
    "source.spm",
    "special_tokens_map.json",
    "spiece.model",
    "spm.model",
    "target.spm",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.bpe",
    "vocab.json",
    "vocab.txt",
    // How rows of tables are prepared.
    "table.json",
    // Prompting and generation.
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    // Processors.
    "feature_extractor_config.json",
    "image_processor_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    // sentence-transformers.
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
];

/// Files of `folder` to copy to an output, relative and sorted: tokenizer, processor, generation and
/// sentence-transformers files, with the sub-folders that `modules.json` names (such as `1_Pooling`).
/// Never `config.json`, checkpoints of the folder itself, or code.
pub fn companion_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = COMPANIONS
        .iter()
        .map(PathBuf::from)
        .filter(|name| folder.join(name).is_file())
        .collect();
    let modules = folder.join("modules.json");
    if modules.is_file() {
        let json = read_json(&modules)?;
        for path in json
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|m| m.get("path")?.as_str())
        {
            let path = Path::new(path);
            // One plain name: a path from a file must not lead out of the folder.
            let mut parts = path.components();
            if !matches!(
                (parts.next(), parts.next()),
                (Some(Component::Normal(_)), None)
            ) {
                continue;
            }
            add_folder(folder, path, &mut files)?;
        }
    }
    add_folder(folder, Path::new("additional_chat_templates"), &mut files)?;
    files.sort();
    files.dedup();
    Ok(files)
}

fn add_folder(folder: &Path, sub: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let place = folder.join(sub);
    if !place.is_dir() {
        return Ok(());
    }
    let failed = |e| polyloom_core::Error::io(&place, "list", e);
    for entry in std::fs::read_dir(&place).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = PathBuf::from(entry.file_name());
        let code = name.extension().is_some_and(|e| e == "py");
        if entry.path().is_file() && !code {
            files.push(sub.join(name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companions_are_found_and_code_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let touch = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        touch("tokenizer.json", "{}");
        touch("config.json", "{}");
        touch("modeling_x.py", "");
        touch("model.safetensors", "");
        touch(
            "modules.json",
            r#"[{"path": ""}, {"path": "1_Pooling"}, {"path": "../other"}, {"path": "/etc"}]"#,
        );
        touch("1_Pooling/config.json", "{}");
        touch("1_Pooling/pool.py", "");
        let found = companion_files(dir.path()).unwrap();
        let want = ["1_Pooling/config.json", "modules.json", "tokenizer.json"];
        assert_eq!(found, want.map(PathBuf::from));
        touch("modules.json", "[");
        assert!(companion_files(dir.path()).is_err());
    }
}
