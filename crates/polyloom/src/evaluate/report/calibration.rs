//! Does confidence tell? Reliability diagrams, and how right a system is on the answers it is surest of.

use std::fmt::Write as _;

use indexmap::IndexMap;

use super::svg::{Axis, Svg, clip};
use crate::evaluate::board::predictions::Predictions;
use crate::evaluate::metric::calibration::{Bin, Calibration, CalibrationError};
use crate::html::escape;

/// Systems drawn at most.
const MOST: usize = 8;
const BINS: usize = 10;

/// Confidences of a system.
pub struct Reliability {
    /// Its name.
    pub name: String,
    bins: Calibration,
    /// Calibration errors.
    pub error: CalibrationError,
    /// Confidence and whether right, surest first.
    sorted: Vec<(f64, bool)>,
}

impl Reliability {
    /// Of a system's predictions over all tasks; `None` where they state no confidence, or are scores rather than right
    /// and wrong.
    pub fn of(name: &str, predictions: &Predictions) -> Option<Self> {
        let mut bins = Calibration::new(BINS).ok()?;
        let mut sorted = Vec::new();
        for example in predictions.tasks.values().flat_map(IndexMap::values) {
            let Some(confidence) = example.confidence else {
                continue;
            };
            if example.value != 0.0 && example.value != 1.0 {
                return None;
            }
            let right = example.value == 1.0;
            bins.add(confidence, right).ok()?;
            sorted.push((confidence, right));
        }
        sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
        Some(Self {
            name: name.to_owned(),
            error: bins.finish().ok()?,
            bins,
            sorted,
        })
    }

    /// Share answered and accuracy among them, from the surest answers on; answers of equal confidence come together.
    fn selective(&self) -> Vec<(f64, f64)> {
        let n = self.sorted.len() as f64;
        let mut right = 0u64;
        let mut points = Vec::new();
        for (i, (confidence, ok)) in self.sorted.iter().enumerate() {
            right += u64::from(*ok);
            let next = self.sorted.get(i + 1);
            if next.is_none_or(|(c, _)| c < confidence) {
                let seen = i as f64 + 1.0;
                points.push((seen / n, right as f64 / seen));
            }
        }
        // At most some 200 points are drawn.
        let step = points.len().div_ceil(200);
        let last = points.len() - 1;
        let kept = points.iter().enumerate();
        kept.filter(|(i, _)| i % step == 0 || *i == last)
            .map(|(_, p)| *p)
            .collect()
    }

    fn diagram(&self) -> String {
        let (from, to) = (40.0, 250.0);
        let x = Axis::new(0.0, 1.0, from, to);
        let y = Axis::new(0.0, 1.0, to - 10.0, from - 10.0);
        let label = format!(
            "Reliability of {}: accuracy by confidence in {BINS} bins; calibration error {:.3}",
            self.name, self.error.l1
        );
        let mut svg = Svg::new(270.0, 291.0, &label);
        svg.text(from, 18.0, "b", &clip(&self.name, 28));
        for tick in [0.0, 0.5, 1.0] {
            svg.line((from, y.at(tick)), (to, y.at(tick)), "grid");
            svg.text(from - 6.0, y.at(tick) + 4.0, "axis e", &tick.to_string());
            svg.text(x.at(tick), to + 6.0, "axis m", &tick.to_string());
        }
        svg.line((x.at(0.0), y.at(0.0)), (x.at(1.0), y.at(1.0)), "dash");
        let counts = self.bins.bins().iter().map(Bin::count);
        let most = counts.max().unwrap_or(1).max(1) as f64;
        for (b, bin) in self.bins.bins().iter().enumerate() {
            if bin.count() == 0 {
                continue;
            }
            let low = b as f64 / BINS as f64;
            let (left, right) = (x.at(low) + 1.5, x.at(low + 1.0 / BINS as f64) - 1.5);
            let top = y.at(bin.accuracy());
            let title = format!(
                "{} answers of mean confidence {:.3}: {:.3} right",
                bin.count(),
                bin.confidence(),
                bin.accuracy()
            );
            svg.rect((left, top), (right - left, y.at(0.0) - top), "fill", &title);
            svg.mark((x.at(bin.confidence()), top), 0, "dot small", &title);
            // How many answers, as a strip below the axis; the tallest is the bin that holds most.
            let tall = 16.0 * bin.count() as f64 / most;
            svg.rect((left, 290.0 - tall), (right - left, tall), "count", &title);
        }
        svg.end()
    }
}

