//! `polyloom run`

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples;
use polyloom::plan::reference::Places;
use polyloom::recipe;
use polyloom::tasks::data::{self, Limits, images};
use polyloom_learn::engine::{Value, slice};
use polyloom_learn::models::generate::{Sampling, answer, generate};
use polyloom_learn::models::open::{self, Model, Trunk};
use polyloom_learn::tasks::forward::{Output, features, outputs};
use polyloom_learn::tasks::system::no_head;
use polyloom_learn::tasks::zero_shot::zero_shot;
use polyloom_learn::tasks::{Base, Feature, Head, HeadKind, Opened, Reader, Shown, System, fit};
use polyloom_learn::weave::Meta;
use serde_json::json;

use super::fuse;
use crate::args_run::{Kind, RunArgs};
use crate::hub::{self, Brought, Hub};
use crate::ui::{Failure, Ui};

/// An input: a text or the path of a picture, perhaps with a second text.
pub type Input = (String, Option<String>);

/// Usual names of a column of inputs.
pub const COLUMNS: [&str; 7] = [
    "text",
    "sentence",
    "input",
    "prompt",
    "question",
    "sentence1",
    "query",
];

/// Runs the command.
pub fn run(args: &RunArgs, hub: impl Fn(bool) -> Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    polyloom_core::memory::keep_large_buffers();
    let mut out = args
        .output
        .as_deref()
        .map(|file| Sink::create(file, args.force))
        .transpose()?;
    let mut inputs: Vec<Input> = args.inputs.iter().map(|t| (t.clone(), None)).collect();
    if let Some(file) = &args.file {
        inputs.extend(read(file, args.column.as_deref(), args.column2.as_deref())?);
    }
    if inputs.is_empty() {
        return Err(MergeError::plan("empty", "there is no input").into());
    }
    let recipe = recipe::from_models("passthrough", None, std::slice::from_ref(&args.model))?;
    let places = Places::default();
    let needs = recipe.models.iter().flat_map(|m| hub::needs(&m.reference));
    if hub(false).bring(needs, recipe.dialect, &places, ui)? == Brought::Said {
        return Ok(ExitCode::SUCCESS);
    }
    for small in fuse::names(&args.fuse) {
        let recipe = recipe::from_models("passthrough", None, std::slice::from_ref(small))?;
        let needs = recipe.models.iter().flat_map(|m| hub::needs(&m.reference));
        if hub(false).bring(needs, recipe.dialect, &places, ui)? == Brought::Said {
            return Ok(ExitCode::SUCCESS);
        }
    }
    if !args.fuse.fuse.is_empty() {
        fuse::texts(&inputs, args, &mut out, ui)?;
    } else if let Some(task) = &args.task {
        by_task(task, &inputs, args, &mut out, ui)?;
    } else if Meta::is_there(Path::new(&args.model)) {
        by_router(&inputs, args, &mut out, ui)?;
    } else {
        by_itself(&inputs, args, &mut out, ui)?;
    }
    if let Some(out) = out {
        out.finish(ui)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the model is for, or what is asked of it.
fn by_itself(
    inputs: &[Input],
    args: &RunArgs,
    out: &mut Option<Sink>,
    ui: &Ui,
) -> Result<(), Failure> {
    let opened = Opened::open(&args.model)?;
    opened.warnings.iter().for_each(|w| ui.warning(w));
    let model = &opened.model;
    if !args.classes.is_empty() {
        let named: Vec<String> = args.classes.iter().map(|c| c.trim().to_owned()).collect();
        let head = zero_shot(model, &named)?;
        let weights = model.weights.with(head.tensors());
        let reader = Reader::of(model, None)?;
        let run = |shown: &[Shown]| outputs(model, &weights, &reader, &[&head], shown, shown.len());
        return classified(&run, &reader, &head, inputs, args, out, ui);
    }
    let kind = match args.kind {
        Some(kind) => kind,
        None if args.embed => Kind::Embed,
        None => match model.kind {
            open::Kind::Embed => Kind::Embed,
            open::Kind::Classify => Kind::Classify,
            open::Kind::Generate => Kind::Generate,
        },
    };
    if kind == Kind::Generate {
        return generated(model, inputs, args, out, ui);
    }
    let reader = Reader::of(model, None)?;
    if kind == Kind::Classify {
        let Some(mut head) = fit::own_head(model, &opened.config)? else {
            return Err(MergeError::plan("no-head", "has no head of classes")
                .at(model.folder.display().to_string())
                .hint("--embed gives vectors; --task TASK asks a head of heads/")
                .into());
        };
        head.labels.clone_from(&model.classes);
        let weights = model.weights.with(head.tensors());
        let run = |shown: &[Shown]| outputs(model, &weights, &reader, &[&head], shown, shown.len());
        return classified(&run, &reader, &head, inputs, args, out, ui);
    }
    for part in inputs.chunks(args.batch as usize) {
        let found = embedded(model, &reader, part)?;
        let values = slice(found.data())?;
        let width = values.len() / part.len();
        for (input, row) in part.iter().zip(values.chunks_exact(width.max(1))) {
            let vector: Vec<f64> = row.iter().map(|x| short(*x)).collect();
            let shown = json!(vector).to_string();
            let event = json!({"type": "embedding", "input": input.0, "vector": vector});
            tell(&shown, event, out, ui)?;
        }
    }
    Ok(())
}

/// The head of a task answers: of a folder with heads, of an adapter, of heads on a base.
fn by_task(
    task: &str,
    inputs: &[Input],
    args: &RunArgs,
    out: &mut Option<Sink>,
    ui: &Ui,
) -> Result<(), Failure> {
    let system = System::find(&args.model, None, args.heads.as_deref())?;
    let Some((head, _)) = system.head(task, "")? else {
        return Err(no_head(&system, task, "").into());
    };
    let pictures = system.preprocessor();
    let base = Base::prepared(&system.base, None, pictures.as_deref())?;
    let ready = base.ready(&system)?;
    ready.warnings.iter().for_each(|w| ui.warning(w));
    let run = |shown: &[Shown]| ready.outputs(&base.reader, &[&head], shown, shown.len());
    classified(&run, &base.reader, &head, inputs, args, out, ui)
}

/// Vectors of a batch.
fn embedded(model: &Model, reader: &Reader, inputs: &[Input]) -> Result<Value, Failure> {
    let weights = &model.weights;
    match reader {
        Reader::Texts(text) => {
            let texts: Vec<(&str, Option<&str>)> =
                inputs.iter().map(|(a, b)| (&**a, b.as_deref())).collect();
            Ok(model.embed(weights, &text.batch(&texts)?)?)
        }
        Reader::Pictures(_) | Reader::Sensors(_) => {
            let given = inputs.iter().map(|input| given(reader, input));
            let shown = reader.show(&given.collect::<Result<Vec<_>, _>>()?, Feature::Cls)?;
            let parts = [(Feature::Cls, shown.iter().collect())];
            let mut found = features(model, weights, reader, &parts)?;
            Ok(found.remove(0))
        }
        Reader::Tables(_) => Err(no_text()),
    }
}

/// What is said where a model of tables is asked about texts or files.
fn no_text() -> Failure {
    MergeError::plan("no-text", "is a model of tables")
        .hint("polyloom predict MODEL FILE asks it about the rows of a file")
        .into()
}

/// An input as tasks have it: a text or a pair, or the pixels of the file that is named.
pub fn given(reader: &Reader, (first, second): &Input) -> Result<examples::Input, Failure> {
    Ok(match reader {
        Reader::Texts(_) => examples::Input::Text(first.clone(), second.clone()),
        Reader::Tables(_) => return Err(no_text()),
        Reader::Pictures(_) | Reader::Sensors(_) => {
            let (pixels, size) = images::decode(Path::new(first), None, &Limits::default())?;
            let size = size.map(|n| n as usize);
            examples::Input::Image { pixels, size }
        }
    })
}

/// A woven model chooses expert and head for every input.
fn by_router(
    inputs: &[Input],
    args: &RunArgs,
    out: &mut Option<Sink>,
    ui: &Ui,
) -> Result<(), Failure> {
    let system = System::find(&args.model, None, args.heads.as_deref())?;
    let pictures = system.preprocessor();
    let base = Base::prepared(&system.base, system.max_length()?, pictures.as_deref())?;
    let ready = base.ready(&system)?;
    ready.warnings.iter().for_each(|w| ui.warning(w));
    let Some(woven) = ready.woven() else {
        return Err(MergeError::Internal("a woven model that is none".into()).into());
    };
    let feature = woven.experts[0].heads.first().map(|h| h.feature);
    for part in inputs.chunks(args.batch as usize) {
        let mut given = Vec::with_capacity(part.len());
        for input in part {
            given.push(self::given(&base.reader, input)?);
        }
        let shown = base.reader.show(&given, feature.unwrap_or(Feature::Cls))?;
        let answers = woven.answer(ready.model(), &base.reader, &shown, part.len())?;
        for (input, (expert, said)) in part.iter().zip(answers) {
            let Some(expert) = expert.map(|e| &woven.experts[e]) else {
                let event = json!({"type": "classes", "input": input.0, "expert": null});
                tell("no expert", event, out, ui)?;
                continue;
            };
            for (head, said) in expert.heads.iter().zip(&said) {
                let (shown, mut event) = worded(head, input, said, args, inputs.len() == 1);
                if let Some(event) = event.as_object_mut() {
                    event.insert("expert".into(), expert.name.clone().into());
                    event.insert("task".into(), head.task.clone().into());
                }
                let lines: Vec<String> = shown
                    .lines()
                    .map(|l| format!("{}\t{l}", head.task))
                    .collect();
                tell(&lines.join("\n"), event, out, ui)?;
            }
        }
    }
    Ok(())
}

/// What a head said of an input, for people and as an event.
fn worded(
    head: &Head,
    input: &Input,
    said: &[f32],
    args: &RunArgs,
    alone: bool,
) -> (String, serde_json::Value) {
    if let HeadKind::Dense(_) = head.kind {
        let values: Vec<f64> = said.iter().map(|x| short(*x)).collect();
        let kind = head.kind.word();
        let event = json!({"type": "map", "input": input.0, "kind": kind, "values": values});
        return (event["values"].to_string(), event);
    }
    if !head.kind.has_probabilities() {
        let x = said.first().map_or(f64::NAN, |x| short(*x));
        let event = json!({"type": "number", "input": input.0, "value": x});
        return (x.to_string(), event);
    }
    classes(&head.labels, input, said, args, alone)
}

/// What a head says of some inputs.
type Says<'a> = &'a dyn Fn(&[Shown]) -> polyloom_learn::Result<Vec<Vec<Output>>>;

/// Answers of a head, batch by batch.
fn classified(
    run: Says<'_>,
    reader: &Reader,
    head: &Head,
    inputs: &[Input],
    args: &RunArgs,
    out: &mut Option<Sink>,
    ui: &Ui,
) -> Result<(), Failure> {
    for part in inputs.chunks(args.batch as usize) {
        let mut given = Vec::with_capacity(part.len());
        for input in part {
            given.push(self::given(reader, input)?);
        }
        let shown = reader.show_of(Some(&head.task), &given, head.feature)?;
        let found = run(&shown)?;
        for (input, said) in part.iter().zip(&found[0]) {
            let (shown, event) = worded(head, input, said, args, inputs.len() == 1);
            tell(&shown, event, out, ui)?;
        }
    }
    Ok(())
}

/// A number with the digits that a 32-bit one has.
pub fn short(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// The likeliest classes, as a line for people and as an event.
fn classes(
    labels: &[String],
    input: &Input,
    p: &[f32],
    args: &RunArgs,
    alone: bool,
) -> (String, serde_json::Value) {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    order.truncate(args.top as usize);
    let label = |i: usize| labels.get(i).map_or_else(|| i.to_string(), Clone::clone);
    let lines: Vec<String> = order
        .iter()
        .map(|&i| format!("{}\t{:.4}", label(i), p[i]))
        .collect();
    let shown = if alone {
        lines.join("\n")
    } else {
        lines
            .iter()
            .map(|l| format!("{l}\t{}", input.0))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let list: Vec<_> = order
        .iter()
        .map(|&i| json!({"label": label(i), "probability": short(p[i])}))
        .collect();
    (
        shown,
        json!({"type": "classes", "input": input.0, "classes": list}),
    )
}

fn generated(
    model: &Model,
    inputs: &[Input],
    args: &RunArgs,
    out: &mut Option<Sink>,
    ui: &Ui,
) -> Result<(), Failure> {
    if !matches!(model.trunk, Trunk::Decoder(_) | Trunk::T5(_)) {
        return Err(MergeError::plan("no-decoder", "generates no text")
            .at(model.folder.display().to_string())
            .hint("--as embed gives vectors; models that generate are decoders (llama, mistral, qwen, gemma) and t5")
            .into());
    }
    let text = model.text(None)?;
    let sampling = sampling(args);
    for input in inputs {
        let prompt = text.batch(&[(&input.0, None)])?.ids;
        let (weights, most, ends) = (&model.weights, args.max_tokens, text.ends());
        let mut each = |_| true;
        let found = match &model.trunk {
            Trunk::T5(t5) => answer(t5, weights, &prompt, most, ends, sampling, &mut each)?,
            Trunk::Decoder(decoder) => {
                generate(decoder, weights, &prompt, most, ends, sampling, &mut each)?
            }
            _ => Vec::new(),
        };
        let said = text.text(&found)?;
        let event =
            json!({"type": "text", "input": input.0, "output": said, "tokens": found.len()});
        tell(&said, event, out, ui)?;
    }
    Ok(())
}

/// How tokens are chosen.
pub(super) fn sampling(args: &RunArgs) -> Sampling {
    Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        seed: args.seed,
    }
}

/// Says an answer: on the terminal, or as a line of the file.
pub(super) fn tell(
    shown: &str,
    event: serde_json::Value,
    out: &mut Option<Sink>,
    ui: &Ui,
) -> Result<(), Failure> {
    match out {
        Some(out) => out.write(event)?,
        None => {
            ui.answer(shown);
            ui.event(&event);
        }
    }
    Ok(())
}

/// Inputs of a file: of a column and perhaps a second one.
pub fn read(
    file: &Path,
    column: Option<&str>,
    second: Option<&str>,
) -> Result<Vec<Input>, Failure> {
    let bad = |what: String| MergeError::plan("bad-input", what).at(file.display().to_string());
    if file
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("txt"))
    {
        let text =
            std::fs::read_to_string(file).map_err(|e| polyloom_core::Error::io(file, "read", e))?;
        return Ok(text.lines().map(|l| (l.to_owned(), None)).collect());
    }
    let kind = data::kind_of(file).ok_or_else(|| {
        bad("is no file of inputs that is known by its name".into())
            .hint(".txt, .csv, .tsv, .jsonl or .parquet")
    })?;
    let mut found = Vec::new();
    data::read(file, kind, &Limits::default(), &mut |table| {
        let names: Vec<&str> = table.columns().map(|(n, _)| n).collect();
        let column = match column {
            Some(name) => Some(name),
            None => COLUMNS.iter().copied().find(|c| names.contains(c)),
        };
        let of = |name: &str| {
            table.column(name).ok_or_else(|| {
                bad(format!("has no column `{name}`"))
                    .hint(format!("its columns: {}", names.join(", ")))
            })
        };
        let Some(column) = column else {
            return Err(bad("has no column of a usual name".into())
                .hint(format!("--column NAME; its columns: {}", names.join(", "))));
        };
        let (first, second) = (of(column)?, second.map(of).transpose()?);
        for row in 0..table.rows() {
            found.push((
                first.cell(row).to_text(),
                second.map(|c| c.cell(row).to_text()),
            ));
        }
        Ok(())
    })?;
    Ok(found)
}

/// A file that goes away unless it was renamed.
struct Part(std::path::PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // Renamed already, as a rule; what cannot be removed stays and hurts nobody.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A file of JSON lines that appears whole or not at all.
pub(super) struct Sink {
    file: std::io::BufWriter<std::fs::File>,
    part: Part,
    to: std::path::PathBuf,
    rows: u64,
}

impl Sink {
    fn create(to: &Path, force: bool) -> Result<Self, Failure> {
        let at = to.display().to_string();
        if !to
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("jsonl"))
        {
            return Err(MergeError::plan("bad-flag", "is no file of JSON lines")
                .at(at)
                .hint("-o FILE.jsonl")
                .into());
        }
        if to.exists() && !force {
            return Err(MergeError::plan("output-exists", "exists already")
                .at(at)
                .hint("--force replaces it")
                .into());
        }
        let part = to.with_extension("jsonl.part");
        let file = std::fs::File::create(&part)
            .map_err(|e| polyloom_core::Error::io(&part, "create", e))?;
        Ok(Self {
            file: std::io::BufWriter::new(file),
            part: Part(part),
            to: to.to_owned(),
            rows: 0,
        })
    }

    fn write(&mut self, mut row: serde_json::Value) -> Result<(), Failure> {
        if let Some(row) = row.as_object_mut() {
            row.shift_remove("type");
        }
        self.rows += 1;
        writeln!(self.file, "{row}")
            .map_err(|e| polyloom_core::Error::io(&self.part.0, "write", e))?;
        Ok(())
    }

    fn finish(self, ui: &Ui) -> Result<(), Failure> {
        let io = |e| polyloom_core::Error::io(&self.part.0, "write", e);
        let file = self.file.into_inner().map_err(|e| io(e.into_error()))?;
        file.sync_all().map_err(io)?;
        std::fs::rename(&self.part.0, &self.to)
            .map_err(|e| polyloom_core::Error::io(&self.to, "create", e))?;
        ui.answer(&self.to.display().to_string());
        ui.event(&json!({"type": "done", "output": self.to, "rows": self.rows}));
        Ok(())
    }
}
