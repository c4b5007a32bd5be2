//! What may vary: a key of a recipe with values to choose from or a range.

use std::str::FromStr;

/// Points that a range has on a grid where none are asked for.
const POINTS: usize = 5;

/// What a key may be.
#[derive(Debug, Clone, PartialEq)]
pub enum Space {
    /// One of some values, as they stand in a recipe.
    Choices(Vec<String>),
    /// A number from `low` to `high`.
    Range {
        /// The least.
        low: f64,
        /// The largest.
        high: f64,
        /// Even in the logarithm.
        log: bool,
        /// Whole numbers alone.
        whole: bool,
        /// Points on a grid.
        points: usize,
    },
}

/// A key of a recipe and what it may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// The key, such as `merge.shared.lambda`.
    pub key: String,
    /// What it may be.
    pub space: Space,
    /// A number for each of so many experts (`KEY@experts`); 0 for one that all share.
    pub experts: usize,
    /// A gradient of so many numbers over the layers (`KEY@layers:N`); 0 for one number for all.
    pub layers: usize,
}

impl Axis {
    /// Numbers of a point that are this axis's.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.experts.max(1) * self.layers.max(1)
    }

    /// Its value, of so many texts, as a recipe takes it: `a`, `a,b` by expert, `[a, b]` over layers, both.
    fn text(&self, parts: &[String]) -> String {
        let list = |parts: &[String]| format!("[{}]", parts.join(", "));
        match (self.experts, self.layers) {
            (0, 0) => parts.concat(),
            (0, _) => list(parts),
            (_, 0) => parts.join(","),
            (_, n) => {
                let all: Vec<String> = parts.chunks(n).map(list).collect();
                list(&all)
            }
        }
    }
}

impl Space {
    /// The value at a place from 0 to 1.
    #[must_use]
    pub fn at(&self, place: f64) -> String {
        let place = place.clamp(0.0, 1.0);
        match self {
            Self::Choices(all) => {
                let at = (place * all.len() as f64) as usize;
                all[at.min(all.len() - 1)].clone()
            }
            Self::Range {
                low,
                high,
                log,
                whole,
                ..
            } => {
                let x = match log {
                    true => (low.ln() + place * (high.ln() - low.ln())).exp(),
                    false => low + place * (high - low),
                };
                match whole {
                    // Every whole number has the same share of the places.
                    true if !log => {
                        let n = (low + (place * (high - low + 1.0)).floor()).min(*high);
                        format!("{n}")
                    }
                    true => format!("{}", x.round()),
                    false => shown(x.clamp(*low, *high)),
                }
            }
        }
    }

    /// Its places on a grid.
    #[must_use]
    pub fn grid(&self) -> Vec<f64> {
        match self {
            Self::Choices(all) => {
                let n = all.len() as f64;
                (0..all.len()).map(|i| (i as f64 + 0.5) / n).collect()
            }
            Self::Range { points: 1, .. } => vec![0.5],
            Self::Range { points, .. } => {
                let last = (points - 1) as f64;
                (0..*points).map(|i| i as f64 / last).collect()
            }
        }
    }

    /// Whether it is a list of values, on which a search that follows a direction means nothing.
    #[must_use]
    pub fn is_choices(&self) -> bool {
        matches!(self, Self::Choices(_))
    }
}

/// Six digits are what is shown and what is tried.
fn shown(x: f64) -> String {
    let rounded: f64 = format!("{x:.5e}").parse().unwrap_or(x);
    format!("{rounded}")
}

/// Numbers of a point.
#[must_use]
pub fn dimensions(axes: &[Axis]) -> usize {
    axes.iter().map(Axis::entries).sum()
}

/// Keys and values of a point.
#[must_use]
pub fn values(axes: &[Axis], point: &[f64]) -> Vec<(String, String)> {
    let mut at = 0;
    let mut next = |axis: &Axis| {
        let own: Vec<String> = point[at..at + axis.entries()]
            .iter()
            .map(|p| axis.space.at(*p))
            .collect();
        at += axis.entries();
        (axis.key.clone(), axis.text(&own))
    };
    axes.iter().map(&mut next).collect()
}

impl FromStr for Axis {
    type Err = String;

    /// `KEY=a,b,c`, `KEY=LOW..HIGH`, `KEY=LOW..HIGH/POINTS`, `KEY=log:LOW..HIGH`, `KEY=int:LOW..HIGH`; after the key
    /// `@experts` (one number, until the number of experts is put in) and `@layers:N`.
    fn from_str(text: &str) -> Result<Self, String> {
        let form = "expected KEY=a,b,c or KEY=LOW..HIGH (or log:LOW..HIGH, int:LOW..HIGH, LOW..HIGH/POINTS)";
        let (key, rest) = text.split_once('=').ok_or(form)?;
        let (key, rest) = (key.trim(), rest.trim());
        if key.is_empty() || rest.is_empty() {
            return Err(form.into());
        }
        let space = range(rest)?.map_or_else(|| choices(rest), Ok)?;
        let mut words = key.split('@');
        let mut axis = Self {
            key: words.next().unwrap_or_default().into(),
            space,
            experts: 0,
            layers: 0,
        };
        for word in words {
            match word.split_once(':') {
                None if word == "experts" => axis.experts = 1,
                Some(("layers", n)) => {
                    axis.layers = n.parse().ok().filter(|n| *n >= 2).ok_or_else(|| {
                        format!("`{key}`: @layers:N is a gradient of at least 2 numbers")
                    })?;
                }
                _ => return Err(format!("`{key}`: after @ stands `experts` or `layers:N`")),
            }
        }
        if axis.experts > 0 && !axis.key.starts_with("merge.each.") {
            return Err(format!(
                "`{key}`: a value of each expert is one of merge.each"
            ));
        }
        Ok(axis)
    }
}

