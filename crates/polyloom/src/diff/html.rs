//! The report as one HTML page: no script, nothing fetched, light and dark.

use std::fmt::Write as _;

use super::indicators::percent;
use super::numbers::Numbers;
use super::report::{Report, Row};
use super::text::{digits, short_count};
use crate::html::{Cell, Page, escape, heat, rich};

const STYLE: &str = include_str!("page.css");

/// Colour of a value, and how much of it.
type Tint = fn(f64) -> (char, f64);

impl Report {
    /// One HTML page with heat maps, readable without a network, without script, on a phone, light or dark. Numbers
    /// stand in the cells, names in their titles.
    pub fn html(&self) -> String {
        let mut out = String::new();
        let n = self.experts.len();
        let (things, parts) = match &self.base {
            Some(_) => ("expert", "tensors"),
            None => ("adapter", "modules"),
        };
        let title = match &self.base {
            Some(base) => format!(
                "{n} {things}{} against {base}",
                if n == 1 { "" } else { "s" }
            ),
            None => format!("{n} {things}{} compared", if n == 1 { "" } else { "s" }),
        };
        let _ = writeln!(
            out,
            "<h1>{}</h1><p class=\"soft\">{} {parts}, {} parameters. Made by <code>polyloom diff</code>.</p>",
            escape(&title),
            self.tensors.len(),
            short_count(self.total.elements)
        );
        self.indicator_section(&mut out);
        self.expert_section(&mut out);
        if n > 1 {
            self.pair_sections(&mut out);
        }
        self.layer_section(&mut out);
        self.tensor_section(&mut out);
        if !self.notes.is_empty() {
            out.push_str("<h2>Left out</h2><ul>");
            for note in &self.notes {
                let _ = write!(out, "<li>{}</li>", rich(note));
            }
            out.push_str("</ul>\n");
        }
        Page {
            title: &title,
            style: STYLE,
            body: &out,
            script: None,
        }
        .whole()
    }

    fn indicator_section(&self, out: &mut String) {
        out.push_str("<h2>What the numbers speak for</h2><p class=\"soft\">Rules of thumb with their sources. They say where to look first; only a score says whether a merge works.</p><div class=\"scroll ind\"><table><thead><tr><th scope=\"col\">Measured</th><th scope=\"col\">Value</th><th scope=\"col\">Says</th><th scope=\"col\">Reading</th><th scope=\"col\">Rule</th><th scope=\"col\">Source</th></tr></thead><tbody>");
        for i in &self.indicators {
            let by = match i.threshold_by {
                "ours" => "threshold: ours".to_owned(),
                who => format!("threshold: {who}"),
            };
            let word = i.speaks.word();
            let _ = write!(
                out,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td><span class=\"tag {word}\">{word}</span></td><td>{}</td><td>{} <span class=\"soft\">({by})</span></td><td class=\"soft\">{}</td></tr>",
                rich(&i.measured),
                escape(&i.shown),
                rich(&i.reading),
                rich(&i.rule),
                escape(i.source)
            );
        }
        out.push_str("</tbody></table></div>\n");
    }

    fn ordered(&self) -> Vec<String> {
        self.clusters
            .order
            .iter()
            .map(|i| self.experts[*i].clone())
            .collect()
    }

