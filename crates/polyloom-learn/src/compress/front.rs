//! Size against score: candidates, the front among them, a table, a plot.

use std::path::PathBuf;

use polyloom::compress::Accounting;
use polyloom::evaluate::report::svg::{Axis, Svg};
use polyloom_core::writer::human;
use serde::Serialize;

use super::judge::{Kept, Score};
use super::recipe::Method;

/// A bundle that was made and looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Candidate {
    /// How deltas are stored.
    pub method: Method,
    /// What sets it apart from others of the method.
    pub how: String,
    /// Bytes of its files of deltas.
    pub bytes: u64,
    /// Its storage beside that of the experts.
    pub accounting: Accounting,
    /// Value of each task's metric, in the order of the tasks.
    pub values: Vec<f64>,
    /// Share of the experts' scores.
    pub kept: Kept,
    /// No other candidate is at most as large and at least as good.
    pub front: bool,
    /// Where it lies while it is looked at.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Its scores.
    #[serde(skip)]
    pub scores: Vec<Score>,
}

/// Sorts candidates by their size and marks those that no other one beats.
pub fn mark(all: &mut [Candidate]) {
    let key = |c: &Candidate| (c.bytes, std::cmp::Reverse(ordered(c.kept.share)));
    all.sort_by_key(key);
    let mut best = f64::NEG_INFINITY;
    for c in all {
        c.front = c.kept.share > best;
        best = best.max(c.kept.share);
    }
}

