//! Token ids of prompts, for the BPE tokenizers of Llama-, Mistral- and Qwen-style models.
//!
//! Reads the pipeline of `tokenizer.json` and refuses, by name, every part it does not implement, so that ids are
//! either those of the tokenizers library or none. Unicode normalisation is not implemented: text that it could
//! change is refused.

use std::collections::HashMap;

use regex::Regex;
use serde_json::{Map, Value};

use crate::error::{MergeError, Result};
use crate::vocab::Vocab;

/// Turns text into token ids without adding special tokens.
#[derive(Debug)]
pub struct PromptEncoder {
    vocab: Vocab,
    /// (left id, right id) -> (rank, merged id).
    merges: HashMap<(u32, u32), (usize, u32)>,
    normalizers: Vec<Normalizer>,
    splits: Vec<Split>,
    byte_fallback: bool,
    ignore_merges: bool,
    fuse_unknown: bool,
    unknown: Option<u32>,
}

#[derive(Debug)]
enum Normalizer {
    Prepend(String),
    Replace(String, String),
    Nfc,
}

#[derive(Debug)]
enum Split {
    /// Pieces are the matches and what lies between them.
    Pattern {
        pattern: Regex,
        trailing_space: bool,
    },
    /// Every digit, or every run of digits, alone.
    Digits { individual: bool },
    /// Bytes become printable characters.
    Bytes { prefix_space: bool },
    /// Spaces become a visible character that starts a piece.
    Metaspace {
        mark: char,
        prepend: Prepend,
        split: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Prepend {
    Always,
    First,
    Never,
}

/// The alternative that the `regex` crate cannot express; [`find_pieces`] does its work.
const LOOKAHEAD: &str = r"\s+(?!\S)|\s+";
/// GPT-2's pattern, which `ByteLevel` uses unless told not to.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

impl PromptEncoder {
    /// Builds an encoder from a parsed `tokenizer.json` and its tokens.
    pub fn new(json: &Value, vocab: Vocab) -> Result<Self> {
        let model = &json["model"];
        let kind = model["type"].as_str().unwrap_or("BPE");
        if kind != "BPE" || model.get("merges").is_none() {
            return Err(unsupported(format!("its model is {kind}")));
        }
        for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
            if model[key].as_str().is_some_and(|s| !s.is_empty()) {
                return Err(unsupported(format!("`model.{key}` is set")));
            }
        }
        let mut merges = HashMap::new();
        for (rank, merge) in model["merges"].as_array().into_iter().flatten().enumerate() {
            let pair = match merge {
                Value::String(text) => text.split_once(' '),
                _ => merge[0].as_str().zip(merge[1].as_str()),
            };
            let found = pair.and_then(|(a, b)| {
                let id = |text: &str| vocab.id(text).and_then(|id| u32::try_from(id).ok());
                Some(((id(a)?, id(b)?), id(&format!("{a}{b}"))?))
            });
            let Some((key, merged)) = found else {
                return Err(MergeError::plan(
                    "tokenizer",
                    format!("`model.merges[{rank}]` does not join two tokens to a third"),
                ));
            };
            merges.entry(key).or_insert((rank, merged));
        }
        let mut normalizers = Vec::new();
        add_normalizers(&json["normalizer"], &mut normalizers)?;
        let mut splits = Vec::new();
        add_splits(&json["pre_tokenizer"], &mut splits)?;
        let unknown = model["unk_token"]
            .as_str()
            .and_then(|t| vocab.id(t))
            .map(|id| id as u32);
        Ok(Self {
            vocab,
            merges,
            normalizers,
            splits,
            byte_fallback: model["byte_fallback"].as_bool().unwrap_or(false),
            ignore_merges: model["ignore_merges"].as_bool().unwrap_or(false),
            fuse_unknown: model["fuse_unk"].as_bool().unwrap_or(false),
            unknown,
        })
    }

    /// Token ids of `text`; special tokens written in the text count as such.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        // Added tokens match either the text as typed or the normalised text.
        for (start, part) in self.cut(text, false)? {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(raw) => {
                    let normal = self.normalize(raw)?;
                    for (inner, part) in self.cut(&normal, true)? {
                        match part {
                            Part::Token(id) => ids.push(id),
                            Part::Text(text) => {
                                self.encode_text(text, start + inner == 0, &mut ids)?;
                            }
                        }
                    }
                }
            }
        }
        Ok(ids)
    }

    /// Splits at added tokens with this `normalized` flag: leftmost first, then longest.
    fn cut<'t>(&self, text: &'t str, normalized: bool) -> Result<Vec<(usize, Part<'t>)>> {
        let added: Vec<(&str, u32, &Map<String, Value>)> = self
            .vocab
            .tokens()
            .iter()
            .filter_map(|(text, t)| Some((text.as_str(), t.id as u32, t.added.as_ref()?)))
            .filter(|(text, _, entry)| !text.is_empty() && flag(entry, "normalized") == normalized)
            .collect();
        let mut parts = Vec::new();
        let (mut from, mut at) = (0, 0);
        while at < text.len() {
            let hit = added
                .iter()
                .filter(|(token, ..)| text[at..].starts_with(token))
                .max_by_key(|(token, ..)| token.len());
            let Some((token, id, entry)) = hit else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
                continue;
            };
            if ["lstrip", "rstrip", "single_word"]
                .iter()
                .any(|key| flag(entry, key))
            {
                return Err(unsupported(format!(
                    "the prompt has the added token {token:?}, which strips or matches words"
                )));
            }
            if from < at {
                parts.push((from, Part::Text(&text[from..at])));
            }
            parts.push((at, Part::Token(*id)));
            at += token.len();
            from = at;
        }
        if from < text.len() {
            parts.push((from, Part::Text(&text[from..])));
        }
        Ok(parts)
    }

    fn normalize(&self, text: &str) -> Result<String> {
        let mut text = text.to_owned();
        for step in &self.normalizers {
            match step {
                Normalizer::Prepend(prefix) if !text.is_empty() => text.insert_str(0, prefix),
                Normalizer::Prepend(_) => {}
                Normalizer::Replace(from, to) => text = text.replace(from.as_str(), to),
                Normalizer::Nfc => {
                    if let Some(c) = text.chars().find(|c| !stable_under_nfc(*c)) {
                        return Err(unsupported(format!(
                            "it normalises Unicode (NFC), which could change {c:?} in the prompt"
                        ))
                        .hint("write the prompt without that character"));
                    }
                }
            }
        }
        Ok(text)
    }

    fn encode_text(&self, text: &str, at_start: bool, ids: &mut Vec<u32>) -> Result<()> {
        let mut pieces = vec![text.to_owned()];
        for split in &self.splits {
            let mut next = Vec::new();
            for (i, piece) in pieces.iter().enumerate() {
                split.apply(piece, at_start && i == 0, &mut next);
            }
            pieces = next;
        }
        for piece in pieces.iter().filter(|p| !p.is_empty()) {
            self.encode_piece(piece, ids)?;
        }
        Ok(())
    }

    fn encode_piece(&self, piece: &str, ids: &mut Vec<u32>) -> Result<()> {
        let id = |text: &str| self.vocab.id(text).map(|id| id as u32);
        if self.ignore_merges
            && let Some(id) = id(piece)
        {
            ids.push(id);
            return Ok(());
        }
        let mut word: Vec<u32> = Vec::new();
        let mut unknown_before = false;
        for c in piece.chars() {
            let mut buffer = [0; 4];
            let text: &str = c.encode_utf8(&mut buffer);
            let mut unknown_now = false;
            if let Some(id) = id(text) {
                word.push(id);
            } else {
                let bytes: Option<Vec<u32>> = if self.byte_fallback {
                    text.bytes().map(|b| id(&format!("<0x{b:02X}>"))).collect()
                } else {
                    None
                };
                match (bytes, self.unknown) {
                    (Some(bytes), _) => word.extend(bytes),
                    (None, Some(unknown)) => {
                        if !(self.fuse_unknown && unknown_before) {
                            word.push(unknown);
                        }
                        unknown_now = true;
                    }
                    // The tokenizers library leaves such characters out.
                    (None, None) => {}
                }
            }
            unknown_before = unknown_now;
        }
        // Lowest rank first, leftmost among equals.
        loop {
            let best = word
                .windows(2)
                .enumerate()
                .filter_map(|(i, w)| Some((self.merges.get(&(w[0], w[1]))?, i)))
                .min_by_key(|((rank, _), i)| (*rank, *i));
            let Some((&(_, merged), i)) = best else { break };
            word[i] = merged;
            word.remove(i + 1);
        }
        ids.extend(word);
        Ok(())
    }
}

