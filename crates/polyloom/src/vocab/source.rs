//! A model's tokens, read from its tokenizer files.

use std::path::Path;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use polyloom_core::checkpoint::read_json;

use crate::error::{MergeError, Result};

/// One token of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its id, the row of the embedding.
    pub id: usize,
    /// Its `added_tokens` entry, if it has one.
    pub added: Option<Map<String, Value>>,
}

/// The tokens of one model, ordered by id.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocab {
    pub(super) tokens: IndexMap<String, Token>,
    pub(super) json: Option<Value>,
}

impl Vocab {
    /// Reads `tokenizer.json`, else `vocab.txt` (one token per line) or `vocab.json` with `added_tokens.json`.
    /// `None` if the folder has none of them.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let at = |name: &str| folder.join(name);
        if at("tokenizer.json").exists() {
            let json = read_json(&at("tokenizer.json"))?;
            return Self::from_json(json)
                .map(Some)
                .map_err(|e| e.at(at("tokenizer.json").display().to_string()));
        }
        let mut pairs: Vec<(String, usize)> = Vec::new();
        if at("vocab.txt").exists() {
            let path = at("vocab.txt");
            let text = std::fs::read_to_string(&path)
                .map_err(|e| polyloom_core::Error::io(&path, "read", e))?;
            pairs.extend(
                text.lines()
                    .enumerate()
                    .map(|(i, line)| (line.to_owned(), i)),
            );
        } else if at("vocab.json").exists() {
            pairs = ids(&read_json(&at("vocab.json"))?)
                .map_err(|e| e.at(at("vocab.json").display().to_string()))?;
        } else {
            return Ok(None);
        }
        let added = at("added_tokens.json");
        let mut extra = Vec::new();
        if added.exists() {
            extra = ids(&read_json(&added)?).map_err(|e| e.at(added.display().to_string()))?;
        }
        let mut vocab = Self::build(pairs, Vec::new());
        for (text, id) in extra {
            let added = plain_entry(id, &text);
            vocab.tokens.entry(text).or_insert(Token {
                id,
                added: Some(added),
            });
        }
        vocab.tokens.sort_by(|_, a, _, b| a.id.cmp(&b.id));
        Ok(Some(vocab))
    }

    /// Reads a parsed `tokenizer.json`: `model.vocab` as a map (BPE, WordPiece, WordLevel) or a list of
    /// `[token, score]` (Unigram), and `added_tokens`.
    pub fn from_json(json: Value) -> Result<Self> {
        let vocab = json
            .get("model")
            .and_then(|m| m.get("vocab"))
            .ok_or_else(|| bad("has no `model.vocab`"))?;
        let pairs = match vocab {
            Value::Object(_) => ids(vocab)?,
            Value::Array(list) => list
                .iter()
                .enumerate()
                .map(|(id, entry)| match entry.get(0).and_then(Value::as_str) {
                    Some(text) => Ok((text.to_owned(), id)),
                    None => Err(bad(format!("`model.vocab[{id}]` is not [token, score]"))),
                })
                .collect::<Result<_>>()?,
            _ => return Err(bad("`model.vocab` is neither a map nor a list")),
        };
        let mut added = Vec::new();
        for entry in json
            .get("added_tokens")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let (Some(text), Some(id), Some(map)) = (
                entry.get("content").and_then(Value::as_str),
                entry.get("id").and_then(Value::as_u64),
                entry.as_object(),
            ) else {
                return Err(bad("an entry of `added_tokens` has no `id` and `content`"));
            };
            let id = usize::try_from(id).map_err(|_| bad("an id is too large"))?;
            added.push((text.to_owned(), id, map.clone()));
        }
        let mut out = Self::build(pairs, added);
        out.json = Some(json);
        Ok(out)
    }

    fn build(pairs: Vec<(String, usize)>, added: Vec<(String, usize, Map<String, Value>)>) -> Self {
        let mut tokens = IndexMap::with_capacity(pairs.len() + added.len());
        for (text, id) in pairs {
            tokens.entry(text).or_insert(Token { id, added: None });
        }
        for (text, id, entry) in added {
            // A token that the model itself has keeps the model's id, as in the tokenizers library.
            let token = tokens.entry(text).or_insert(Token { id, added: None });
            token.added = Some(entry);
        }
        // Two strings with one id (a damaged file) keep file order, so that the result is still one fixed answer.
        tokens.sort_by(|_, a, _, b| a.id.cmp(&b.id));
        Self { tokens, json: None }
    }

    /// Tokens in id order.
    pub fn tokens(&self) -> &IndexMap<String, Token> {
        &self.tokens
    }

    /// Id of a token.
    pub fn id(&self, token: &str) -> Option<usize> {
        self.tokens.get(token).map(|t| t.id)
    }

    /// Removes tokens without a row in the embedding; returns how many there were.
    pub(super) fn drop_beyond(&mut self, rows: usize) -> usize {
        let before = self.tokens.len();
        self.tokens.retain(|_, t| t.id < rows);
        let dropped = before - self.tokens.len();
        if dropped > 0
            && let Some(json) = &mut self.json
        {
            drop_from_json(json, rows);
        }
        dropped
    }
}

