//! MultiModN: one state that encoders of modalities change in turn, and goals that read it after each of them.

use super::architecture::{Architecture, Golden, Kind, Param, Spec, Unset};
use super::config::{Common, Modality};
use super::turns::{InTurn, Turns};
use super::{Init, Pass, TableModel, Tensors};
use crate::engine::{Value, tensor};
use crate::error::{Error, Result};
use crate::ops::{self, Activation};

/// The entries of this file.
pub static ARCHITECTURES: &[&dyn Architecture] = &[&MultiModN];

struct MultiModN;

static SPEC: Spec = Spec {
    name: "multimodn",
    summary: "One state that the encoder of every modality changes in turn; a row skips what it lacks",
    source: "Swamy et al., NeurIPS 2023; EPFLiGHT/MultiModN multimodn/multimodn.py",
    formula: "`s_0` is learned; `s_m = encoder_m([x_m; s_(m-1)])` for the modalities in order, and `s_m = s_(m-1)` in rows that lack all cells of modality `m`. `h_t = tower_t(s_M)`. An encoder is the layers `hidden`, then a linear one to `state` numbers; `x_m` are its categories, its numbers and the marks of its missing cells. \
        Goals learn from every state: `err_penalty sum_m L_t(s_m) / (M + 1) + 0.01 state_change_penalty sum_m mean((s_m - s_(m-1))^2) / M`, where `L_t(s_m)` is the sum of the losses of the rows that have modality `m` (of all for `m = 0`) over all rows with a label.",
    differs: "A modality is skipped by row; the authors' program skips it for a whole batch with a missing value in it. Marks of missing cells are read, so that a modality may be there in part. Losses of goals are averaged, as everywhere here: with equal weights the authors' sum over `T (M + 1)`. The order is that of the configuration.",
    uses: &[
        Common::Modalities,
        Common::Hidden,
        Common::Tower,
        Common::Dropout,
        Common::Activation,
    ],
    params: &[
        Param::shared(
            "state",
            Kind::Integer(1, 65536),
            Unset::Number(64.0),
            "Numbers of the state.",
        ),
        Param::shared(
            "err_penalty",
            Kind::Number(0.0, 1e6),
            Unset::Number(1.0),
            "Weight of the losses.",
        ),
        Param::shared(
            "state_change_penalty",
            Kind::Number(0.0, 1e6),
            Unset::Number(1.0),
            "Weight of the changes of the state, times 0.01.",
        ),
    ],
    golden: Golden::Cases(&["multimodn"]),
};

/// Modalities at most: each has an encoder.
const MOST: usize = 1024;

/// Places side by side as ranges: where each begins, and how long it is.
fn ranges(places: &[usize]) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for &place in places {
        match found.last_mut() {
            Some((start, length)) if *start + *length == place => *length += 1,
            _ => found.push((place, 1)),
        }
    }
    found
}

/// Whether every place below `count` comes once.
fn once(count: usize, of: &str, places: impl Iterator<Item = usize>) -> Result<()> {
    let mut seen = vec![false; count];
    for place in places {
        match seen.get_mut(place) {
            Some(seen) if !*seen => *seen = true,
            other => {
                let why = match other {
                    Some(_) => "comes twice".to_owned(),
                    None => format!("is none of {count}"),
                };
                return Err(Error::Config {
                    what: format!("modalities: place {place} of the {of} {why}"),
                });
            }
        }
    }
    match seen.iter().position(|s| !s) {
        None => Ok(()),
        Some(place) => Err(Error::Config {
            what: format!("modalities: place {place} of the {of} is in none"),
        }),
    }
}

/// Which rows have which modality, `[rows, modalities]`, and which lack it: 1 or 0, of the marks among the numbers.
fn presence(pass: &Pass<'_>) -> Result<[Value; 2]> {
    let (c, rows) = (&pass.model.config, pass.rows());
    let n = c.modalities.len();
    let mut chosen = vec![0.0; c.numeric * n];
    let mut enough = vec![0.0; n];
    for (m, modality) in c.modalities.iter().enumerate() {
        modality
            .marks
            .iter()
            .for_each(|at| chosen[at * n + m] = 1.0);
        // All marks but one may be there; none at all is never enough.
        enough[m] = 1.0 - modality.marks.len().max(1) as f32;
    }
    let row = |values: Vec<f32>| Ok::<_, Error>(Value::constant(tensor(values, n)?));
    let marked = match c.numeric {
        0 => Value::constant(tensor(vec![0.0; rows * n], (rows, n))?),
        numeric => {
            let chosen = Value::constant(tensor(chosen, (numeric, n))?);
            ops::product(&pass.batch.numbers, &chosen)?
        }
    };
    let lacked = ops::activate(&ops::plus_row(&marked, &row(enough)?)?, Activation::Relu)?;
    let there = ops::plus_row(&ops::scale(&lacked, -1.0)?, &row(vec![1.0; n])?)?;
    Ok([there, lacked])
}

