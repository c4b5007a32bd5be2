//! The report as plain text, 80 columns wide.

use super::indicators::percent;
use super::numbers::{Numbers, mean};
use super::report::Report;
use super::spectrum::Spectrum;
use crate::plan::names::split_index;

const WIDTH: usize = 80;

/// What the last table lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detail {
    /// Every tensor.
    Tensor,
    /// Every layer.
    #[default]
    Layer,
    /// Nothing below the model.
    Model,
}

/// Four significant digits, without an exponent where that is readable.
pub(super) fn digits(v: f64) -> String {
    let a = v.abs();
    if v == 0.0 {
        "0".into()
    } else if !(1e-3..1e6).contains(&a) {
        format!("{v:.2e}")
    } else if a < 1.0 {
        format!("{v:.4}")
    } else if a < 10.0 {
        format!("{v:.3}")
    } else if a < 100.0 {
        format!("{v:.2}")
    } else if a < 1000.0 {
        format!("{v:.1}")
    } else {
        format!("{v:.0}")
    }
}

/// `1.2 M`, `512`.
pub(super) fn short_count(n: u64) -> String {
    let x = n as f64;
    match n {
        0..=9_999 => n.to_string(),
        10_000..=999_999 => format!("{:.1} k", x / 1e3),
        1_000_000..=999_999_999 => format!("{:.1} M", x / 1e6),
        _ => format!("{:.2} B", x / 1e9),
    }
}

fn optional(v: Option<f64>, f: impl Fn(f64) -> String) -> String {
    v.map_or_else(|| "-".into(), f)
}

/// Cut in the middle to at most `width` characters: both ends of a tensor's name tell something.
fn fit(name: &str, width: usize) -> String {
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= width {
        return name.to_owned();
    }
    let tail = (width - 1) * 2 / 3;
    let head = width - 1 - tail;
    let end = &chars[chars.len() - tail..];
    chars[..head].iter().chain(&['…']).chain(end).collect()
}

/// Words wrapped to the width, every line indented.
fn wrapped(text: &str, indent: usize, out: &mut String) {
    let mut column = 0;
    for word in text.split_whitespace() {
        let len = word.chars().count();
        if column > 0 && indent + column + 1 + len > WIDTH {
            out.push('\n');
            column = 0;
        }
        if column == 0 {
            out.push_str(&" ".repeat(indent));
            column = len;
        } else {
            out.push(' ');
            column += 1 + len;
        }
        out.push_str(word);
    }
    out.push('\n');
}