enum Part<'t> {
    Token(u32),
    Text(&'t str),
}

fn flag(entry: &Map<String, Value>, key: &str) -> bool {
    entry.get(key).and_then(Value::as_bool).unwrap_or(false)
}

impl Split {
    fn apply(&self, piece: &str, first: bool, out: &mut Vec<String>) {
        match self {
            Self::Pattern {
                pattern,
                trailing_space,
            } => find_pieces(piece, pattern, *trailing_space, out),
            Self::Digits { individual } => {
                let mut run = String::new();
                let mut digits = false;
                for c in piece.chars() {
                    let is = c.is_numeric();
                    if !run.is_empty() && (is != digits || (is && *individual)) {
                        out.push(std::mem::take(&mut run));
                    }
                    digits = is;
                    run.push(c);
                }
                out.push(run);
            }
            Self::Bytes { prefix_space } => {
                let space = if *prefix_space && !piece.starts_with(' ') {
                    " "
                } else {
                    ""
                };
                out.push(space.bytes().chain(piece.bytes()).map(byte_char).collect());
            }
            Self::Metaspace {
                mark,
                prepend,
                split,
            } => {
                let mut text = piece.replace(' ', mark.encode_utf8(&mut [0; 4]));
                let add = match prepend {
                    Prepend::Always => true,
                    Prepend::First => first,
                    Prepend::Never => false,
                };
                if add && !text.starts_with(*mark) {
                    text.insert(0, *mark);
                }
                if !split {
                    out.push(text);
                    return;
                }
                let mut run = String::new();
                for c in text.chars() {
                    if c == *mark && !run.is_empty() {
                        out.push(std::mem::take(&mut run));
                    }
                    run.push(c);
                }
                out.push(run);
            }
        }
    }
}

