//! Norms, inner products, signs and largest entries, in at most three passes over every tensor.
//!
//! Pass 1 forms the sums, counts the signs and starts the selection of the largest entries; pass 2 ends it; pass 3
//! compares the selected sets. A tensor of one chunk is read once.

use std::ops::Range;
use std::sync::Mutex;

use polyloom_core::checkpoint::Scratch;
use rayon::prelude::*;

use super::numbers::Numbers;
use super::{Options, Reader, Source, Task};
use crate::error::{MergeError, Result};
use crate::merge::method::BLOCK;
use crate::merge::survey::{BlockSums, Cut, Selector, Total, magnitude_bits};

/// Tensors of at least this many chunks are worked on by all threads together, smaller ones by one thread each.
const COOPERATIVE: usize = 32;
/// Chunks whose partial results are held at a time.
const WAVE: usize = 16;

/// Memory of one chunk, reused.
#[derive(Default)]
struct Buffers {
    base: Vec<f32>,
    deltas: Vec<Vec<f32>>,
    /// Per expert: -1, 0 or 1 per entry.
    signs: Vec<Vec<i8>>,
    up: Vec<bool>,
    down: Vec<bool>,
    scratch: Scratch,
}

struct Engine<'a, 'b> {
    n: usize,
    step: usize,
    options: &'a Options<'b>,
    spare: Mutex<Vec<Buffers>>,
}

/// Measures every task.
pub(super) fn run(
    source: &dyn Source,
    tasks: &[Task],
    n: usize,
    options: &Options,
) -> Result<Vec<Numbers>> {
    let step = match options.chunk {
        0 => 1 << 17,
        n => n.div_ceil(BLOCK) * BLOCK,
    };
    let engine = Engine {
        n,
        step,
        options,
        spare: Mutex::default(),
    };
    let mut out: Vec<Option<Numbers>> = vec![None; tasks.len()];
    let (large, small): (Vec<usize>, Vec<usize>) =
        (0..tasks.len()).partition(|t| tasks[*t].elements() / step >= COOPERATIVE);
    for t in large {
        out[t] = Some(engine.tensor(source, &tasks[t], true)?);
    }
    let done: Vec<(usize, Numbers)> = small
        .par_iter()
        .with_max_len(1)
        .map(|&t| Ok((t, engine.tensor(source, &tasks[t], false)?)))
        .collect::<Result<_>>()?;
    for (t, numbers) in done {
        out[t] = Some(numbers);
    }
    out.into_iter()
        .collect::<Option<_>>()
        .ok_or_else(|| MergeError::Internal("a tensor was not measured".into()))
}

/// Counts of signs over entries: of pairs, and of all experts together.
#[derive(Default)]
struct Signs {
    /// Entries where an expert is not zero.
    set: Vec<u64>,
    both: Vec<u64>,
    opposed: Vec<u64>,
    shared: u64,
    conflicts: u64,
}

impl Signs {
    fn new(n: usize) -> Self {
        Self {
            set: vec![0; n],
            both: vec![0; n * n],
            opposed: vec![0; n * n],
            ..Self::default()
        }
    }

    fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.set, &other.set),
            (&mut self.both, &other.both),
            (&mut self.opposed, &other.opposed),
        ];
        for (to, from) in pairs {
            to.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        }
        self.shared += other.shared;
        self.conflicts += other.conflicts;
    }

    /// Counts one chunk; `up` and `down` are scratch.
    fn of(signs: &[Vec<i8>], up: &mut Vec<bool>, down: &mut Vec<bool>) -> Self {
        let n = signs.len();
        let mut out = Self::new(n);
        let len = signs.first().map_or(0, Vec::len);
        up.clear();
        up.resize(len, false);
        down.clear();
        down.resize(len, false);
        let mut twice = vec![false; len];
        for (i, a) in signs.iter().enumerate() {
            out.set[i] = count(a.iter().map(|s| *s != 0));
            for (((s, up), down), twice) in a
                .iter()
                .zip(up.iter_mut())
                .zip(down.iter_mut())
                .zip(&mut twice)
            {
                *twice |= (*s != 0) & (*up | *down);
                *up |= *s > 0;
                *down |= *s < 0;
            }
            for (j, b) in signs.iter().enumerate().skip(i + 1) {
                let both = count(a.iter().zip(b).map(|(x, y)| x * y != 0));
                let opposed = count(a.iter().zip(b).map(|(x, y)| x * y < 0));
                for at in [i * n + j, j * n + i] {
                    out.both[at] = both;
                    out.opposed[at] = opposed;
                }
            }
        }
        for i in 0..n {
            out.both[i * n + i] = out.set[i];
        }
        out.shared = count(twice.iter().copied());
        out.conflicts = count(up.iter().zip(down.iter()).map(|(u, d)| *u & *d));
        out
    }
}

