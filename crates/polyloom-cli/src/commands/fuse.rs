//! Dynamic logits fusion: small models beside a large one, for `eval` and `run`.

use polyloom::MergeError;
use polyloom::evaluate::board::score::answers::Answers;
use polyloom::evaluate::board::score::ask;
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;
use polyloom_learn::models::Source;
use polyloom_learn::models::fusion::{Fusion, Search};
use polyloom_learn::models::generate::generate_by;
use polyloom_learn::models::open::Model;
use polyloom_learn::models::voices::Voices;
use polyloom_learn::tasks::content::Hashes;
use polyloom_learn::tasks::evaluate::{self, Fellow, Found, Heard, Run, Shelf};
use polyloom_learn::tasks::speak::{Speaker, Spoken, same_tokens};
use polyloom_learn::tasks::system::{Ready, no_head, together};
use polyloom_learn::tasks::{Base, Opened, System};
use serde_json::json;

use super::run::{self, Input, Sink};
use crate::args_fuse::FuseArgs;
use crate::args_run::{Kind, RunArgs};
use crate::ui::{Failure, Ui};

/// The small base, then the small experts, in memory.
pub struct Small {
    systems: Vec<(System, Base)>,
    fusion: Fusion,
    /// What results depend on: their content and the search.
    key: String,
}

/// The rule that is asked for.
pub fn rule(args: &FuseArgs) -> Fusion {
    Fusion {
        search: match args.fuse_full {
            true => Search::FullGrid,
            false => Search::OneActive,
        },
        ..Fusion::default()
    }
}

/// The small base and the small experts by name, in this order.
pub fn names(args: &FuseArgs) -> impl Iterator<Item = &String> {
    args.fuse_base.iter().chain(&args.fuse)
}

impl Small {
    /// Opens them; nothing where nothing is fused. Texts are cut to `most` tokens.
    pub fn open(args: &FuseArgs, most: Option<usize>, ui: &Ui) -> Result<Option<Self>, Failure> {
        if args.fuse.is_empty() {
            return Ok(None);
        }
        let fusion = rule(args);
        fusion.check(args.fuse.len())?;
        let (mut systems, mut hashes) = (Vec::new(), Hashes::new());
        let mut key = format!(" fused {:?}", fusion.search);
        for name in names(args) {
            let system = System::find(name, None, None)?;
            key.push_str(&format!(" {}", system.hash(&mut hashes)?));
            let most = match most {
                Some(n) => Some(n),
                None => system.max_length()?,
            };
            let base = Base::whole(&system, most)?;
            let warnings = &base.opened.warnings;
            warnings
                .iter()
                .for_each(|w| ui.warning(&format!("{name}: {w}")));
            systems.push((system, base));
        }
        Ok(Some(Self {
            systems,
            fusion,
            key,
        }))
    }

    /// The hash of a large model with them.
    pub fn hash(&self, large: &str) -> String {
        let all = format!("{large}{}", self.key);
        format!("xxh3-64:{:016x}", polyloom_core::hash::xxh3(all.as_bytes()))
    }

    fn ready(&self) -> Vec<Ready<'_>> {
        // Adapters are in the weights already.
        self.systems.iter().map(|(_, base)| base.alone()).collect()
    }

    /// What all models say of a task, as [`Run::hear`] has it for one: by their heads, else in words.
    pub fn hear(
        &self,
        run: &Run<'_>,
        (spec, loader): (&TaskSpec, &Loader<'_>),
        (found, shelf): (Option<Vec<Found>>, &mut Shelf),
        speech: &dyn Fn() -> ask::Settings,
        most: Option<usize>,
    ) -> Result<Heard, Failure> {
        let found = match found {
            Some(found) => Some(found),
            None => evaluate::own(run.ready, spec)?,
        };
        if let Some(found) = found {
            let (answers, notes) = self.predict(run, (spec, loader), (&found, shelf))?;
            return Ok(Heard::Answers(answers, notes));
        }
        if !run.ready.speaks() {
            return Ok(Heard::Nothing);
        }
        let asking = ask::questions(spec, loader, &speech())?;
        Ok(Heard::Spoken(self.spoken(run, &asking, most)?))
    }

    /// Predictions of a task by heads of all models.
    fn predict(
        &self,
        run: &Run<'_>,
        (spec, loader): (&TaskSpec, &Loader<'_>),
        (found, shelf): (&[Found], &mut Shelf),
    ) -> Result<(Answers, Vec<String>), Failure> {
        let ready = self.ready();
        let mut small = Vec::with_capacity(ready.len());
        for ((system, base), ready) in self.systems.iter().zip(&ready) {
            let found = match evaluate::files(system, spec)? {
                Some(found) => found,
                None => evaluate::own(ready, spec)?.ok_or_else(|| {
                    let target = spec.targets.first().map_or("", |t| &*t.name);
                    no_head(system, &spec.id, target)
                })?,
            };
            small.push(Fellow {
                run: Run {
                    ready,
                    reader: &base.reader,
                    model: (&system.folder, ""),
                    batch: run.batch,
                },
                found,
                shelf: shelf.alike(),
            });
        }
        Ok(run.predict_fused(spec, loader, (found, shelf), &mut small, &self.fusion)?)
    }

    /// What the decoders say of a task as one.
    fn spoken(
        &self,
        large: &Run<'_>,
        asking: &ask::Asking,
        most: Option<usize>,
    ) -> Result<Spoken, Failure> {
        let ready = self.ready();
        let (path, hash) = large.model;
        let all: Vec<&Ready<'_>> = std::iter::once(large.ready).chain(&ready).collect();
        Ok(together(&all, &mut |models| {
            let voices = Voices::of_models(models, self.fusion.clone())?;
            let own: Vec<_> = models.iter().map(|(model, _)| *model).collect();
            same_tokens(&own)?;
            Speaker::with(voices, own[0], most)?.answers(asking, path, hash)
        })?)
    }
}

/// Texts of a large decoder with what small experts learned in its logits.
pub(super) fn texts(
    inputs: &[Input],
    args: &RunArgs,
    out: &mut Option<Sink>,
    ui: &Ui,
) -> Result<(), Failure> {
    let generates = matches!(args.kind, None | Some(Kind::Generate));
    if !generates || args.embed || args.task.is_some() || !args.classes.is_empty() {
        let what = "--fuse is about text that a decoder generates";
        return Err(MergeError::plan("bad-flag", what)
            .hint("classes are fused by `polyloom eval --fuse`")
            .into());
    }
    let named = std::iter::once(&args.model).chain(names(&args.fuse));
    let opened: Vec<Opened> = named.map(|m| Opened::open(m)).collect::<Result<_, _>>()?;
    for one in &opened {
        one.warnings.iter().for_each(|w| ui.warning(w));
    }
    let models: Vec<(&Model, &dyn Source)> = opened
        .iter()
        .map(|o| (&o.model, &o.model.weights as &dyn Source))
        .collect();
    let voices = Voices::of_models(&models, rule(&args.fuse))?;
    let own: Vec<&Model> = models.iter().map(|(model, _)| *model).collect();
    same_tokens(&own)?;
    let text = own[0].text(None)?;
    for input in inputs {
        let prompt = text.batch(&[(&input.0, None)])?.ids;
        let (most, ends) = (args.max_tokens, text.ends());
        let found = generate_by(
            &voices,
            &prompt,
            most,
            ends,
            run::sampling(args),
            &mut |_| true,
        )?;
        let said = text.text(&found)?;
        let event =
            json!({"type": "text", "input": input.0, "output": said, "tokens": found.len()});
        run::tell(&said, event, out, ui)?;
    }
    Ok(())
}