/// A share as a key.
fn ordered(share: f64) -> i64 {
    let bits = share.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// The one that is asked for: with a share the smallest that keeps it (`sure`: the lower end of whose interval does), else the
/// best; within the budget, where there is one.
#[must_use]
pub fn choose(
    all: &[Candidate],
    budget: Option<u64>,
    keep: Option<f64>,
    sure: bool,
) -> Option<usize> {
    let fits = |c: &Candidate| budget.is_none_or(|b| c.bytes <= b);
    let inside = || all.iter().enumerate().filter(|(_, c)| fits(c));
    match keep {
        Some(share) => inside()
            .filter(|(_, c)| c.kept.least(sure).is_some_and(|kept| kept >= share))
            .min_by_key(|(_, c)| (c.bytes, std::cmp::Reverse(ordered(c.kept.share))))
            .map(|(i, _)| i),
        None => inside()
            .max_by_key(|(_, c)| (ordered(c.kept.share), std::cmp::Reverse(c.bytes)))
            .map(|(i, _)| i),
    }
}

/// Lines of at most 80 columns: size, its share of the experts' files, score, its interval; `*` stands at the front,
/// `>` at the one that is chosen.
#[must_use]
pub fn table(all: &[Candidate], chosen: Option<usize>) -> String {
    let mut out = format!(
        "{:<2}{:<14} {:<18} {:>9} {:>7} {:>8}  {}\n",
        "", "method", "", "size", "of all", "keeps", "95 % interval"
    );
    for (i, c) in all.iter().enumerate() {
        let mark = match (chosen == Some(i), c.front) {
            (true, _) => ">",
            (false, true) => "*",
            _ => "",
        };
        let interval = c.kept.interval.map_or_else(String::new, |(a, b)| {
            format!("{:.1} to {:.1}", 100.0 * a, 100.0 * b)
        });
        let line = format!(
            "{mark:<2}{:<14} {:<18} {:>9} {:>5.1} % {:>6.2} %  {interval}",
            c.method.word(),
            c.how,
            human(c.bytes),
            100.0 * c.accounting.deltas_only(),
            100.0 * c.kept.share,
        );
        out += line.trim_end();
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out
}

const STYLE: &str = "<style>text{font:13px sans-serif;fill:#222}.m{text-anchor:middle}.e{text-anchor:end}.axis{stroke:#888}.grid{stroke:#ddd}.front{fill:none;stroke:#1b6ca8;stroke-width:1.5}.in{fill:#1b6ca8}.out{fill:#aab}.chosen{fill:#c8401c}.bar{stroke:#99a}.asked{stroke:#c8401c;stroke-dasharray:4 3}</style>";

/// The plot: bytes on a logarithmic axis, the share that is kept with its interval.
#[must_use]
pub fn plot(all: &[Candidate], chosen: Option<usize>, keep: Option<f64>) -> String {
    let (width, height) = (720.0, 400.0);
    let (left, right, top, bottom) = (70.0, 540.0, 30.0, 340.0);
    let size = |c: &Candidate| (c.bytes.max(1) as f64).log10();
    let ends = |c: &Candidate| c.kept.interval.unwrap_or((c.kept.share, c.kept.share));
    let low = |f: &dyn Fn(&Candidate) -> f64| all.iter().map(f).fold(f64::INFINITY, f64::min);
    let high = |f: &dyn Fn(&Candidate) -> f64| all.iter().map(f).fold(f64::NEG_INFINITY, f64::max);
    let x = Axis::new(low(&size) - 0.05, high(&size) + 0.05, left, right);
    // A candidate that keeps nothing must not flatten the others.
    let floor = low(&|c| ends(c).0).max(0.5);
    let y = Axis::new(
        100.0 * floor,
        100.0 * high(&|c| ends(c).1).max(1.0),
        bottom,
        top,
    );
    let mut svg = Svg::new(
        width,
        height,
        "Size of bundles against the share of the experts' scores",
    );
    let (ticks, places) = y.ticks();
    for tick in ticks {
        svg.line((left, y.at(tick)), (right, y.at(tick)), "grid");
        svg.text(
            left - 6.0,
            y.at(tick) + 4.0,
            "e",
            &format!("{tick:.places$} %"),
        );
    }
    let mut mantissa = 10f64.powf(low(&size).floor());
    while mantissa.log10() <= high(&size) + 0.05 {
        for step in [1.0, 2.0, 5.0] {
            let at = (mantissa * step).log10();
            if at >= low(&size) - 0.05 && at <= high(&size) + 0.05 {
                svg.line((x.at(at), bottom), (x.at(at), bottom + 4.0), "axis");
                svg.text(
                    x.at(at),
                    bottom + 20.0,
                    "m",
                    &human((mantissa * step) as u64),
                );
            }
        }
        mantissa *= 10.0;
    }
    svg.line((left, bottom), (right, bottom), "axis");
    if let Some(share) = keep {
        let at = y.at((100.0 * share).max(100.0 * floor));
        svg.line((left, at), (right, at), "asked");
    }
    let value = |c: &Candidate| y.at((100.0 * c.kept.share).max(100.0 * floor));
    let front: Vec<String> = all
        .iter()
        .filter(|c| c.front)
        .map(|c| format!("{:.1} {:.1}", x.at(size(c)), value(c)))
        .collect();
    if front.len() > 1 {
        svg.path(&format!("M{}", front.join("L")), "front", "");
    }
    let mut methods: Vec<Method> = Vec::new();
    for (i, c) in all.iter().enumerate() {
        let which = methods
            .iter()
            .position(|m| *m == c.method)
            .unwrap_or_else(|| {
                methods.push(c.method);
                methods.len() - 1
            });
        let at = x.at(size(c));
        let (a, b) = ends(c);
        let bound = |v: f64| y.at((100.0 * v).max(100.0 * floor));
        svg.line((at, bound(a)), (at, bound(b)), "bar");
        let class = match (chosen == Some(i), c.front) {
            (true, _) => "chosen",
            (false, true) => "in",
            _ => "out",
        };
        let title = format!(
            "{} {}: {}, keeps {:.2} %",
            c.method.word(),
            c.how,
            human(c.bytes),
            100.0 * c.kept.share
        );
        svg.mark((at, value(c)), which, class, title.trim());
    }
    for (i, method) in methods.iter().enumerate() {
        let at = top + 20.0 * i as f64;
        svg.mark((right + 24.0, at), i, "in", "");
        svg.text(right + 36.0, at + 4.0, "", method.word());
    }
    svg.text(
        (left + right) / 2.0,
        bottom + 44.0,
        "m",
        "size of the deltas of all tasks",
    );
    let text = svg.end();
    let text = text.replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1);
    match text.find('>') {
        Some(at) => format!("{}{STYLE}{}\n", &text[..=at], &text[at + 1..]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(method: Method, bytes: u64, share: f64) -> Candidate {
        Candidate {
            method,
            how: "1/8".into(),
            bytes,
            accounting: Accounting {
                shared: 0,
                masks: 0,
                deltas: bytes,
                coding: Default::default(),
                experts: 1_000_000,
                base: 0,
            },
            values: vec![share],
            kept: Kept {
                share,
                interval: Some((share - 0.01, share + 0.01)),
            },
            front: false,
            folder: PathBuf::new(),
            scores: Vec::new(),
        }
    }

    #[test]
    fn the_front_and_the_choice() {
        let mut all = [
            candidate(Method::Tall, 300_000, 0.995),
            candidate(Method::Lowrank, 100_000, 0.95),
            candidate(Method::Emr, 300_000, 0.9),
            candidate(Method::Lowrank, 400_000, 1.01),
            candidate(Method::Graft, 450_000, 1.0),
        ];
        mark(&mut all);
        let front: Vec<bool> = all.iter().map(|c| c.front).collect();
        assert_eq!(front, [true, true, false, true, false]);
        assert_eq!(choose(&all, None, Some(0.99), false), Some(1));
        assert_eq!(choose(&all, None, None, false), Some(3));
        assert_eq!(choose(&all, Some(350_000), None, false), Some(1));
        assert_eq!(choose(&all, Some(200_000), Some(0.99), false), None);
        // The interval of what has 0.995 goes down to 0.985.
        assert_eq!(choose(&all, None, Some(0.99), true), Some(3));
        assert_eq!(choose(&all, None, Some(0.98), true), Some(1));
        all[3].kept.interval = None;
        assert_eq!(choose(&all, None, Some(0.99), true), Some(4));
        let text = table(&all, Some(1));
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        assert!(
            text.contains("> tall") && text.contains("* lowrank"),
            "{text}"
        );
        let svg = plot(&all, Some(1), Some(0.99));
        assert!(svg.starts_with("<svg xmlns=") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("class=\"chosen\"") && svg.contains("<style>"));
    }
}