fn count(flags: impl Iterator<Item = bool>) -> u64 {
    flags.map(u64::from).sum()
}

/// What pass 1 learns from one chunk.
struct First {
    sums: BlockSums,
    signs: Signs,
    high: Vec<crate::merge::survey::High>,
}

impl Engine<'_, '_> {
    fn tensor(&self, source: &dyn Source, task: &Task, together: bool) -> Result<Numbers> {
        let n = self.n;
        let reader = source.open(task)?;
        let known = reader.dots();
        let len = task.elements();
        let pieces: Vec<Range<usize>> = (0..len)
            .step_by(self.step)
            .map(|from| from..(from + self.step).min(len))
            .collect();
        let mut walk = Walk {
            engine: self,
            reader: &*reader,
            pieces: &pieces,
            together,
            held: None,
        };

        let quantities = 1 + n * (n + 1) / 2;
        let mut total = Total::new(quantities);
        let mut signs = Signs::new(n);
        let mut selectors = vec![Selector::default(); n];
        walk.each(
            |_, buffers| {
                let mut sums = BlockSums::new(quantities);
                sums.dot(0, &buffers.base, &buffers.base);
                if known.is_none() {
                    for (q, (i, j)) in upper(n).enumerate() {
                        sums.dot(1 + q, &buffers.deltas[i], &buffers.deltas[j]);
                    }
                }
                for (signs, delta) in buffers.signs.iter_mut().zip(&buffers.deltas) {
                    signs.clear();
                    signs.extend(delta.iter().map(|v| sign(*v)));
                }
                let high = if n > 1 {
                    buffers
                        .deltas
                        .iter()
                        .map(|d| Selector::high(keys(d)))
                        .collect()
                } else {
                    Vec::new()
                };
                First {
                    sums,
                    signs: Signs::of(&buffers.signs, &mut buffers.up, &mut buffers.down),
                    high,
                }
            },
            |first| {
                total.absorb(&first.sums);
                signs.add(&first.signs);
                for (selector, high) in selectors.iter_mut().zip(&first.high) {
                    selector.absorb_high(high);
                }
            },
        )?;

        let mut out = Numbers::new(n, reader.has_base());
        out.elements = len as u64;
        if let Some(square) = &mut out.base_square {
            *square = total.get(0);
        }
        match known {
            Some(dots) => out.dots = dots,
            None => {
                for (q, (i, j)) in upper(n).enumerate() {
                    out.dots[i * n + j] = total.get(1 + q);
                    out.dots[j * n + i] = total.get(1 + q);
                }
            }
        }
        out.changed.clone_from(&signs.set);
        out.both = signs.both;
        out.opposed = signs.opposed;
        out.conflicts = signs.conflicts;

        if n > 1 && len > 0 {
            let want = ((len as f64 * self.options.top) as u64).max(1);
            // An unchanged entry is never among the largest.
            let ks: Vec<u64> = signs.set.iter().map(|set| want.min(*set)).collect();
            let kept = largest(&mut walk, &mut selectors, &ks)?;
            out.top = kept.set;
            out.top_both = kept.both;
            out.top_opposed = kept.opposed;
            out.top_shared = kept.shared;
            out.top_conflicts = kept.conflicts;
        }
        if let Some(buffers) = walk.held.take() {
            self.give_back(buffers);
        }
        self.options.done(len, &task.name);
        Ok(out)
    }

    fn take(&self) -> Buffers {
        let spare = self.spare.lock().ok().and_then(|mut s| s.pop());
        spare.unwrap_or_default()
    }

    fn give_back(&self, buffers: Buffers) {
        if let Ok(mut spare) = self.spare.lock() {
            spare.push(buffers);
        }
    }
}

