//! The critical-difference diagram: mean ranks on a line, and bars over those that Nemenyi's test does not tell apart.

use super::svg::{Axis, LETTER, Svg, clip};
use crate::evaluate::aggregate::ScoreMatrix;
use crate::evaluate::statistics::friedman::{
    Cliques, Friedman, cliques, friedman, nemenyi_critical_difference,
};

/// Mean ranks and names, best first; and the bars, from one position to another.
type Drawn<'a> = (Vec<(f64, &'a str)>, Vec<(usize, usize)>);

/// Systems drawn at most.
const MOST: usize = 24;

/// The test behind the diagram.
#[derive(Debug, Clone)]
pub struct CriticalDifference {
    /// Systems that take part.
    pub systems: Vec<usize>,
    /// Tasks that take part: those that all these systems were measured on.
    pub tasks: Vec<usize>,
    /// Friedman's test.
    pub friedman: Friedman,
    /// Mean ranks further apart than this differ.
    pub difference: f64,
    /// Places and groups, in numbers of `systems`.
    pub cliques: Cliques,
    /// 1 − the level of the test.
    pub alpha: f64,
}

impl CriticalDifference {
    /// Over the systems and tasks of which every cell is filled: the row or column with the largest share of missing
    /// cells is dropped until none is missing.
    ///
    /// # Errors
    /// Says why there is no diagram.
    pub fn of(matrix: &ScoreMatrix, level: f64) -> Result<Self, String> {
        let (systems, tasks) = complete(matrix);
        if systems.len() < 3 || tasks.len() < 2 {
            return Err(format!(
                "the test needs three systems on two tasks without missing scores; here are {} and {}",
                systems.len(),
                tasks.len()
            ));
        }
        let rows: Vec<Vec<f64>> = tasks
            .iter()
            .map(|&t| {
                let column = matrix.oriented(t).unwrap_or_default();
                systems.iter().map(|&s| column[s]).collect()
            })
            .collect();
        let test = friedman(&rows).map_err(|e| e.to_string())?;
        let difference = nemenyi_critical_difference(systems.len(), tasks.len(), level)
            .map_err(|e| e.to_string())?;
        let ranks = &test.mean_ranks;
        let groups = cliques(ranks, |a, b| (ranks[a] - ranks[b]).abs() <= difference);
        Ok(Self {
            cliques: groups,
            friedman: test,
            difference,
            systems,
            tasks,
            alpha: 1.0 - level,
        })
    }

    /// What the test says.
    pub fn sentence(&self, matrix: &ScoreMatrix) -> String {
        let p = match self.friedman.f_p {
            p if p.is_nan() => "not defined".to_owned(),
            p if p < 0.0001 => "< 0.0001".to_owned(),
            p => format!("= {p:.4}"),
        };
        let verdict = if self.friedman.f_p < self.alpha {
            "the systems differ"
        } else {
            "no difference is shown, so the bars are not to be read further"
        };
        let (k, n) = (self.systems.len(), self.tasks.len());
        let ranked = matrix.ranked().count();
        let left_out = if k < matrix.systems().len() || n < ranked {
            format!(
                " Missing scores leave {k} of {} systems and {n} of {ranked} tasks in the test.",
                matrix.systems().len()
            )
        } else {
            String::new()
        };
        let cut = if k > MOST {
            format!(" The {MOST} best are drawn.")
        } else {
            String::new()
        };
        format!(
            "Friedman's test (Iman–Davenport) over {n} tasks: p {p}: {verdict}. Mean ranks less than {:.2} apart (Nemenyi, {:.0} %) are joined by a bar: not told apart.{left_out}{cut}",
            self.difference,
            100.0 * (1.0 - self.alpha)
        )
    }

