//! Generated rows as tables.

use std::ops::Range;

use rayon::prelude::*;

use super::Generator;
use super::fields::{self, Field, Fields};
use super::log::{Impression, SESSION, World};
use super::multitab::{Row, Weights};
use super::shapes::{Scene, Shapes, TARGETS};
use crate::error::Result;
use crate::tasks::data::{Column, Limits, Table, Visit};

/// What a table is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What a learner may see.
    Rows,
    /// Items of a log, by number.
    Items,
    /// What only a judge may see of a log: the wanted category, true probabilities, potential outcomes.
    Truth,
}

/// A generator ready to give rows.
#[derive(Debug, Clone)]
pub struct Rows {
    generator: Generator,
    inner: Inner,
}

#[derive(Debug, Clone)]
enum Inner {
    Shapes(Shapes),
    Log(World),
    Multitab(Weights),
    Fields(Fields),
}

impl Rows {
    /// The rows of a generator; its options have to be in range ([`Generator::check`]).
    #[must_use]
    pub fn new(generator: Generator) -> Self {
        let inner = match &generator {
            Generator::Shapes(o) => Inner::Shapes(*o),
            Generator::Log(o) => Inner::Log(World::new(*o)),
            Generator::Multitab(o) => Inner::Multitab(Weights::new(o.clone())),
            Generator::Fields(o) => Inner::Fields(*o),
        };
        Self { generator, inner }
    }

    /// The parts that it has, with their number of rows.
    #[must_use]
    pub fn parts(&self) -> Vec<(Part, u64)> {
        let rows = (Part::Rows, self.generator.count());
        match &self.inner {
            Inner::Log(world) => {
                let items = (Part::Items, world.items.len() as u64);
                vec![rows, items, (Part::Truth, rows.1)]
            }
            _ => vec![rows],
        }
    }

    /// Rows of a good batch: about 12 MB of a table.
    #[must_use]
    pub fn batch(&self) -> u64 {
        match &self.inner {
            Inner::Shapes(_) => 512,
            Inner::Fields(_) => 2048,
            Inner::Log(_) => 32_768,
            Inner::Multitab(w) => {
                let wide = w.options.features + w.options.tasks;
                ((1 << 20) / wide as u64).clamp(16, 32_768)
            }
        }
    }

    /// Hands rows on, batch by batch.
    ///
    /// # Errors
    /// What `visit` returns.
    pub fn read(&self, rows: Range<u64>, limits: &Limits, visit: Visit) -> Result<()> {
        let step = self.batch().min(limits.batch_rows.max(1) as u64);
        let mut at = rows.start;
        loop {
            let end = rows.end.min(at + step);
            visit(self.table(Part::Rows, at..end))?;
            at = end;
            if at >= rows.end {
                return Ok(());
            }
        }
    }

    /// Rows by number, which have to be below the number of rows of the part. Made on all threads; the table does not
    /// depend on their number. A part that the generator does not have is empty.
    #[must_use]
    pub fn table(&self, part: Part, rows: Range<u64>) -> Table {
        let first = rows.start;
        match (&self.inner, part) {
            (Inner::Shapes(shapes), Part::Rows) => {
                let train = self.generator.split("train").unwrap_or_default();
                let scenes: Vec<Scene> = rows.into_par_iter().map(|i| shapes.scene(i)).collect();
                scenes_table(shapes, &train, first, scenes)
            }
            (Inner::Fields(fields), Part::Rows) => {
                let made: Vec<Field> = rows.into_par_iter().map(|i| fields.field(i)).collect();
                fields_table(first, made)
            }
            (Inner::Log(world), Part::Items) => items_table(world, rows),
            (Inner::Log(world), part) => {
                let shown = rows.into_par_iter().map(|r| world.impression(r));
                let shown: Vec<Impression> = shown.collect();
                match part {
                    Part::Truth => truth_table(first, &shown),
                    _ => log_table(world, first, &shown),
                }
            }
            (Inner::Multitab(weights), Part::Rows) => {
                let train = self.generator.split("train").unwrap_or_default();
                let made: Vec<Row> = rows.into_par_iter().map(|r| weights.row(r)).collect();
                multitab_table(weights, &train, first, &made)
            }
            _ => Table::default(),
        }
    }
}

fn numbers<T: Into<f64>>(values: impl Iterator<Item = T>) -> Column {
    Column::Number(values.map(|v| Some(v.into())).collect())
}

fn words(values: impl Iterator<Item = u32>) -> Column {
    Column::Text(values.map(|v| Some(v.to_string())).collect())
}