/// Columns after the name, right-aligned; the name takes what is left, at most `most`.
fn table(
    head: &str,
    most: usize,
    columns: &[&str],
    rows: &[(String, Vec<String>)],
    out: &mut String,
) {
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(c, title)| {
            let cells = rows
                .iter()
                .filter_map(|r| r.1.get(c))
                .map(|cell| cell.chars().count());
            cells.chain([title.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let taken: usize = widths.iter().map(|w| w + 2).sum();
    let longest = rows.iter().map(|r| r.0.chars().count()).max().unwrap_or(0);
    let room = WIDTH.saturating_sub(taken).clamp(8, most);
    let name = longest.max(head.chars().count()).min(room);
    let mut line = |first: &str, cells: &mut dyn Iterator<Item = &str>| {
        let mut text = format!("{:<name$}", fit(first, name));
        for (cell, w) in cells.zip(&widths) {
            text.push_str(&format!("  {cell:>w$}"));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(head, &mut columns.iter().copied());
    for (first, cells) in rows {
        line(first, &mut cells.iter().map(String::as_str));
    }
}

impl Report {
    /// The report as text that fits 80 columns.
    pub fn text(&self, detail: Detail) -> String {
        let mut out = String::new();
        let n = self.experts.len();
        let what = match &self.base {
            Some(base) => format!(
                "{n} expert{} against {base}, {} tensors",
                if n == 1 { "" } else { "s" },
                self.tensors.len()
            ),
            None => format!(
                "{n} adapter{} without a base, {} modules",
                if n == 1 { "" } else { "s" },
                self.tensors.len()
            ),
        };
        wrapped(
            &format!("{what}, {} parameters", short_count(self.total.elements)),
            0,
            &mut out,
        );
        out.push('\n');
        self.experts_table(&mut out);
        if n > 1 {
            self.matrices(&mut out);
        }
        let rows = match detail {
            Detail::Tensor => Some(("tensor", &self.tensors)),
            Detail::Layer => Some(("layer", &self.layers)),
            Detail::Model => None,
        };
        if let Some((head, rows)) = rows {
            out.push('\n');
            let rows: Vec<(String, &Numbers)> =
                rows.iter().map(|r| (r.name.clone(), &r.numbers)).collect();
            self.rows_table(head, &rows, &mut out);
        }
        self.indicator_list(&mut out);
        out
    }

    fn experts_table(&self, out: &mut String) {
        let total = &self.total;
        let mut columns = vec!["norm"];
        if self.base.is_some() {
            columns.extend(["of base", "changed"]);
        }
        columns.push("rms");
        let spectral = total.spectra.iter().any(|s| s.matrices > 0);
        if spectral {
            columns.push("eff. rank");
            if self.base.is_some() {
                columns.push("intruders");
            }
        }
        let rows: Vec<_> = self
            .clusters
            .order
            .iter()
            .map(|&i| {
                let mut cells = vec![digits(total.norm(i))];
                if self.base.is_some() {
                    cells.push(optional(total.relative(i), percent));
                    cells.push(percent(total.changed_share(i)));
                }
                cells.push(format!("{:.1e}", total.rms(i)));
                if spectral {
                    let s = &total.spectra[i];
                    cells.push(digits(s.mean_effective()));
                    if self.base.is_some() {
                        cells.push(s.intruders.map_or_else(|| "-".into(), |c| c.to_string()));
                    }
                }
                (self.experts[i].clone(), cells)
            })
            .collect();
        let head = if self.base.is_some() {
            "expert"
        } else {
            "adapter"
        };
        table(head, 30, &columns, &rows, out);
    }

    /// Cosines, and sign conflicts with overlaps, in cluster order.
    fn matrices(&self, out: &mut String) {
        let (n, total, order) = (self.experts.len(), &self.total, &self.clusters.order);
        let top = percent(self.top);
        if n > 15 {
            self.pair_list(out);
            return;
        }
        let cell = |v: Option<f64>| {
            optional(v, |v| {
                // Nothing is shown as minus zero.
                let v = if v.abs() < 0.5e-3 || (n > 8 && v.abs() < 0.5e-2) {
                    0.0
                } else {
                    v
                };
                if n <= 8 {
                    format!("{v:.3}")
                } else if n <= 10 {
                    format!("{v:.2}")
                } else {
                    format!("{:.0}", v * 100.0)
                }
            })
        };
        let numbers: Vec<String> = (1..=n).map(|i| i.to_string()).collect();
        let columns: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let label = |at: usize| format!("{:>2} {}", at + 1, self.experts[order[at]]);
        let scaled = if n > 10 { ", in hundredths" } else { "" };
        let mut print = |title: &str, f: &dyn Fn(usize, usize) -> String| {
            out.push('\n');
            let rows: Vec<_> = (0..n)
                .map(|r| (label(r), (0..n).map(|c| f(r, c)).collect()))
                .collect();
            table(&format!("{title}{scaled}"), 28, &columns, &rows, out);
        };
        print("cosine", &|r, c| {
            if r == c {
                "·".into()
            } else {
                cell(Some(total.cosine(order[r], order[c])))
            }
        });
        print("signs \\ overlap", &|r, c| match r.cmp(&c) {
            std::cmp::Ordering::Equal => "·".into(),
            std::cmp::Ordering::Greater => cell(total.pair_conflict(order[r], order[c])),
            std::cmp::Ordering::Less => cell(total.overlap(order[r], order[c])),
        });
        out.push('\n');
        wrapped(
            &format!(
                "Experts stand in cluster order (average linkage on 1 - cosine). Below the diagonal: share of the entries both changed whose signs disagree (0.5 = independent); above: Jaccard overlap of the largest {top} by magnitude (independent: {:.3}). At least two experts disagree in sign on {} of all entries.",
                self.top / (2.0 - self.top),
                percent(total.conflict())
            ),
            0,
            out,
        );
    }

    /// For many experts: the pairs that stand out.
    fn pair_list(&self, out: &mut String) {
        let total = &self.total;
        let mut pairs: Vec<(usize, usize)> = total.pairs().collect();
        pairs.sort_by(|x, y| total.cosine(y.0, y.1).total_cmp(&total.cosine(x.0, x.1)));
        let last = pairs.len().saturating_sub(3);
        out.push('\n');
        let rows: Vec<_> = pairs
            .iter()
            .enumerate()
            .filter(|(i, _)| *i < 10 || *i >= last)
            .map(|(_, &(a, b))| {
                let cells = vec![
                    format!("{:.3}", total.cosine(a, b)),
                    optional(total.pair_conflict(a, b), percent),
                    optional(total.overlap(a, b), |v| format!("{v:.3}")),
                ];
                (format!("{}, {}", self.experts[a], self.experts[b]), cells)
            })
            .collect();
        table(
            "closest and farthest pairs",
            44,
            &["cosine", "signs differ", "overlap"],
            &rows,
            out,
        );
        out.push('\n');
        wrapped(
            &format!(
                "{} pairs in all: --json and --html hold every one. At least two experts disagree in sign on {} of all entries.",
                pairs.len(),
                percent(total.conflict())
            ),
            0,
            out,
        );
    }

    fn rows_table(&self, head: &str, rows: &[(String, &Numbers)], out: &mut String) {
        let n = self.experts.len();
        let mut columns = vec![
            "params",
            if self.base.is_some() {
                "of base"
            } else {
                "norm"
            },
        ];
        if n > 1 {
            columns.extend(["cosine", "signs", "overlap"]);
        }
        let spectral = self.total.spectra.iter().any(|s| s.matrices > 0);
        if spectral {
            columns.push("rank");
        }
        let intruders = spectral && self.base.is_some();
        if intruders {
            columns.push("intr.");
        }
        let cells = |x: &Numbers| {
            let size = if self.base.is_some() {
                optional(mean((0..n).filter_map(|i| x.relative(i))), percent)
            } else {
                digits(x.mean(|i| x.norm(i)))
            };
            let mut cells = vec![short_count(x.elements), size];
            if n > 1 {
                cells.push(optional(
                    x.mean_over_pairs(|a, b| Some(x.cosine(a, b))),
                    |v| format!("{v:.3}"),
                ));
                cells.push(optional(
                    x.mean_over_pairs(|a, b| x.pair_conflict(a, b)),
                    percent,
                ));
                cells.push(optional(x.mean_over_pairs(|a, b| x.overlap(a, b)), |v| {
                    format!("{v:.3}")
                }));
            }
            if spectral {
                let ranks = x.spectra.iter().filter(|s| s.matrices > 0);
                cells.push(optional(mean(ranks.map(Spectrum::mean_effective)), digits));
            }
            if intruders {
                let sum: Option<u64> = x.spectra.iter().map(|s| s.intruders).sum();
                let shown = sum.filter(|_| !x.spectra.is_empty());
                cells.push(shown.map_or_else(|| "-".into(), |c| c.to_string()));
            }
            cells
        };
        // Tensors stand under their layer: whole names do not fit beside the numbers.
        let mut lines = Vec::new();
        let mut open = "";
        for (name, x) in rows {
            let layer = match split_index(name) {
                Some((_, _, rest))
                    if self
                        .layers
                        .iter()
                        .any(|l| name.starts_with(&format!("{}.", l.name))) =>
                {
                    name[..name.len() - rest.len()].trim_end_matches('.')
                }
                _ => "",
            };
            if layer != open && !layer.is_empty() {
                lines.push((layer.to_owned(), Vec::new()));
            }
            open = layer;
            let shown = match layer {
                "" => name.clone(),
                _ => format!("  {}", &name[layer.len() + 1..]),
            };
            lines.push((shown, cells(x)));
        }
        let rows = lines;
        let head = if n > 1 {
            format!("{head} (means)")
        } else {
            head.to_owned()
        };
        table(&head, 44, &columns, &rows, out);
    }

    fn indicator_list(&self, out: &mut String) {
        out.push_str("\nindicators\n");
        for i in &self.indicators {
            wrapped(
                &format!("{:<4}  {}: {}", i.speaks.word(), i.measured, i.shown),
                2,
                out,
            );
            wrapped(&format!("{}.", i.reading), 8, out);
            let by = match i.threshold_by {
                "ours" => "threshold ours".to_owned(),
                "options" => "as set".to_owned(),
                who => format!("threshold: {who}"),
            };
            wrapped(&format!("[{}; {by}. {}]", i.rule, i.source), 8, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_both_ends() {
        assert_eq!(fit("abcdefghij", 10), "abcdefghij");
        assert_eq!(fit("abcdefghijk", 10), "abc…fghijk");
        let long = "encoder.layer.11.attention.self.query.weight";
        assert_eq!(fit(long, 20).chars().count(), 20);
    }

    #[test]
    fn numbers_as_people_read_them() {
        let shown: Vec<String> = [0.0, 0.5, 1.23456, 123.456, 1e-5, 2e7]
            .iter()
            .map(|v| digits(*v))
            .collect();
        assert_eq!(
            shown,
            ["0", "0.5000", "1.235", "123.5", "1.00e-5", "2.00e7"]
        );
        assert_eq!(
            (short_count(512), short_count(1_204_608)),
            ("512".into(), "1.2 M".into())
        );
    }
}
