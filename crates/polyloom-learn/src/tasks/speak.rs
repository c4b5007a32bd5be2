//! Decoders on tasks: the likelihood of every choice after the prompt, or the text that they go on with.

use std::path::Path;

use polyloom::evaluate::board::score::answers::Answers;
use polyloom::evaluate::board::score::ask::{Asking, Question};

use crate::error::{Error, Result};
use crate::models::Source;
use crate::models::generate::{Sampling, generate_by, log_likelihoods_by};
use crate::models::open::{Model, Trunk};
use crate::models::voices::Voices;
use crate::text::Text;

/// What a decoder says of a task.
pub struct Spoken {
    /// Predictions, ready to be scored.
    pub answers: Answers,
    /// Answers without the number that was asked for; they are left out.
    pub unread: usize,
    /// Prompts whose beginning was cut off.
    pub cut: usize,
}

/// A decoder that is asked.
pub struct Speaker<'a> {
    voices: Voices<'a>,
    text: Text,
    most: usize,
}

impl<'a> Speaker<'a> {
    /// Of a model; `None` where it is no decoder. Prompts are cut to `most` tokens, from their beginning.
    ///
    /// # Errors
    /// No tokenizer, or a broken one.
    pub fn of(
        model: &'a Model,
        source: &'a dyn Source,
        most: Option<usize>,
    ) -> Result<Option<Self>> {
        let Trunk::Decoder(decoder) = &model.trunk else {
            return Ok(None);
        };
        let voices = Voices::alone(decoder, source);
        Self::with(voices, model, most).map(Some)
    }

    /// Of decoders that speak as one; `model` is the one whose tokens they all have.
    ///
    /// # Errors
    /// No tokenizer, or a broken one.
    pub fn with(voices: Voices<'a>, model: &Model, most: Option<usize>) -> Result<Self> {
        Ok(Self {
            // The end of a prompt must stay; it is cut here.
            text: model.tokens(usize::MAX)?,
            most: most.unwrap_or(usize::MAX).min(voices.room()),
            voices,
        })
    }

    /// Answers to all questions of a task. `path` and `hash` say who answers.
    ///
    /// # Errors
    /// A prompt or a choice of no tokens, prompts and answers that have no room, and what the decoder refuses.
    pub fn answers(&self, asking: &Asking, path: &Path, hash: &str) -> Result<Spoken> {
        let mut cut = 0;
        if asking.has_choices() {
            let mut found = Vec::with_capacity(asking.questions.len());
            for question in &asking.questions {
                found.push(self.likelihoods(question, &mut cut)?);
            }
            return Ok(Spoken {
                answers: asking.likelihoods(path, hash, &found),
                unread: 0,
                cut,
            });
        }
        let mut said = Vec::with_capacity(asking.questions.len());
        for question in &asking.questions {
            said.push(self.text(question, asking, &mut cut)?);
        }
        let (answers, unread) = asking.answers(path, hash, &said);
        Ok(Spoken {
            answers,
            unread,
            cut,
        })
    }

    /// Logarithm of the probability of each choice, and how many tokens it has.
    fn likelihoods(&self, question: &Question, cut: &mut usize) -> Result<Vec<(f64, usize)>> {
        let context = self.text.beginning(&question.prompt)?;
        let mut continuations = Vec::with_capacity(question.choices.len());
        for choice in &question.choices {
            // Where a word begins is known only in the whole.
            let whole = self
                .text
                .beginning(&format!("{}{}{choice}", question.prompt, question.lead))?;
            continuations.push(whole.get(context.len()..).unwrap_or_default().to_vec());
        }
        let longest = continuations.iter().map(Vec::len).max().unwrap_or(0);
        let context = self.fitted(context, longest, question, cut)?;
        let scores = log_likelihoods_by(&self.voices, &context, &continuations)
            .map_err(|e| named(question, &e))?;
        let lengths = continuations.iter().map(Vec::len);
        Ok(scores.into_iter().map(|(x, _)| x).zip(lengths).collect())
    }

    /// The text that follows a prompt, up to the first stop.
    fn text(&self, question: &Question, asking: &Asking, cut: &mut usize) -> Result<String> {
        let how = &asking.generation;
        let context = self.text.beginning(&question.prompt)?;
        let context = self.fitted(context, how.max_tokens as usize, question, cut)?;
        let sampling = Sampling {
            temperature: how.temperature as f32,
            seed: u64::from(question.attempt),
            ..Sampling::greedy()
        };
        let first = |text: &str| how.stop.iter().filter_map(|s| text.find(s.as_str())).min();
        let mut found = Vec::new();
        let tokens = generate_by(
            &self.voices,
            &context,
            how.max_tokens as usize,
            self.text.ends(),
            sampling,
            &mut |token| {
                found.push(token);
                // What cannot be written yet stops nothing.
                self.text
                    .text(&found)
                    .map_or(true, |text| first(&text).is_none())
            },
        )
        .map_err(|e| named(question, &e))?;
        let mut text = self.text.text(&tokens)?;
        if let Some(at) = first(&text) {
            text.truncate(at);
        }
        Ok(text)
    }

    /// The end of a context that leaves room for an answer.
    fn fitted(
        &self,
        mut context: Vec<u32>,
        answer: usize,
        question: &Question,
        cut: &mut usize,
    ) -> Result<Vec<u32>> {
        let room = self.most.saturating_sub(answer);
        if room == 0 {
            let error = Error::TooLong {
                tokens: answer,
                most: self.most,
            };
            return Err(named(question, &error));
        }
        if context.len() > room {
            *cut += 1;
            context.drain(..context.len() - room);
        }
        Ok(context)
    }
}

/// Says whether models have the same tokens, by a sentence that most tokenizers cut into many.
///
/// # Errors
/// A model with other tokens than the first, no tokenizer.
pub fn same_tokens(models: &[&Model]) -> Result<()> {
    let sentence = "Zebras jumped over 13,507 quick-witted foxes; naïve? _No_: {x} = \"y\".";
    let mut first = None;
    for model in models {
        let mut ids = model.tokens(usize::MAX)?.encode(&[(sentence, None)])?;
        let ids = ids.pop().map(|t| t.ids);
        if *first.get_or_insert_with(|| ids.clone()) != ids {
            let what = "has other tokens than the large model; fusion adds logits token by token";
            let place = model.folder.display().to_string();
            return Err(polyloom::MergeError::plan("bad-fusion", what)
                .at(place)
                .into());
        }
    }
    Ok(())
}

/// Says which example an error belongs to.
fn named(question: &Question, error: &Error) -> Error {
    let what = format!("example `{}`: {error}", question.id);
    polyloom::MergeError::plan("not-answered", what).into()
}