/// Passes 2 and 3: signs of the `ks[i]` largest entries of every expert.
fn largest(walk: &mut Walk, selectors: &mut [Selector], ks: &[u64]) -> Result<Signs> {
    let n = selectors.len();
    for (selector, k) in selectors.iter_mut().zip(ks) {
        if *k > 0 {
            let rank = selector.count() - k;
            selector.want(&[rank]);
        }
    }
    let mut lows = Vec::new();
    let ready: &[Selector] = selectors;
    walk.each(
        |start, buffers| {
            let low =
                |(s, d): (&Selector, &Vec<f32>)| s.ready().then(|| s.low((0, start), keys(d)));
            ready
                .iter()
                .zip(&buffers.deltas)
                .map(low)
                .collect::<Vec<_>>()
        },
        |part| lows.push(part),
    )?;
    for part in lows {
        for (selector, low) in selectors.iter_mut().zip(part) {
            if let Some(low) = low {
                selector.absorb_low(low);
            }
        }
    }
    let cuts: Vec<Option<Cut>> = selectors
        .iter()
        .map(|s| s.ready().then(|| s.cut(0)))
        .collect();
    let mut all = Signs::new(n);
    walk.each(
        |start, buffers| {
            let signs = &mut buffers.signs;
            for (i, (signs, delta)) in signs.iter_mut().zip(&buffers.deltas).enumerate() {
                signs.clear();
                match &cuts[i] {
                    Some(cut) => {
                        let mut keep = cut.keep_largest(ks[i], (0, start));
                        signs.extend(delta.iter().map(|v| {
                            // Kept first: the test counts equal entries as it goes.
                            i8::from(keep(magnitude_bits(*v))) * sign(*v)
                        }));
                    }
                    None => signs.resize(delta.len(), 0),
                }
            }
            Signs::of(signs, &mut buffers.up, &mut buffers.down)
        },
        |part| all.add(&part),
    )?;
    Ok(all)
}

/// One tensor, walked piece by piece as often as needed.
struct Walk<'a, 'e, 'o, 'p> {
    engine: &'a Engine<'o, 'p>,
    reader: &'e dyn Reader,
    pieces: &'a [Range<usize>],
    together: bool,
    /// The only piece of a small tensor, kept between the passes.
    held: Option<Buffers>,
}

impl Walk<'_, '_, '_, '_> {
    /// Runs `work` on every piece (start, values), `absorb` on the results in order.
    fn each<R: Send>(
        &mut self,
        work: impl Fn(usize, &mut Buffers) -> R + Sync,
        mut absorb: impl FnMut(R),
    ) -> Result<()> {
        if let [only] = self.pieces {
            let mut buffers = match self.held.take() {
                Some(buffers) => buffers,
                None => self.filled(only)?,
            };
            absorb(work(only.start, &mut buffers));
            self.held = Some(buffers);
            return Ok(());
        }
        let one = |range: &Range<usize>| -> Result<R> {
            let mut buffers = self.filled(range)?;
            let result = work(range.start, &mut buffers);
            self.engine.give_back(buffers);
            Ok(result)
        };
        if !self.together {
            for range in self.pieces {
                absorb(one(range)?);
            }
            return Ok(());
        }
        for wave in self.pieces.chunks(WAVE) {
            let done: Vec<R> = wave.par_iter().map(one).collect::<Result<_>>()?;
            done.into_iter().for_each(&mut absorb);
        }
        Ok(())
    }

    fn filled(&self, range: &Range<usize>) -> Result<Buffers> {
        self.engine.options.stopped()?;
        let mut buffers = self.engine.take();
        let (n, len) = (self.engine.n, range.len());
        buffers.deltas.resize_with(n, Vec::new);
        buffers.signs.resize_with(n, Vec::new);
        for values in buffers.deltas.iter_mut().chain([&mut buffers.base]) {
            values.resize(len, 0.0);
        }
        if !self.reader.has_base() {
            buffers.base.clear();
        }
        self.reader.read(
            range.start,
            &mut buffers.base,
            &mut buffers.deltas,
            &mut buffers.scratch,
        )?;
        Ok(buffers)
    }
}

fn upper(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |i| (i..n).map(move |j| (i, j)))
}

fn keys(values: &[f32]) -> impl Iterator<Item = u32> {
    values.iter().map(|v| magnitude_bits(*v))
}

fn sign(v: f32) -> i8 {
    i8::from(v > 0.0) - i8::from(v < 0.0)
}