/// A range, where the text is one.
fn range(text: &str) -> Result<Option<Space>, String> {
    let (body, log, whole) = match text.split_once(':') {
        Some(("log", rest)) => (rest, true, false),
        Some(("int", rest)) => (rest, false, true),
        _ => (text, false, false),
    };
    let stated = log || whole;
    let bad = |what: &str| Err(format!("`{text}`: {what}"));
    let Some((low, rest)) = body.split_once("..") else {
        return if stated {
            bad("expected LOW..HIGH")
        } else {
            Ok(None)
        };
    };
    let (high, points) = match rest.split_once('/') {
        Some((high, n)) => (high, Some(n)),
        None => (rest, None),
    };
    let (Ok(low), Ok(high)) = (low.trim().parse::<f64>(), high.trim().parse::<f64>()) else {
        // A path may hold two dots.
        return match stated {
            true => bad("LOW and HIGH must be numbers"),
            false => Ok(None),
        };
    };
    let points = match points.map(|n| n.trim().parse()) {
        None => POINTS,
        Some(Ok(n)) if n >= 1 => n,
        Some(_) => return bad("the number of points after `/` must be at least 1"),
    };
    if !(low.is_finite() && high.is_finite() && low < high) {
        return bad("LOW must be below HIGH, both finite");
    }
    if log && low <= 0.0 {
        return bad("a range in the logarithm begins above 0");
    }
    if whole && (low.fract() != 0.0 || high.fract() != 0.0) {
        return bad("LOW and HIGH must be whole numbers");
    }
    let points = match whole {
        true => points.min((high - low) as usize + 1),
        false => points,
    };
    Ok(Some(Space::Range {
        low,
        high,
        log,
        whole,
        points,
    }))
}

/// Values between commas; commas within brackets and quotes belong to a value.
fn choices(text: &str) -> Result<Space, String> {
    let (mut all, mut one) = (Vec::new(), String::new());
    let (mut depth, mut quoted) = (0i32, false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                all.push(std::mem::take(&mut one));
                continue;
            }
            _ => {}
        }
        one.push(c);
    }
    all.push(one);
    let all: Vec<String> = all.iter().map(|v| v.trim().to_owned()).collect();
    if quoted || depth != 0 {
        return Err(format!("`{text}`: a quote or a bracket is not closed"));
    }
    if all.iter().any(String::is_empty) {
        return Err(format!("`{text}`: a value is empty"));
    }
    if all.iter().enumerate().any(|(i, v)| all[..i].contains(v)) {
        return Err(format!("`{text}`: a value stands twice"));
    }
    Ok(Space::Choices(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(text: &str) -> Axis {
        text.parse().unwrap()
    }

    #[test]
    fn values_at_places() {
        let a = axis("merge.shared.lambda=0.1..1.5");
        assert_eq!(
            [a.space.at(0.0), a.space.at(0.5), a.space.at(1.0)],
            ["0.1", "0.8", "1.5"]
        );
        let a = axis("rate=log:1e-4..1e-2");
        assert_eq!(a.space.at(0.5), "0.001");
        let a = axis("k=int:1..3");
        let all: Vec<String> = [0.0, 0.3, 0.34, 0.7, 1.0]
            .iter()
            .map(|p| a.space.at(*p))
            .collect();
        assert_eq!(all, ["1", "1", "2", "3", "3"]);
        let a = axis("merge.method=ties, dare_ties");
        assert_eq!(
            [a.space.at(0.49), a.space.at(0.5), a.space.at(1.0)],
            ["ties", "dare_ties", "dare_ties"]
        );
        let a = axis("x=[1, 2],[3]");
        assert_eq!(a.space, Space::Choices(vec!["[1, 2]".into(), "[3]".into()]));
        let a = axis("expert.x.path=../a..b,c");
        assert!(a.space.is_choices());
    }

    #[test]
    fn values_by_expert_and_layer() {
        let mut axes = [axis("merge.each.weight@experts=0..1"), axis("seed=1,2")];
        axes[0].experts = 3;
        let found = values(&axes, &[0.0, 0.25, 1.0, 0.9]);
        let text = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            found,
            [text("merge.each.weight", "0,0.25,1"), text("seed", "2")]
        );
        let over = axis("merge.shared.t@layers:2=0..1");
        assert_eq!(values(&[over], &[0.5, 1.0])[0].1, "[0.5, 1]");
        let mut both = axis("merge.each.weight@experts@layers:2=0..1");
        both.experts = 2;
        assert_eq!(
            values(&[both], &[0.1, 0.2, 0.3, 0.4])[0].1,
            "[[0.1, 0.2], [0.3, 0.4]]"
        );
    }

    #[test]
    fn what_is_no_axis_says_why() {
        for (text, why) in [
            ("lambda", "expected KEY="),
            ("lambda=", "expected KEY="),
            ("lambda=2..1", "below HIGH"),
            ("lambda=log:0..1", "above 0"),
            ("lambda=int:0.5..2", "whole"),
            ("lambda=log:x..2", "numbers"),
            ("lambda=0..1/0", "at least 1"),
            ("lambda=1,,2", "empty"),
            ("lambda=1,1", "twice"),
            ("lambda=[1,2", "closed"),
            ("lambda@expert=0..1", "after @"),
            ("lambda@layers:1=0..1", "at least 2"),
            ("merge.shared.lambda@experts=0..1", "merge.each"),
        ] {
            let error = text.parse::<Axis>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