fn scenes_table(shapes: &Shapes, train: &Range<u64>, first: u64, scenes: Vec<Scene>) -> Table {
    let n = scenes.len() as u64;
    let given = |at: usize, t: u64| {
        let i = first + at as u64;
        !(train.contains(&i) && shapes.withheld(i, t))
    };
    let mut maps: [Vec<Option<Vec<u8>>>; 5] = Default::default();
    let mut labels = Vec::with_capacity(scenes.len());
    for (at, scene) in scenes.into_iter().enumerate() {
        labels.push(given(at, 4).then(|| f64::from(scene.label)));
        maps[0].push(Some(scene.image));
        let targets = [scene.segmentation, scene.depth, scene.normals, scene.edges];
        for (t, map) in (0u64..).zip(targets) {
            maps[t as usize + 1].push(given(at, t).then_some(map));
        }
    }
    let ids = numbers((first..first + n).map(|i| i as f64));
    let names = ["image"].into_iter().chain(TARGETS);
    let columns = maps.map(Column::Bytes).into_iter();
    let columns = names.zip(columns.chain([Column::Number(labels)]));
    Table::of([("id", ids)].into_iter().chain(columns))
}

fn fields_table(first: u64, made: Vec<Field>) -> Table {
    let ids = numbers((first..first + made.len() as u64).map(|i| i as f64));
    let mut maps: [Vec<Option<Vec<u8>>>; 3] = Default::default();
    for field in made {
        let own = [field.image, field.poisson, field.screened];
        for (maps, own) in maps.iter_mut().zip(own) {
            maps.push(Some(own));
        }
    }
    let names = ["image"].into_iter().chain(fields::TARGETS);
    let columns = names.zip(maps.map(Column::Bytes));
    Table::of([("id", ids)].into_iter().chain(columns))
}

fn log_table(world: &World, first: u64, shown: &[Impression]) -> Table {
    let row = || first..first + shown.len() as u64;
    let user = |k: usize| {
        let of = shown.iter().map(|i| &world.users[i.user as usize]);
        words(of.map(move |u| u.features[k]))
    };
    let items = || shown.iter().map(|i| &world.items[i.item as usize]);
    let step = |k: usize| {
        let of = shown.iter().map(|i| i.observed()[k]);
        numbers(of.map(u8::from))
    };
    let word = |k: usize| words(items().map(move |i| i.words[k]));
    Table::of([
        ("row", numbers(row().map(|r| r as f64))),
        ("session", numbers(row().map(|r| (r / SESSION) as f64))),
        ("pos", numbers(row().map(|r| (r % SESSION) as f64))),
        ("user", words(shown.iter().map(|i| i.user))),
        ("age", user(0)),
        ("job", user(1)),
        ("region", user(2)),
        ("item", words(shown.iter().map(|i| i.item))),
        ("category", words(items().map(|i| i.category))),
        ("brand", words(items().map(|i| i.brand))),
        ("price", numbers(items().map(|i| i.price))),
        ("word1", word(0)),
        ("word2", word(1)),
        ("word3", word(2)),
        ("click", step(0)),
        ("cart", step(1)),
        ("buy", step(2)),
    ])
}

fn items_table(world: &World, rows: Range<u64>) -> Table {
    let list = &world.items[rows.start as usize..rows.end as usize];
    let items = || list.iter();
    let word = |k: usize| words(items().map(move |i| i.words[k]));
    Table::of([
        ("item", words(rows.map(|i| i as u32))),
        ("category", words(items().map(|i| i.category))),
        ("brand", words(items().map(|i| i.brand))),
        ("price", numbers(items().map(|i| i.price))),
        ("word1", word(0)),
        ("word2", word(1)),
        ("word3", word(2)),
    ])
}

fn truth_table(first: u64, shown: &[Impression]) -> Table {
    let p = |k: usize| numbers(shown.iter().map(move |i| i.p[k]));
    let y = |k: usize| numbers(shown.iter().map(move |i| u8::from(i.potential[k])));
    let rows = first..first + shown.len() as u64;
    Table::of([
        ("row", numbers(rows.map(|r| r as f64))),
        ("want", words(shown.iter().map(|i| i.want))),
        ("p_click", p(0)),
        ("p_cart", p(1)),
        ("p_buy", p(2)),
        ("y_click", y(0)),
        ("y_cart", y(1)),
        ("y_buy", y(2)),
    ])
}

fn multitab_table(weights: &Weights, train: &Range<u64>, first: u64, rows: &[Row]) -> Table {
    let options = &weights.options;
    let feature = |k: usize| (format!("x{k}"), numbers(rows.iter().map(move |r| r.x[k])));
    let target = |t: usize| {
        let value = |(r, row): (u64, &Row)| {
            let held = train.contains(&r) && weights.withheld(r, t);
            let y = row.y[t];
            let label = || f64::from(u8::from(y > 0.0));
            (!held).then(|| if options.is_label(t) { label() } else { y })
        };
        let values = (first..).zip(rows).map(value).collect();
        (format!("y{t}"), Column::Number(values))
    };
    let ids = numbers((first..first + rows.len() as u64).map(|r| r as f64));
    let features = (0..options.features).map(feature);
    let targets = (0..options.tasks).map(target);
    Table::of(
        [("row".to_owned(), ids)]
            .into_iter()
            .chain(features)
            .chain(targets),
    )
}