    fn expert_section(&self, out: &mut String) {
        let total = &self.total;
        let spectral = total.spectra.iter().any(|s| s.matrices > 0);
        let with_base = self.base.is_some();
        let mut columns = vec!["norm"];
        if with_base {
            columns.extend(["of base", "changed"]);
        }
        columns.push("rms");
        if spectral {
            columns.extend([
                "effective rank",
                "of dimension",
                "stable rank",
                "rank for 90 %",
            ]);
        }
        if spectral && with_base {
            columns.push("intruders");
        }
        let _ = write!(
            out,
            "<h2>{}</h2><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Sizes and ranks\"><table><thead><tr><th scope=\"col\">name</th>",
            if with_base {
                "Task vectors"
            } else {
                "Adapters"
            }
        );
        for column in columns {
            let _ = write!(out, "<th scope=\"col\">{column}</th>");
        }
        out.push_str("</tr></thead><tbody>");
        for &i in &self.clusters.order {
            let name = escape(&self.experts[i]);
            let _ = write!(
                out,
                "<tr><th scope=\"row\" title=\"{name}\">{name}</th><td>{}</td>",
                digits(total.norm(i))
            );
            if with_base {
                let _ = write!(
                    out,
                    "<td>{}</td><td>{}</td>",
                    total.relative(i).map_or_else(|| "–".into(), percent),
                    percent(total.changed_share(i))
                );
            }
            let _ = write!(out, "<td>{:.1e}</td>", total.rms(i));
            if spectral {
                let s = &total.spectra[i];
                let _ = write!(
                    out,
                    "<td>{}</td><td>{}</td><td>{}</td><td>{}</td>",
                    digits(s.mean_effective()),
                    percent(s.mean_effective_share()),
                    digits(s.mean_stable()),
                    digits(s.mean_rank90())
                );
                if let Some(count) = s.intruders {
                    let _ = write!(out, "<td>{count}</td>");
                }
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table></div>\n");
        if spectral {
            out.push_str("<p class=\"soft\">Ranks are means over the matrices of the model.</p>\n");
        }
    }

    fn pair_sections(&self, out: &mut String) {
        let names: Vec<String> = self
            .ordered()
            .iter()
            .enumerate()
            .map(|(i, name)| format!("{} {name}", i + 1))
            .collect();
        let (order, total) = (&self.clusters.order, &self.total);
        let top = percent(self.top);
        // Small cosines are the common case: the scale ends at the largest, but not below 0.2.
        let widest = total
            .pairs()
            .map(|(a, b)| total.cosine(a, b).abs())
            .fold(0.2, f64::max);
        let pair =
            |r: usize, c: usize, what: &str, v: Option<f64>, tint: &dyn Fn(f64) -> (char, f64)| {
                let shown = v.map_or_else(|| "–".to_owned(), |v| format!("{v:.3}"));
                Cell {
                    title: format!(
                        "{} and {}: {what} {shown}",
                        self.experts[order[r]], self.experts[order[c]]
                    ),
                    tint: v.filter(|_| r != c).map(tint),
                    shown: if r == c { "·".into() } else { shown },
                    ..Cell::default()
                }
            };
        let _ = write!(
            out,
            "<div class=\"pair\"><section><h2>Cosine</h2><p class=\"soft\">In cluster order. Colour runs to ±{widest:.2}.</p>"
        );
        heat(out, "Cosine of every pair", "", &names, &names, |r, c| {
            pair(
                r,
                c,
                "cosine",
                Some(total.cosine(order[r], order[c])),
                &|v| (if v < 0.0 { 'c' } else { 'h' }, v.abs() / widest),
            )
        });
        out.push_str("</section><section><h2>Clusters</h2><p class=\"soft\">Average linkage on 1 − cosine.</p>");
        self.dendrogram(out);
        // Independent signs disagree on half: what is told is the distance from that.
        let about_half = |f: &dyn Fn(usize, usize) -> Option<f64>| {
            let far = total
                .pairs()
                .filter_map(|(a, b)| f(a, b))
                .map(|v| (v - 0.5).abs());
            far.fold(0.05, f64::max)
        };
        let (all, large) = (
            about_half(&|a, b| total.pair_conflict(a, b)),
            about_half(&|a, b| total.pair_top_conflict(a, b)),
        );
        let signs = |v: f64, far: f64| (if v < 0.5 { 'g' } else { 'h' }, (v - 0.5).abs() / far);
        out.push_str("</section><section><h2>Sign conflicts</h2>");
        let _ = write!(
            out,
            "<p class=\"soft\">Share of the entries both changed whose signs disagree. Independent signs: 0.5; green agrees more, orange disagrees more (colour runs to 0.5 ± {all:.2}). At least two disagree on {} of all entries.</p>",
            percent(total.conflict())
        );
        heat(
            out,
            "Sign conflicts of every pair",
            "",
            &names,
            &names,
            |r, c| {
                pair(
                    r,
                    c,
                    "signs disagree on",
                    total.pair_conflict(order[r], order[c]),
                    &|v| signs(v, all),
                )
            },
        );
        let _ = write!(
            out,
            "</section><section><h2>Sign conflicts among the largest {top}</h2><p class=\"soft\">The same over entries among the largest of both (colour runs to 0.5 ± {large:.2}).</p>"
        );
        heat(
            out,
            "Sign conflicts among the largest entries",
            "",
            &names,
            &names,
            |r, c| {
                let v = total.pair_top_conflict(order[r], order[c]);
                pair(r, c, "signs of large entries disagree on", v, &|v| {
                    signs(v, large)
                })
            },
        );
        let chance = self.top / (2.0 - self.top);
        let most = total
            .pairs()
            .filter_map(|(a, b)| total.overlap(a, b))
            .fold((2.0 * chance).min(1.0), f64::max);
        let _ = write!(
            out,
            "</section><section><h2>Overlap of the largest {top}</h2><p class=\"soft\">Jaccard index of the sets, chosen per tensor. Independent sets: {chance:.3}; colour runs from there to {most:.2}.</p>"
        );
        heat(
            out,
            "Overlap of the largest entries",
            "",
            &names,
            &names,
            |r, c| {
                pair(r, c, "overlap", total.overlap(order[r], order[c]), &|v| {
                    ('c', (v - chance) / (most - chance).max(1e-9))
                })
            },
        );
        out.push_str("</section></div>\n");
    }

    /// The joins as a tree: leaves at the left, distance to the right.
    fn dendrogram(&self, out: &mut String) {
        let names = self.ordered();
        let n = names.len();
        let far = self
            .clusters
            .joins
            .iter()
            .map(|j| j.distance)
            .fold(0.0, f64::max)
            .max(1e-9);
        let shown: Vec<String> = names.iter().map(|n| n.chars().take(26).collect()).collect();
        let longest = shown.iter().map(|n| n.chars().count()).max().unwrap_or(0);
        let (left, width, step) = (20.0 + 7.6 * longest as f64, 360.0, 26.0);
        let height = step * n as f64 + 30.0;
        let x = |d: f64| left + d.max(0.0) / far * (width - 20.0);
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {} {height}\" width=\"{}\" role=\"img\" aria-label=\"Cluster tree: {}\">",
            left + width,
            left + width,
            escape(&names.join(", "))
        );
        // Height and distance of the group that an expert belongs to so far.
        let mut at: Vec<(f64, f64)> = vec![(0.0, 0.0); n];
        for (place, &i) in self.clusters.order.iter().enumerate() {
            let y = step * (place as f64 + 0.5);
            at[i] = (y, 0.0);
            let _ = write!(
                out,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                left - 8.0,
                y + 4.0,
                escape(&shown[place])
            );
        }
        for join in &self.clusters.joins {
            let ((y1, d1), (y2, d2)) = (at[join.left[0]], at[join.right[0]]);
            let to = x(join.distance);
            let _ = write!(
                out,
                "<path d=\"M{:.1} {y1:.1}H{to:.1}V{y2:.1}H{:.1}\"><title>joined at {:.3}</title></path>",
                x(d1),
                x(d2),
                join.distance
            );
            for &i in join.left.iter().chain(&join.right) {
                at[i] = ((y1 + y2) / 2.0, join.distance);
            }
        }
        let _ = write!(
            out,
            "<text class=\"axis\" x=\"{left}\" y=\"{0}\">0</text><text class=\"axis\" x=\"{1}\" y=\"{0}\" text-anchor=\"end\">distance {far:.3}</text></svg>",
            height - 8.0,
            x(far)
        );
        out.push('\n');
    }

    fn layer_section(&self, out: &mut String) {
        let names = self.ordered();
        let rows: Vec<String> = self.layers.iter().map(|r| r.name.clone()).collect();
        let value = |row: &Row, i: usize| match self.base {
            Some(_) => row.numbers.relative(i),
            None => Some(row.numbers.norm(i)),
        };
        let most = self
            .layers
            .iter()
            .flat_map(|r| (0..self.experts.len()).filter_map(|i| value(r, i)))
            .fold(f64::MIN_POSITIVE, f64::max);
        let what = if self.base.is_some() {
            "norm of the change over that of the base"
        } else {
            "norm of the product"
        };
        let _ = write!(
            out,
            "<h2>Layers</h2><p class=\"soft\">{}.</p>",
            capital(what)
        );
        heat(out, "Norms by layer", "layer", &names, &rows, |r, c| {
            let i = self.clusters.order[c];
            let v = value(&self.layers[r], i);
            let shown = v.map_or_else(
                || "–".to_owned(),
                |v| {
                    if self.base.is_some() {
                        percent(v)
                    } else {
                        digits(v)
                    }
                },
            );
            Cell {
                title: format!("{}, {}: {what} {shown}", names[c], rows[r]),
                tint: v.map(|v| ('c', v / most)),
                shown,
                ..Cell::default()
            }
        });
        if self.experts.len() < 2 {
            return;
        }
        out.push_str("<p class=\"soft\" style=\"margin-top:1.2rem\">Means over all pairs.</p>");
        let columns =
            ["cosine", "signs differ", "large signs differ", "overlap"].map(str::to_owned);
        heat(out, "Pairs by layer", "layer", &columns, &rows, |r, c| {
            let x: &Numbers = &self.layers[r].numbers;
            let (v, tint): (Option<f64>, Tint) = match c {
                0 => (x.mean_over_pairs(|a, b| Some(x.cosine(a, b))), |v| {
                    (if v < 0.0 { 'c' } else { 'h' }, v.abs())
                }),
                1 => (x.mean_over_pairs(|a, b| x.pair_conflict(a, b)), |v| {
                    ('h', v)
                }),
                2 => (x.mean_over_pairs(|a, b| x.pair_top_conflict(a, b)), |v| {
                    ('h', v)
                }),
                _ => (x.mean_over_pairs(|a, b| x.overlap(a, b)), |v| ('g', v)),
            };
            let shown = v.map_or_else(|| "–".to_owned(), |v| format!("{v:.3}"));
            Cell {
                title: format!("{}: {} {shown}", rows[r], columns[c]),
                tint: v.map(tint),
                shown,
                ..Cell::default()
            }
        });
    }

    fn tensor_section(&self, out: &mut String) {
        let what = if self.base.is_some() {
            "tensor"
        } else {
            "module"
        };
        let _ = write!(
            out,
            "<details><summary>All {} {what}s</summary><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"All {what}s\"><table><thead><tr><th scope=\"col\">{what}</th><th scope=\"col\">shape</th>",
            self.tensors.len()
        );
        for name in self.ordered() {
            let short: String = name.chars().take(12).collect();
            let _ = write!(
                out,
                "<th scope=\"col\" title=\"{}\">{}</th>",
                escape(&name),
                escape(&short)
            );
        }
        out.push_str("<th scope=\"col\">cosine</th><th scope=\"col\">signs differ</th><th scope=\"col\">overlap</th></tr></thead><tbody>");
        for row in &self.tensors {
            let x = &row.numbers;
            let name = escape(&row.name);
            let shape: Vec<String> = row.shape.iter().map(usize::to_string).collect();
            let _ = write!(
                out,
                "<tr><th scope=\"row\" title=\"{name}\">{name}</th><td>{}</td>",
                shape.join("×")
            );
            for &i in &self.clusters.order {
                let shown = match self.base {
                    Some(_) => x.relative(i).map_or_else(|| "–".into(), percent),
                    None => digits(x.norm(i)),
                };
                let _ = write!(out, "<td>{shown}</td>");
            }
            for v in [
                x.mean_over_pairs(|a, b| Some(x.cosine(a, b))),
                x.mean_over_pairs(|a, b| x.pair_conflict(a, b)),
                x.mean_over_pairs(|a, b| x.overlap(a, b)),
            ] {
                let _ = write!(
                    out,
                    "<td>{}</td>",
                    v.map_or_else(|| "–".into(), |v| format!("{v:.3}"))
                );
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table></div></details>\n");
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}
