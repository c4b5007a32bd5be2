//! Rows of a task as a decoder learns them: texts to go on with, or answers to prompts.

use polyloom::evaluate::board::score::ask::{self, Settings, Style};
use polyloom::evaluate::board::score::examples::{self, is_taken};
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::text::Text;

/// What is learned of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Learn {
    /// Its texts, every token of them.
    #[default]
    Texts,
    /// The right answer to the task's prompt: the prompt is read, the answer alone counts.
    Answers,
}

/// A text, the first part of it given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What is read and does not count.
    pub given: String,
    /// What is learned.
    pub learned: String,
}

/// Tokens of a text, or of a block of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Tokens, at least two.
    pub ids: Vec<u32>,
    /// Place of the first token that counts, at least 1: what nothing stands before is not foretold.
    pub from: usize,
    /// Place of the line that it is made of; of a block 0.
    pub line: usize,
}

impl Sequence {
    /// Tokens that count.
    #[must_use]
    pub fn counted(&self) -> usize {
        self.ids.len().saturating_sub(self.from)
    }
}

/// What is learned of the rows of a split, at most `limit` texts or answers (spread evenly). Prompts are those that an
/// evaluation of a decoder uses, without examples: the task's first, or that of the id `prompt`; rows that do not say what is right are left out.
///
/// # Errors
/// As [`examples::texts`] and [`ask::questions`].
pub fn lines(
    spec: &TaskSpec,
    loader: &Loader<'_>,
    split: &str,
    learn: Learn,
    prompt: Option<&str>,
    limit: Option<usize>,
) -> Result<Vec<Line>> {
    let all: Vec<Line> = match learn {
        Learn::Texts => {
            let line = |learned| Line {
                given: String::new(),
                learned,
            };
            let texts = examples::texts(spec, loader, split)?;
            texts.into_iter().map(line).collect()
        }
        Learn::Answers => {
            let settings = Settings {
                split: split.to_owned(),
                limit: None,
                style: Style::Completion,
                prompt: prompt.map(str::to_owned),
                fewshot: Some(0),
                max_tokens: None,
                raw: false,
            };
            let questions = ask::questions(spec, loader, &settings)?.questions;
            let first = questions.into_iter().filter(|q| q.attempt == 0);
            first
                .filter_map(|q| {
                    Some(Line {
                        learned: format!("{}{}", q.lead, q.answer?),
                        given: q.prompt,
                    })
                })
                .collect()
        }
    };
    let n = all.len();
    let taken = (0..).zip(all).filter(|(i, _)| is_taken(*i, n, limit));
    Ok(taken.map(|(_, line)| line).collect())
}

/// Tokens of lines, each with the token that ends a text, where the tokenizer has one. A sequence has at most `most`
/// tokens: of a text the first, of a prompt with its answer the last. With `pack` all texts stand one after the other and
/// are cut into blocks of `most`. Sequences of which no token counts are left out.
///
/// # Errors
/// What the tokenizer refuses.
pub fn sequences(text: &Text, lines: &[Line], most: usize, pack: bool) -> Result<Vec<Sequence>> {
    let mut found = Vec::with_capacity(lines.len());
    let mut stream = Vec::new();
    for (place, line) in lines.iter().enumerate() {
        let most = if pack { usize::MAX } else { most };
        let one = sequence(text, line, most)?;
        match pack {
            true => stream.extend(one.ids),
            false => found.push(Sequence { line: place, ..one }),
        }
    }
    found.extend(stream.chunks(most.max(1)).map(|block| Sequence {
        ids: block.to_vec(),
        from: 1,
        line: 0,
    }));
    found.retain(|s| s.counted() > 0);
    Ok(found)
}

/// Tokens of one line, as [`sequences`] has them; it may be too short for a token to count.
///
/// # Errors
/// What the tokenizer refuses.
pub fn sequence(text: &Text, line: &Line, most: usize) -> Result<Sequence> {
    let whole = format!("{}{}", line.given, line.learned);
    let mut ids = text
        .encode(&[(&*whole, None)])?
        .pop()
        .map(|t| t.ids)
        .unwrap_or_default();
    if let Some(end) = text.ends().first()
        && ids.last().is_none_or(|t| !text.ends().contains(t))
    {
        ids.push(*end);
    }
    let mut from = 0;
    if line.given.is_empty() {
        ids.truncate(most);
    } else {
        from = text.beginning(&line.given)?.len();
        let over = ids.len().saturating_sub(most);
        ids.drain(..over);
        from = from.saturating_sub(over);
    }
    Ok(Sequence {
        ids,
        from: from.max(1),
        line: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::byte_pairs;

    fn line(given: &str, learned: &str) -> Line {
        Line {
            given: given.to_owned(),
            learned: learned.to_owned(),
        }
    }

    #[test]
    fn texts_are_packed_or_cut_and_answers_alone_count() {
        // Bytes alone: one token each; the end is token 0.
        let made = byte_pairs(&[], 257).unwrap();
        let text = Text::read(&made.tokenizer, usize::MAX).unwrap();
        let ids = |s: &str| text.encode(&[(s, None)]).unwrap().remove(0).ids;
        let lines = [line("", "abc"), line("", "de"), line("", "")];
        let found = sequences(&text, &lines, 4, false).unwrap();
        let with_end = |s: &str| [ids(s), vec![0]].concat();
        // A text of nothing has nothing to foretell.
        let of = |ids: Vec<u32>, from| Sequence { ids, from, line: 0 };
        let second = Sequence {
            line: 1,
            ..of(with_end("de"), 1)
        };
        assert_eq!(found, [of(with_end("abc"), 1), second]);
        let cut = sequences(&text, &lines[..1], 2, false).unwrap();
        assert_eq!(cut, [of(ids("ab"), 1)]);
        let packed = sequences(&text, &lines[..2], 3, true).unwrap();
        let stream = [with_end("abc"), with_end("de")].concat();
        // The last block, one token, foretells nothing.
        assert_eq!(
            packed,
            [of(stream[..3].to_vec(), 1), of(stream[3..6].to_vec(), 1)]
        );
        let answer = [line("xyz:", " a")];
        let found = sequences(&text, &answer, 10, false).unwrap();
        assert_eq!(found, [of(with_end("xyz: a"), 4)]);
        assert_eq!(found[0].counted(), 3);
        // The prompt loses its beginning; of an answer that is too long the first token that is left is not foretold.
        let short = sequences(&text, &answer, 4, false).unwrap();
        assert_eq!(short, [of(with_end(": a"), 1)]);
        let shorter = sequences(&text, &answer, 2, false).unwrap();
        assert_eq!(shorter, [of(with_end("a"), 1)]);
    }
}
