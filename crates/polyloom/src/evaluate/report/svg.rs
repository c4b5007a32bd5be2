//! Drawing: an inline SVG is text, with a label for those who do not see it.

use std::fmt::{Display, Write as _};

use crate::html::escape;

/// Width of a character of the charts' 13 px text, on average and a little more.
pub const LETTER: f64 = 8.0;

/// A drawing under way.
pub struct Svg {
    out: String,
}

impl Svg {
    /// An empty drawing; the label is read out in its place.
    pub fn new(width: f64, height: f64, label: &str) -> Self {
        let mut out = String::new();
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" aria-label=\"{}\">",
            escape(label)
        );
        Self { out }
    }

    /// Text at a place; `class` may name several (`e` ends there, `m` is centred there).
    pub fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let _ = write!(
            self.out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>",
            escape(text)
        );
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let _ = write!(
            self.out,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" class=\"{class}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    /// A path from its data, which is ours, never a stranger's text.
    pub fn path(&mut self, data: &impl Display, class: &str, title: &str) {
        let _ = write!(self.out, "<path d=\"{data}\" class=\"{class}\"");
        self.close("path", title);
    }

    /// A path in units of a grid whose cells are so wide and high.
    pub fn scaled_path(&mut self, data: &str, class: &str, (x, y): (f64, f64)) {
        let _ = write!(
            self.out,
            "<path d=\"{data}\" class=\"{class}\" transform=\"scale({x} {y})\"/>"
        );
    }

    /// A box.
    pub fn rect(&mut self, at: (f64, f64), size: (f64, f64), class: &str, title: &str) {
        let _ = write!(
            self.out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" class=\"{class}\"",
            at.0, at.1, size.0, size.1
        );
        self.close("rect", title);
    }

    /// One of eight marks that are told apart by form.
    pub fn mark(&mut self, (x, y): (f64, f64), which: usize, class: &str, title: &str) {
        let r = 4.5;
        let data = match which % 8 {
            0 => format!(
                "M{:.1} {y:.1}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z",
                x - r,
                d = 2.0 * r
            ),
            1 => format!("M{:.1} {:.1}h8v8h-8z", x - 4.0, y - 4.0),
            2 => format!("M{x:.1} {:.1}l5 9h-10z", y - 5.0),
            3 => format!("M{x:.1} {:.1}l5.5 5.5l-5.5 5.5l-5.5 -5.5z", y - 5.5),
            4 => format!("M{x:.1} {:.1}l5 -9h-10z", y + 5.0),
            5 => format!("M{:.1} {:.1}h3v-3h3v3h3v3h-3v3h-3v-3h-3z", x - 4.5, y - 1.5),
            6 => format!("M{:.1} {:.1}l9 4.5l-9 4.5z", x - 4.0, y - 4.5),
            _ => format!("M{:.1} {:.1}l-9 4.5l9 4.5z", x + 4.0, y - 4.5),
        };
        self.path(&data, class, title);
    }

    fn close(&mut self, element: &str, title: &str) {
        let _ = match title {
            "" => write!(self.out, "/>"),
            title => write!(self.out, "><title>{}</title></{element}>", escape(title)),
        };
    }

    /// The element.
    pub fn end(mut self) -> String {
        self.out.push_str("</svg>");
        self.out
    }
}

/// An axis: where values lie, and the round numbers among them.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Values from `low` to `high` between two places.
    pub fn new(low: f64, high: f64, from: f64, to: f64) -> Self {
        let (low, high) = if high > low {
            (low, high)
        } else {
            let pad = low.abs().max(1.0) * 0.01;
            (low - pad, low + pad)
        };
        Self {
            low,
            high,
            from,
            to,
        }
    }

    /// Where a value stands; beyond the ends, at the end.
    pub fn at(&self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }

    /// Some four to eight round numbers, and how many digits they need after the point.
    pub fn ticks(&self) -> (Vec<f64>, usize) {
        let rough = (self.high - self.low) / 5.0;
        let power = rough.log10().floor();
        let unit = 10f64.powf(power);
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|m| m * unit)
            .into_iter()
            .find(|s| *s >= rough)
            .unwrap_or(10.0 * unit);
        let digits = (-(step.log10() + 1e-9).floor()).clamp(0.0, 9.0) as usize;
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        let values = (first..=last).take(50).map(|i| i as f64 * step);
        (values.collect(), digits)
    }
}

/// At most so many characters, the rest as an ellipsis.
pub fn clip(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Room that names need at 13 px, at most `most` characters of them.
pub fn room<'a>(names: impl Iterator<Item = &'a str>, most: usize) -> f64 {
    let longest = names
        .map(|n| n.chars().count().min(most))
        .max()
        .unwrap_or(0);
    longest as f64 * LETTER + 12.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_take_round_numbers() {
        let axis = Axis::new(0.412, 0.713, 100.0, 400.0);
        let (ticks, digits) = axis.ticks();
        assert_eq!(digits, 1);
        assert_eq!(
            ticks.iter().map(|t| format!("{t:.1}")).collect::<Vec<_>>(),
            ["0.5", "0.6", "0.7"]
        );
        assert_eq!(
            (axis.at(0.412), axis.at(0.713), axis.at(7.0)),
            (100.0, 400.0, 400.0)
        );
        assert_eq!(Axis::new(0.0, 1.0, 0.0, 1.0).ticks().0.len(), 6);
        let flat = Axis::new(3.0, 3.0, 0.0, 10.0);
        assert!(flat.at(3.0).is_finite() && flat.ticks().0.len() < 20);
    }

    #[test]
    fn names_stay_text() {
        let mut svg = Svg::new(10.0, 10.0, "a\"b");
        svg.text(1.0, 1.0, "e", "<script>");
        svg.mark((5.0, 5.0), 3, "s0", "x & y");
        let out = svg.end();
        assert!(out.contains("aria-label=\"a&quot;b\"") && out.contains("&lt;script&gt;"));
        assert!(out.contains("<title>x &amp; y</title></path></svg>"));
        assert_eq!(clip("abcdef", 4), "abc…");
    }
}