/// What the encoder of a modality reads beside the state: of its fields, its numbers and its marks.
fn read(pass: &Pass<'_>, modality: &Modality, embedded: Option<&Value>) -> Result<Vec<Value>> {
    let width = pass.model.config.embed_dim;
    let mut parts = Vec::new();
    if let Some(embedded) = embedded {
        for (start, length) in ranges(&modality.fields) {
            parts.push(ops::narrow(embedded, 1, start * width, length * width)?);
        }
    }
    for places in [&modality.numbers, &modality.marks] {
        for (start, length) in ranges(places) {
            parts.push(ops::narrow(&pass.batch.numbers, 1, start, length)?);
        }
    }
    Ok(parts)
}

/// The state before the first modality and after each, `[rows, state]`, and which rows have which modality.
fn states(pass: &Pass<'_>) -> Result<(Vec<Value>, Value)> {
    let (model, rows) = (pass.model, pass.rows());
    let c = &model.config;
    let embedded = match c.categories.len() {
        0 => None,
        fields => {
            let vectors = pass.embedded("")?;
            Some(ops::reshape(&vectors, &[rows, fields * c.embed_dim])?)
        }
    };
    let [there, lacked] = presence(pass)?;
    let mut state = ops::rows(&pass.tensor("state.weight")?, &vec![0; rows])?;
    let mut all = vec![state.clone()];
    for (m, modality) in c.modalities.iter().enumerate() {
        let parts = read(pass, modality, embedded.as_ref())?;
        let parts: Vec<&Value> = parts.iter().chain([&state]).collect();
        let name = format!("encoders.{m}");
        let x = pass.layers(&name, &ops::concat(&parts, 1)?, c.hidden.len())?;
        let new = pass.linear(&format!("{name}.out"), &x)?;
        let column = |of: &Value| ops::narrow(of, 1, m, 1);
        let choice = ops::concat(&[&column(&there)?, &column(&lacked)?], 1)?;
        state = ops::blend(&choice, &[&new, &state])?;
        all.push(state.clone());
    }
    Ok((all, there))
}

/// The towers of some goals on a state.
fn towers(pass: &Pass<'_>, goals: &[usize], state: &Value) -> Result<Vec<Value>> {
    let own = goals.iter().map(|goal| pass.own(*goal, state));
    pass.towers(goals, &own.collect::<Result<Vec<_>>>()?)
}

impl Architecture for MultiModN {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn check(&self, model: &TableModel) -> Result<()> {
        let c = &model.config;
        let wrong = |what: String| Err(Error::Config { what });
        let count = c.modalities.len();
        if !(1..=MOST).contains(&count) {
            return wrong(format!("{count} modalities; `multimodn` reads 1 to {MOST}"));
        }
        for (m, modality) in c.modalities.iter().enumerate() {
            let name = &modality.name;
            if name.is_empty() || c.modalities[..m].iter().any(|other| other.name == *name) {
                return wrong(format!("modalities: `{name}` is empty or comes twice"));
            }
            if modality.numbers.is_empty() && modality.fields.is_empty() {
                return wrong(format!("modalities: `{name}` has no column"));
            }
        }
        let of =
            |places: fn(&Modality) -> &Vec<usize>| c.modalities.iter().flat_map(places).copied();
        let numbers = of(|m| &m.numbers).chain(of(|m| &m.marks));
        once(c.numeric, "numbers", numbers)?;
        once(c.categories.len(), "categorical fields", of(|m| &m.fields))
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        let (c, state) = (&model.config, model.count("state"));
        to.front("", c)?;
        to.add("state.weight", &[1, state], Init::Normal(1.0))?;
        for (m, modality) in c.modalities.iter().enumerate() {
            let own = modality.fields.len() * c.embed_dim;
            let input = own + modality.numbers.len() + modality.marks.len() + state;
            let name = format!("encoders.{m}");
            let width = to.layers(&name, input, &c.hidden)?;
            to.gate(&format!("{name}.out"), [state, width])?;
        }
        to.towers(c, state)
    }

    fn forward(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Vec<Value>> {
        let (states, _) = states(pass)?;
        match states.last() {
            Some(last) => towers(pass, goals, last),
            None => Err(Error::shape("multimodn", "no state")),
        }
    }

    fn in_turn(&self, model: &TableModel) -> Option<InTurn> {
        let weight = |name: &str| model.values.number(name) as f32;
        Some(InTurn {
            modalities: model.config.modalities.len(),
            width: model.goals() * model.width(),
            errors: weight("err_penalty"),
            changes: 0.01 * weight("state_change_penalty"),
        })
    }

    fn turns(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Turns> {
        let (states, there) = states(pass)?;
        let width = pass.model.count("state");
        let share = Value::constant(tensor(vec![1.0 / width as f32; width], (width, 1))?);
        let none = Value::constant(tensor(vec![0.0; pass.rows()], (pass.rows(), 1))?);
        let changes = states.windows(2).try_fold(none, |sum, pair| {
            let off = ops::sub(&pair[1], &pair[0])?;
            ops::add(&sum, &ops::product(&ops::mul(&off, &off)?, &share)?)
        })?;
        let features = states.iter().map(|state| towers(pass, goals, state));
        Ok(Turns {
            features: features.collect::<Result<_>>()?,
            there,
            changes,
        })
    }
}