/// Diagrams side by side.
pub fn diagrams(found: &[Reliability]) -> String {
    let mut out = String::from("<div class=\"small\">");
    for one in found.iter().take(MOST) {
        let _ = write!(out, "<figure>{}</figure>", one.diagram());
    }
    out.push_str("</div>");
    out.push_str("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Calibration errors\"><table class=\"sortable\"><thead><tr><th scope=\"col\">system</th><th scope=\"col\">answers</th><th scope=\"col\">expected calibration error</th><th scope=\"col\">largest gap</th></tr></thead><tbody>");
    for one in found {
        let name = escape(&one.name);
        let _ = write!(
            out,
            "<tr><th scope=\"row\" title=\"{name}\">{name}</th><td>{}</td><td>{:.4}</td><td>{:.4}</td></tr>",
            one.sorted.len(),
            one.error.l1,
            one.error.max
        );
    }
    out.push_str("</tbody></table></div>\n");
    if found.len() > MOST {
        let _ = writeln!(
            out,
            "<p class=\"soft\">{MOST} of {} systems are drawn.</p>",
            found.len()
        );
    }
    out
}

/// Accuracy over the share of answers that is kept, the surest first.
pub fn selective(found: &[Reliability]) -> String {
    let found = &found[..found.len().min(MOST)];
    let curves: Vec<(String, Vec<(f64, f64)>)> = found
        .iter()
        .map(|one| (one.name.clone(), one.selective()))
        .collect();
    lines(
        &curves,
        "share of answers kept, the surest first",
        "accuracy among them",
        false,
    )
}

/// Lines told apart by form of mark and dash, with a legend below.
pub fn lines(curves: &[(String, Vec<(f64, f64)>)], across: &str, up: &str, log: bool) -> String {
    let points = || curves.iter().flat_map(|(_, c)| c.iter());
    let turn = |v: f64| if log { v.log2() } else { v };
    let far = points().map(|p| turn(p.0)).fold(f64::MIN, f64::max);
    let near = if log { 0.0 } else { 0.0f64.min(far) };
    let low = points().map(|p| p.1).fold(1.0, f64::min);
    let high = points().map(|p| p.1).fold(0.0, f64::max);
    let pad = ((high - low) * 0.05).max(0.005);
    let x = Axis::new(near, far, 56.0, 460.0);
    let y = Axis::new((low - pad).max(0.0), (high + pad).min(1.0), 250.0, 24.0);
    let height = 300.0 + 20.0 * curves.len() as f64;
    let names: Vec<&str> = curves.iter().map(|(name, _)| name.as_str()).collect();
    let label = format!("{up} by {across}: {}", names.join(", "));
    let mut svg = Svg::new(480.0, height, &label);
    let (ticks, digits) = y.ticks();
    for tick in ticks {
        svg.line((56.0, y.at(tick)), (460.0, y.at(tick)), "grid");
        svg.text(
            50.0,
            y.at(tick) + 4.0,
            "axis e",
            &format!("{tick:.digits$}"),
        );
    }
    let (ticks, digits) = x.ticks();
    for tick in ticks {
        let text = match log {
            true if tick.fract() == 0.0 => format!("{:.0}", tick.exp2()),
            true => continue,
            false => format!("{tick:.digits$}"),
        };
        svg.text(x.at(tick), 266.0, "axis m", &text);
    }
    svg.text(258.0, 284.0, "axis m", across);
    svg.text(56.0, 10.0, "axis", up);
    for (i, (name, curve)) in curves.iter().enumerate() {
        let mut data = String::new();
        for (j, (a, b)) in curve.iter().enumerate() {
            let pen = if j == 0 { 'M' } else { 'L' };
            let _ = write!(data, "{pen}{:.1} {:.1}", x.at(turn(*a)), y.at(*b));
        }
        svg.path(&data, &format!("series s{i}"), name);
        let every = curve.len().div_ceil(6).max(1);
        for (a, b) in curve.iter().skip(every / 2).step_by(every) {
            svg.mark((x.at(turn(*a)), y.at(*b)), i, &format!("dot s{i}"), "");
        }
        let row = 302.0 + 20.0 * i as f64;
        svg.line((56.0, row), (92.0, row), &format!("series s{i}"));
        svg.mark((74.0, row), i, &format!("dot s{i}"), "");
        svg.text(100.0, row + 4.0, "", &clip(name, 48));
    }
    svg.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::board::predictions::Columns;

    #[test]
    fn the_surest_answers_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.csv");
        let rows = "id,target,prediction,confidence\na,1,1,0.9\nb,1,0,0.6\nc,1,1,0.9\nd,1,0,0.2\n";
        std::fs::write(&path, rows).unwrap();
        let predictions = Predictions::read(&path, &Columns::default()).unwrap();
        let found = Reliability::of("a<b", &predictions).unwrap();
        assert_eq!(
            found.selective(),
            [(0.5, 1.0), (0.75, 2.0 / 3.0), (1.0, 0.5)]
        );
        // (2 · 0.1 + 0.6 + 0.2) / 4.
        assert!((found.error.l1 - 0.25).abs() < 1e-12);
        let html = diagrams(&[found]);
        assert!(html.contains("a&lt;b") && !html.contains("a<b"));
    }
}
