//! The leaderboard as text, Markdown, CSV and LaTeX.

use super::Board;
use crate::args_board::{BoardArgs, Format};

/// Width of a terminal.
pub const WIDTH: usize = 80;

/// A sentence in lines of at most 80 columns.
pub fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines
            .last_mut()
            .filter(|l| l.is_empty() || l.chars().count() + 1 + word.chars().count() <= WIDTH);
        match last {
            Some(line) => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// A name in a column: what is too long loses its middle.
pub fn clip(name: &str, width: usize) -> String {
    let name: String = name
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let n = name.chars().count();
    if n <= width {
        return name;
    }
    let head = (width - 2).div_ceil(2);
    let tail = width - 2 - head;
    name.chars()
        .take(head)
        .chain("..".chars())
        .chain(name.chars().skip(n - tail))
        .collect()
}

fn digits(value: f64, digits: usize) -> String {
    match value {
        x if x.is_nan() => "n/a".into(),
        // Scores in per cent or points need no four digits.
        x if digits == 4 && x.abs() >= 10.0 => format!("{x:.2}"),
        x => format!("{x:.digits$}"),
    }
}

/// The leaderboard.
pub fn leaderboard(board: &Board, args: &BoardArgs) -> String {
    let all = board.order.systems.len();
    let rows = match (args.top, args.format) {
        (Some(0), _) => all,
        (Some(n), _) => n.min(all),
        (None, Format::Table) => all.min(25),
        (None, _) => all,
    };
    match args.format {
        Format::Table => text(board, rows),
        Format::Csv => csv(board, rows),
        Format::Md => {
            let (head, body) = columns(board, rows);
            let line = |cells: &[String]| {
                let safe: Vec<String> = cells.iter().map(|c| c.replace('|', "\\|")).collect();
                format!("| {} |", safe.join(" | "))
            };
            let rule: Vec<String> = head
                .iter()
                .enumerate()
                .map(|(i, _)| if i == 1 { "---".into() } else { "---:".into() })
                .collect();
            let mut out = vec![line(&head), line(&rule)];
            out.extend(body.iter().map(|r| line(r)));
            out.join("\n")
        }
        Format::Latex => {
            let (head, body) = columns(board, rows);
            let line = |cells: &[String]| {
                format!(
                    "{} \\\\",
                    cells
                        .iter()
                        .map(|c| latex(c))
                        .collect::<Vec<_>>()
                        .join(" & ")
                )
            };
            let shape: String = (0..head.len())
                .map(|i| if i == 1 { 'l' } else { 'r' })
                .collect();
            let mut out = vec![
                format!("\\begin{{tabular}}{{{shape}}}"),
                "\\hline".into(),
                line(&head),
                "\\hline".into(),
            ];
            out.extend(body.iter().map(|r| line(r)));
            out.extend(["\\hline".into(), "\\end{tabular}".into()]);
            out.join("\n")
        }
    }
}

fn latex(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("$\\sim$"),
            '^' => out.push_str("\\^{}"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

fn place(board: &Board, at: usize) -> String {
    let s = board.order.systems[at];
    let mark = if board.order.resolved(at) == Some(false) {
        "~"
    } else {
        ""
    };
    board.order.ranked.standing.rank[s].map_or_else(|| "-".into(), |p| format!("{mark}{p}"))
}

fn range(board: &Board, s: usize) -> String {
    match board.order.draws().and_then(|d| d.places[s]) {
        Some((a, b)) if a == b => a.to_string(),
        Some((a, b)) => format!("{a}-{b}"),
        None => String::new(),
    }
}

/// Headers and rows for Markdown and LaTeX.
fn columns(board: &Board, rows: usize) -> (Vec<String>, Vec<Vec<String>>) {
    let mut head = vec!["#".to_owned(), "system".to_owned()];
    let intervals = board.order.draws().is_some();
    if intervals {
        head.push("places".into());
    }
    head.extend(board.ranked().map(|r| r.by.name().to_owned()));
    let body = (0..rows).map(|at| {
        let s = board.order.systems[at];
        let mut row = vec![place(board, at), board.matrix.systems()[s].clone()];
        if intervals {
            row.push(range(board, s));
        }
        for (i, r) in board.ranked().enumerate() {
            let value = digits(r.standing.value[s], r.by.digits());
            row.push(match r.standing.rank[s] {
                Some(p) if i > 0 => format!("{value} ({p})"),
                _ => value,
            });
        }
        row
    });
    let body = body.collect();
    (head, body)
}

fn csv(board: &Board, rows: usize) -> String {
    let quoted = |text: &str| match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    };
    let mut head = vec![
        "place".to_owned(),
        "system".into(),
        "place_low".into(),
        "place_high".into(),
        "first_share".into(),
    ];
    for r in board.ranked() {
        head.push(r.by.name().into());
        head.push(format!("{}_place", r.by.name()));
    }
    head.push("missing".into());
    let mut costs: Vec<&str> = Vec::new();
    for cost in board
        .imported
        .results
        .systems
        .iter()
        .flat_map(|s| s.costs.keys())
    {
        if !costs.contains(&cost.as_str()) {
            costs.push(cost);
        }
    }
    head.extend(costs.iter().map(|c| quoted(c)));
    let mut out = vec![head.join(",")];
    let some = |x: f64| {
        if x.is_finite() {
            x.to_string()
        } else {
            String::new()
        }
    };
    for &s in &board.order.systems[..rows] {
        let draws = board.order.draws();
        let places = draws.and_then(|d| d.places[s]);
        let whole = |p: Option<usize>| p.map_or_else(String::new, |p| p.to_string());
        let mut row = vec![
            whole(board.order.ranked.standing.rank[s]),
            quoted(&board.matrix.systems()[s]),
            whole(places.map(|p| p.0)),
            whole(places.map(|p| p.1)),
            draws.map_or_else(String::new, |d| some(d.best[s])),
        ];
        for r in board.ranked() {
            row.push(some(r.standing.value[s]));
            row.push(whole(r.standing.rank[s]));
        }
        row.push(board.order.ranked.standing.missing[s].to_string());
        let system = &board.imported.results.systems[s];
        row.extend(
            costs
                .iter()
                .map(|c| system.costs.get(*c).map_or_else(String::new, |x| some(*x))),
        );
        out.push(row.join(","));
    }
    out.join("\n")
}

/// Text of at most 80 columns: the first way of counting with its places; the others beside it with their own places,
/// or as places alone in further blocks.
fn text(board: &Board, rows: usize) -> String {
    let (head, body) = columns(board, rows);
    let fixed = head.len() - board.ranked().count();
    let width = |i: usize| {
        body.iter()
            .map(|r| r[i].chars().count())
            .chain([head[i].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let longest = widths[1];
    // The columns of every block: place, system, and as many others as leave 12 columns or more for names.
    let mut blocks: Vec<Vec<usize>> = Vec::new();
    let mut open: Vec<usize> = (2..=fixed).collect();
    let taken =
        |columns: &[usize]| widths[0] + 1 + columns.iter().map(|&c| widths[c] + 2).sum::<usize>();
    let least = longest.min(24);
    for (c, width) in widths.iter().enumerate().skip(fixed + 1) {
        if taken(&open) + width + 2 + least > WIDTH {
            blocks.push(std::mem::take(&mut open));
        }
        open.push(c);
    }
    blocks.push(open);
    let mut out = Vec::new();
    for block in blocks {
        if !out.is_empty() {
            out.push(String::new());
        }
        let name = longest.min(WIDTH.saturating_sub(taken(&block)).max(12));
        let line = |row: &[String]| {
            let mut text = format!(
                "{:>w$} {:<name$}",
                row[0],
                clip(&row[1], name),
                w = widths[0]
            );
            for &c in &block {
                text += &format!("  {:>w$}", row[c], w = widths[c]);
            }
            text.trim_end().to_owned()
        };
        out.push(line(&head));
        out.extend(body.iter().map(|r| line(r)));
        if rows < board.order.systems.len() {
            out.push(format!(
                "and {} more (--top 0)",
                board.order.systems.len() - rows
            ));
        }
    }
    out.join("\n")
}