    /// Who is drawn, best first, with mean ranks and names; and the bars over positions of that order.
    fn drawn<'a>(&self, matrix: &'a ScoreMatrix) -> Drawn<'a> {
        let shown = self.cliques.order.len().min(MOST);
        let one = |&i: &usize| {
            let name = matrix.systems()[self.systems[i]].as_str();
            (self.friedman.mean_ranks[i], name)
        };
        let groups = self.cliques.groups.iter().filter(|g| g.0 < shown);
        let groups = groups.map(|g| (g.0, g.1.min(shown - 1)));
        (
            self.cliques.order[..shown].iter().map(one).collect(),
            groups.filter(|g| g.1 > g.0).collect(),
        )
    }

    fn ends(&self, drawn: &[(f64, &str)]) -> (f64, f64) {
        let ends = drawn.first().zip(drawn.last());
        let (low, high) = ends.map_or((1.0, 2.0), |(a, b)| (a.0.floor(), b.0.ceil()));
        (low, high.max(low + self.difference.ceil()))
    }

    fn yardstick(&self, svg: &mut Svg, axis: &Axis, low: f64) {
        let (a, b) = (axis.at(low), axis.at(low + self.difference));
        svg.line((a, 14.0), (b, 14.0), "ink");
        svg.line((a, 10.0), (a, 18.0), "ink");
        svg.line((b, 10.0), (b, 18.0), "ink");
        let label = format!("critical difference {:.2}", self.difference);
        svg.text(a, 31.0, "axis", &label);
    }

    /// The drawing for phones: a row for each system, bars upright beside those that are not told apart.
    pub fn narrow(&self, matrix: &ScoreMatrix) -> String {
        let (drawn, groups) = self.drawn(matrix);
        let (low, high) = self.ends(&drawn);
        let (left, width, top, step) = (14.0, 230.0, 62.0, 32.0);
        let bottom = top + step * drawn.len() as f64;
        let bars = left + width + 56.0;
        let axis = Axis::new(low, high, left, left + width);
        let mut svg = Svg::new(
            bars + 9.0 * groups.len() as f64,
            bottom + 6.0,
            &format!(
                "Mean ranks of {} systems, best first, bars beside those not told apart",
                drawn.len()
            ),
        );
        let (ticks, digits) = axis.ticks();
        for tick in ticks {
            let x = axis.at(tick);
            svg.line((x, top - 6.0), (x, bottom), "grid");
            svg.text(x, top - 10.0, "axis m", &format!("{tick:.digits$}"));
        }
        self.yardstick(&mut svg, &axis, low);
        let y = |row: usize| top + step * row as f64 + 22.0;
        for (row, (rank, name)) in drawn.iter().enumerate() {
            let shown = format!("{rank:.2}");
            svg.text(left, y(row) - 10.0, "", &clip(name, 34));
            svg.mark(
                (axis.at(*rank), y(row)),
                0,
                "dot",
                &format!("{name}: mean rank {shown}"),
            );
            svg.text(left + width + 8.0, y(row) + 4.0, "", &shown);
        }
        for (level, (first, last)) in groups.iter().enumerate() {
            let x = bars + 9.0 * level as f64;
            svg.line((x, y(*first) - 6.0), (x, y(*last) + 6.0), "bar");
        }
        svg.end()
    }

    /// The drawing.
    pub fn chart(&self, matrix: &ScoreMatrix) -> String {
        let (drawn, groups) = self.drawn(matrix);
        let shown = drawn.len();
        let (half, rest) = (shown.div_ceil(2), shown / 2);
        let long = |part: &[(f64, &str)]| {
            let widest = part
                .iter()
                .map(|(_, name)| name.chars().count().min(26))
                .max();
            widest.unwrap_or(0) as f64 * LETTER + 52.0
        };
        let (left, right, middle) = (long(&drawn[..half]), long(&drawn[half..]), 420.0);
        let line = 58.0;
        let names = line + 14.0 + 9.0 * groups.len() as f64;
        let height = names + 21.0 * half.max(rest) as f64 + 8.0;
        let (low, high) = self.ends(&drawn);
        let axis = Axis::new(low, high, left + 20.0, left + middle - 20.0);
        let mut svg = Svg::new(
            left + middle + right,
            height,
            &format!("Critical difference diagram of {shown} systems by mean rank, best left"),
        );
        let (ticks, digits) = axis.ticks();
        svg.line((axis.at(low), line), (axis.at(high), line), "ink");
        for tick in ticks {
            let x = axis.at(tick);
            svg.line((x, line - 5.0), (x, line), "ink");
            svg.text(x, line - 9.0, "axis m", &format!("{tick:.digits$}"));
        }
        self.yardstick(&mut svg, &axis, low);
        for (i, (rank, name)) in drawn.iter().enumerate() {
            let x = axis.at(*rank);
            let on_left = i < half;
            let row = if on_left { i } else { shown - 1 - i };
            let y = names + 21.0 * row as f64 + 10.0;
            let number = format!("{rank:.2}");
            let (end, at, class) = if on_left {
                (left + 4.0, left - 2.0, "e")
            } else {
                (left + middle - 4.0, left + middle + 2.0, "")
            };
            svg.path(
                &format!("M{x:.1} {line}V{y:.1}H{end:.1}"),
                "lead",
                &format!("{name}: mean rank {number}"),
            );
            let label = clip(name, 26);
            let label = if on_left {
                format!("{label}  {number}")
            } else {
                format!("{number}  {label}")
            };
            svg.text(at, y + 4.0, class, &label);
        }
        for (level, (first, last)) in groups.iter().enumerate() {
            let y = line + 9.0 + 9.0 * level as f64;
            let (a, b) = (
                axis.at(drawn[*first].0) - 4.0,
                axis.at(drawn[*last].0) + 4.0,
            );
            svg.line((a, y), (b, y), "bar");
        }
        svg.end()
    }
}