/// Matches of `pattern` and the text between them. With `trailing_space` the pattern's last alternative is the group
/// `space`, standing for `\s+(?!\S)|\s+`: a run of spaces before a word leaves its last space to the word.
fn find_pieces(text: &str, pattern: &Regex, trailing_space: bool, out: &mut Vec<String>) {
    let (mut from, mut at) = (0, 0);
    while let Some(found) = pattern.captures_at(text, at) {
        let Some(whole) = found.get(0) else { break };
        let (start, mut end) = (whole.start(), whole.end());
        if trailing_space
            && found.name("space").is_some()
            && end < text.len()
            && let Some((last, _)) = text[start..end].char_indices().next_back()
            && last > 0
        {
            end = start + last;
        }
        if end == start {
            at = end + text[end..].chars().next().map_or(1, char::len_utf8);
            if at > text.len() {
                break;
            }
            continue;
        }
        if from < start {
            out.push(text[from..start].to_owned());
        }
        out.push(text[start..end].to_owned());
        from = end;
        at = end;
    }
    if from < text.len() {
        out.push(text[from..].to_owned());
    }
}

fn compile(pattern: &str) -> Result<Split> {
    let (text, trailing_space) = match pattern.strip_suffix(LOOKAHEAD) {
        Some(front) => (format!(r"{front}(?P<space>\s+)"), true),
        None => (pattern.to_owned(), false),
    };
    let pattern = Regex::new(&text).map_err(|_| {
        unsupported(format!(
            "its split pattern {pattern:?} needs another regex engine"
        ))
    })?;
    Ok(Split::Pattern {
        pattern,
        trailing_space,
    })
}

/// GPT-2's printable stand-in for a byte.
fn byte_char(byte: u8) -> char {
    let plain = |b: u8| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    if plain(byte) {
        char::from(byte)
    } else {
        let rank = (0..byte).filter(|b| !plain(*b)).count() as u32;
        char::from_u32(256 + rank).unwrap_or(' ')
    }
}