/// Removes ids at and above `rows` from a `tokenizer.json`, with the merges that would need or make them.
fn drop_from_json(json: &mut Value, rows: usize) {
    let keep = |id: Option<u64>| id.is_some_and(|id| id < rows as u64);
    if let Some(added) = json.get_mut("added_tokens").and_then(Value::as_array_mut) {
        added.retain(|e| keep(e.get("id").and_then(Value::as_u64)));
    }
    let Some(model) = json.get_mut("model") else {
        return;
    };
    let mut gone = std::collections::BTreeSet::new();
    match model.get_mut("vocab") {
        Some(Value::Object(map)) => map.retain(|text, id| {
            let kept = keep(id.as_u64());
            if !kept {
                gone.insert(text.clone());
            }
            kept
        }),
        Some(Value::Array(list)) => list.truncate(rows),
        _ => {}
    }
    if let Some(merges) = model.get_mut("merges").and_then(Value::as_array_mut) {
        merges.retain(|merge| {
            let (a, b) = match merge {
                Value::String(s) => match s.split_once(' ') {
                    Some((a, b)) => (a, b),
                    None => return true,
                },
                Value::Array(pair) => match (
                    pair.first().and_then(Value::as_str),
                    pair.get(1).and_then(Value::as_str),
                ) {
                    (Some(a), Some(b)) => (a, b),
                    _ => return true,
                },
                _ => return true,
            };
            !gone.contains(a) && !gone.contains(b) && !gone.contains(&format!("{a}{b}"))
        });
    }
}

/// The entry that the tokenizers library writes for a token added without further settings.
pub(super) fn plain_entry(id: usize, text: &str) -> Map<String, Value> {
    let entry = json!({
        "id": id,
        "content": text,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": true,
        "special": false,
    });
    match entry {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn ids(map: &Value) -> Result<Vec<(String, usize)>> {
    let Value::Object(map) = map else {
        return Err(bad("is not a map from token to id"));
    };
    map.iter()
        .map(|(text, id)| {
            id.as_u64()
                .and_then(|id| usize::try_from(id).ok())
                .map(|id| (text.clone(), id))
                .ok_or_else(|| bad(format!("the id of token {text:?} is not a whole number")))
        })
        .collect()
}

fn bad(what: impl Into<String>) -> MergeError {
    MergeError::plan("tokenizer", what)
        .hint("the file is damaged or not made by the tokenizers library; copy the original again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unigram_lists_and_added_tokens() {
        let vocab = Vocab::from_json(json!({
            "added_tokens": [{"id": 3, "content": "<x>", "special": true}],
            "model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0], ["<x>", 0.0]]},
        }))
        .unwrap();
        assert_eq!(vocab.id("b"), Some(1));
        assert_eq!(vocab.id("<x>"), Some(2), "the model's id wins");
        assert!(vocab.tokens()["<x>"].added.is_some());
    }

    #[test]
    fn ids_without_a_row_go_with_their_merges() {
        let mut vocab = Vocab::from_json(json!({
            "added_tokens": [{"id": 4, "content": "<pad>", "special": true}],
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "ba": 3},
                      "merges": ["a b", ["b", "a"]]},
        }))
        .unwrap();
        assert_eq!(vocab.drop_beyond(3), 2);
        let json = vocab.json.unwrap();
        assert_eq!(json["model"]["merges"], json!(["a b"]));
        assert_eq!(json["model"]["vocab"], json!({"a": 0, "b": 1, "ab": 2}));
        assert_eq!(json["added_tokens"], json!([]));
    }

    #[test]
    fn text_files_stand_in_for_tokenizer_json() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Vocab::read(dir.path()).unwrap(), None);
        std::fs::write(dir.path().join("vocab.txt"), "[PAD]\nb\na\n").unwrap();
        std::fs::write(dir.path().join("added_tokens.json"), r#"{"<x>": 3}"#).unwrap();
        let vocab = Vocab::read(dir.path()).unwrap().unwrap();
        assert_eq!(vocab.id("a"), Some(2));
        assert_eq!(vocab.id("<x>"), Some(3));
        std::fs::write(
            dir.path().join("tokenizer.json"),
            r#"{"model": {"vocab": 3}}"#,
        )
        .unwrap();
        assert!(Vocab::read(dir.path()).is_err());
    }
}