/// Systems and tasks of a table without gaps.
fn complete(matrix: &ScoreMatrix) -> (Vec<usize>, Vec<usize>) {
    let mut systems: Vec<usize> = (0..matrix.systems().len()).collect();
    let mut tasks: Vec<usize> = matrix.ranked().map(|(t, _)| t).collect();
    let gap = |s: usize, t: usize| usize::from(matrix.score(s, t).is_none());
    let mut rows: Vec<usize> = systems
        .iter()
        .map(|&s| tasks.iter().map(|&t| gap(s, t)).sum())
        .collect();
    let mut columns: Vec<usize> = tasks
        .iter()
        .map(|&t| systems.iter().map(|&s| gap(s, t)).sum())
        .collect();
    while !systems.is_empty() && !tasks.is_empty() {
        let worst = |counts: &[usize]| {
            let best = counts.iter().enumerate().rev().max_by_key(|(_, n)| **n);
            best.map_or((0, 0), |(i, n)| (i, *n))
        };
        let ((row, in_row), (column, in_column)) = (worst(&rows), worst(&columns));
        if in_row == 0 {
            break;
        }
        // Compared as shares of what is left.
        if in_row * systems.len() > in_column * tasks.len() {
            let s = systems.remove(row);
            rows.remove(row);
            for (count, &t) in columns.iter_mut().zip(&tasks) {
                *count -= gap(s, t);
            }
        } else {
            let t = tasks.remove(column);
            columns.remove(column);
            for (count, &s) in rows.iter_mut().zip(&systems) {
                *count -= gap(s, t);
            }
        }
    }
    (systems, tasks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::aggregate::matrix::tests::matrix;

    #[test]
    fn gaps_are_left_out() {
        let nan = f64::NAN;
        let m = matrix(
            &[
                &[0.9, 0.8, nan, 0.7],
                &[0.8, 0.7, 0.2, 0.6],
                &[0.7, 0.6, nan, 0.5],
                &[nan, nan, nan, 0.4],
            ],
            &[],
        );
        assert_eq!(complete(&m), (vec![0, 1, 2], vec![0, 1, 3]));
        let found = CriticalDifference::of(&m, 0.95).unwrap();
        assert_eq!(found.friedman.mean_ranks, [1.0, 2.0, 3.0]);
        assert!(
            found
                .sentence(&m)
                .contains("3 of 4 systems and 3 of 4 tasks")
        );
        assert!(found.narrow(&m).contains("s0: mean rank 1.00"));
        let svg = found.chart(&m);
        assert!(svg.contains("s0  1.00") && svg.ends_with("</svg>"));
        let two = matrix(&[&[1.0, 2.0], &[2.0, 1.0]], &[]);
        assert!(CriticalDifference::of(&two, 0.95).is_err());
    }
}