/// Characters that NFC leaves alone next to any other such character: below the first combining mark, and blocks
/// without marks or compositions.
fn stable_under_nfc(c: char) -> bool {
    matches!(c as u32,
        0..=0x2FF | 0x400..=0x482 | 0x48A..=0x52F | 0x2010..=0x2027 | 0x2030..=0x205E
        | 0x3041..=0x3096 | 0x30A1..=0x30FA | 0x4E00..=0x9FFF | 0xAC00..=0xD7A3 | 0x1F300..=0x1FAFF)
}

fn add_normalizers(json: &Value, out: &mut Vec<Normalizer>) -> Result<()> {
    match json["type"].as_str() {
        None => {}
        Some("Sequence") => {
            for step in json["normalizers"].as_array().into_iter().flatten() {
                add_normalizers(step, out)?;
            }
        }
        Some("NFC") => out.push(Normalizer::Nfc),
        Some("Prepend") => out.push(Normalizer::Prepend(
            json["prepend"].as_str().unwrap_or_default().to_owned(),
        )),
        Some("Replace") if json["pattern"]["String"].is_string() => out.push(Normalizer::Replace(
            json["pattern"]["String"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            json["content"].as_str().unwrap_or_default().to_owned(),
        )),
        Some(other) => return Err(unsupported(format!("its normalizer is {other}"))),
    }
    Ok(())
}

fn add_splits(json: &Value, out: &mut Vec<Split>) -> Result<()> {
    match json["type"].as_str() {
        None => {}
        Some("Sequence") => {
            for step in json["pretokenizers"].as_array().into_iter().flatten() {
                add_splits(step, out)?;
            }
        }
        Some("ByteLevel") => {
            // The leading space comes before the split, as a piece's first byte.
            let prefix_space = json["add_prefix_space"].as_bool().unwrap_or(true);
            let split = json["use_regex"].as_bool().unwrap_or(true);
            if split && prefix_space {
                return Err(unsupported(
                    "ByteLevel with add_prefix_space and its own pattern",
                ));
            }
            if split {
                out.push(compile(GPT2)?);
            }
            out.push(Split::Bytes { prefix_space });
        }
        Some("Split") => {
            let behavior = json["behavior"].as_str().unwrap_or_default();
            let invert = json["invert"].as_bool().unwrap_or(false);
            if behavior != "Isolated" || invert {
                return Err(unsupported(format!(
                    "its Split has behavior {behavior}, invert {invert}"
                )));
            }
            let pattern = &json["pattern"];
            match (pattern["Regex"].as_str(), pattern["String"].as_str()) {
                (Some(regex), _) => out.push(compile(regex)?),
                (_, Some(text)) => out.push(compile(&regex::escape(text))?),
                _ => return Err(unsupported("its Split has no pattern")),
            }
        }
        Some("Digits") => out.push(Split::Digits {
            individual: json["individual_digits"].as_bool().unwrap_or(false),
        }),
        Some("Metaspace") => {
            let mark = json["replacement"]
                .as_str()
                .and_then(|s| s.chars().next())
                .unwrap_or('\u{2581}');
            let prepend = match (
                json["prepend_scheme"].as_str(),
                json["add_prefix_space"].as_bool(),
            ) {
                (Some("never"), _) | (None, Some(false)) => Prepend::Never,
                (Some("first"), _) => Prepend::First,
                _ => Prepend::Always,
            };
            let split = json["split"].as_bool().unwrap_or(true);
            out.push(Split::Metaspace {
                mark,
                prepend,
                split,
            });
        }
        Some(other) => return Err(unsupported(format!("its pre-tokenizer is {other}"))),
    }
    Ok(())
}

fn unsupported(what: impl std::fmt::Display) -> MergeError {
    MergeError::plan(
        "prompt-tokenizer",
        format!("prompts cannot be cut into tokens by this tokenizer: {what}"),
    )
    .hint("gates from prompts read BPE tokenizers of the Llama, Mistral and Qwen kind")
    .hint("gate_mode random needs no tokens")
}
