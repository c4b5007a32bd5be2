//! A heat map of many cells: runs of equal colour as strokes, some ten bytes each, no numbers.

use std::fmt::Write as _;

use super::heat::View;
use super::svg::Svg;
use crate::evaluate::aggregate::ScoreMatrix;

/// Steps of colour on each side.
const STEPS: i32 = 6;

/// The map. What stands under the pointer is told by the page's script from the embedded table.
pub fn map(matrix: &ScoreMatrix, view: &View, systems: &[usize], order: &[usize]) -> String {
    let n = matrix.tasks().len();
    let (across, down) = (order.len(), systems.len());
    let cell = (1080 / across.max(1)).clamp(3, 12);
    let tall = (1400 / down.max(1)).clamp(5, 12);
    let level = |s: usize, t: usize| -> Option<i32> {
        let tint = view.tint[s * n + t];
        (!tint.is_nan()).then(|| (tint * f64::from(STEPS)).round() as i32)
    };
    let mut paths = vec![String::new(); 2 * STEPS as usize + 1];
    for (row, &s) in systems.iter().enumerate() {
        let mut from = 0;
        // Where the pen of each path stands, so that moves are short.
        while from < across {
            let here = level(s, order[from]);
            let mut to = from + 1;
            while to < across && level(s, order[to]) == here {
                to += 1;
            }
            if let Some(level) = here {
                let path = &mut paths[(level + STEPS) as usize];
                let _ = write!(path, "M{from} {row}.5h{}", to - from);
            }
            from = to;
        }
    }
    let (width, height) = ((across * cell) as f64, (down * tall) as f64);
    let label = format!(
        "{}: {down} systems, best first, by {across} tasks; numbers in the embedded table",
        view.name
    );
    let mut svg = Svg::new(width, height, &label);
    for (at, data) in paths.iter().enumerate().filter(|(_, d)| !d.is_empty()) {
        let level = at as i32 - STEPS;
        // Below zero a cell is half as high: told apart without colour.
        let side = if level < 0 { "neg" } else { "pos" };
        let class = format!("{side} l{}", level.abs());
        svg.scaled_path(data, &class, (cell as f64, tall as f64));
    }
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\"><div class=\"compact\" data-cell=\"{cell}\" data-tall=\"{tall}\">{}</div></div><p class=\"soft told\" aria-live=\"polite\">Rows are systems, best on top; columns are tasks. Point at a cell to read it.</p>",
        crate::html::escape(&view.name),
        svg.end()
    )
}
