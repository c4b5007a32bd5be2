//! Text about metrics, made from the registry: `polyloom metrics` and docs/reference/metrics.md.

use super::registry::{ALIASES, Better, Chance, METRICS, Metric, Needs, Scale, Unit};

/// What a metric is computed from, as a heading.
fn heading(needs: Needs) -> &'static str {
    match needs {
        Needs::Labels => "Labels",
        Needs::LabelSets => "Sets of labels",
        Needs::Scores => "Scores",
        Needs::Probabilities => "Probabilities",
        Needs::Values => "Numbers",
        Needs::Clusters => "Clusters",
        Needs::Text => "Text",
        Needs::Rankings => "Rankings",
        Needs::ChoiceLogliks => "Choices by likelihood",
        Needs::TextLogliks => "Likelihood of text",
        Needs::Attempts => "Several attempts",
        Needs::Marks => "Marks of a grader",
        Needs::Spans => "Spans",
        Needs::Tags => "Tags",
        Needs::Maps => "Maps of pixels",
        Needs::Graphs => "Graphs of calls",
    }
}

/// What a prediction must hold, in words.
fn needs(metric: &Metric) -> &'static str {
    match metric.needs {
        Needs::Labels => "a label per example",
        Needs::LabelSets => "a set of labels per example",
        Needs::Scores => "a score per example",
        Needs::Probabilities => "a probability per class",
        Needs::Values => "a number per example",
        Needs::Clusters => "a cluster per example",
        Needs::Text => "a text per example",
        Needs::Rankings => "a ranking per query",
        Needs::ChoiceLogliks => "a log-likelihood per choice",
        Needs::TextLogliks => "a log-likelihood per example",
        Needs::Attempts => "several attempts per example",
        Needs::Marks => "the marks of a grader per example",
        Needs::Spans => "spans per example",
        Needs::Tags => "a tag per token",
        Needs::Maps => "a value per pixel",
        Needs::Graphs => "a graph per example",
    }
}

fn bound(x: f64) -> String {
    match x {
        f64::INFINITY => "∞".into(),
        f64::NEG_INFINITY => "-∞".into(),
        x => format!("{x}"),
    }
}

fn better(metric: &Metric) -> &'static str {
    match metric.better {
        Better::Higher => "higher",
        Better::Lower => "lower",
    }
}

fn chance(metric: &Metric) -> String {
    match metric.chance {
        Chance::Undefined => "-".into(),
        Chance::At(x) => bound(x),
        Chance::OverClasses => "1 / classes".into(),
        Chance::Prevalence => "share of positives".into(),
    }
}

fn unit(metric: &Metric) -> &'static str {
    match metric.unit {
        Unit::PerExample => "example",
        Unit::Corpus => "corpus",
    }
}

fn scale(metric: &Metric) -> &'static str {
    match metric.scale {
        Scale::Fraction => "a fraction or coefficient",
        Scale::Percent => "0 to 100, as published",
        Scale::Nats => "nats (natural logarithms)",
        Scale::Own => "the unit of the true values",
        Scale::OwnSquared => "the square of the unit of the true values",
    }
}

/// Other names of a metric.
fn aliases(metric: &Metric) -> Vec<&'static str> {
    let same = ALIASES.iter().filter(|(_, name)| *name == metric.name);
    same.map(|(alias, _)| *alias).collect()
}

/// The metrics by what they need, in the order of the registry.
fn families() -> Vec<(Needs, Vec<&'static Metric>)> {
    let mut families: Vec<(Needs, Vec<&'static Metric>)> = Vec::new();
    for metric in METRICS {
        match families.iter_mut().find(|f| f.0 == metric.needs) {
            Some(family) => family.1.push(metric),
            None => families.push((metric.needs, vec![metric])),
        }
    }
    families
}

/// The table of `polyloom metrics`: name, direction and what it says, one line each.
pub fn list() -> String {
    let width = METRICS.iter().map(|m| m.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (i, (needs, metrics)) in families().into_iter().enumerate() {
        let gap = if i > 0 { "\n" } else { "" };
        out += &format!("{gap}{}\n", heading(needs));
        for metric in metrics {
            let summary = wrapped(metric.summary, width + 12);
            out += &format!(
                "  {:width$}  {:6}  {summary}\n",
                metric.name,
                better(metric)
            );
        }
    }
    out
}

/// A text in lines of 80 columns, the first and all others indented by `indent` (the first line's is not written).
fn wrapped(text: &str, indent: usize) -> String {
    let mut out = String::new();
    let mut column = indent;
    for word in text.split(' ') {
        if column > indent && column + 1 + word.chars().count() > 80 {
            out += "\n";
            out += &" ".repeat(indent);
            column = indent;
        } else if column > indent {
            out.push(' ');
            column += 1;
        }
        out += word;
        column += word.chars().count();
    }
    out
}

/// Everything about one metric, for `polyloom metrics NAME`.
pub fn explain(metric: &Metric) -> String {
    let mut out = format!("{}\n  {}\n", metric.name, wrapped(metric.summary, 2));
    let mut line = |name: &str, value: &str| {
        out += &format!("  {name:<9} {}\n", wrapped(value, 12));
    };
    line("better", better(metric));
    let (least, most) = metric.range;
    line("range", &format!("{} to {}", bound(least), bound(most)));
    line("scale", scale(metric));
    line("chance", &chance(metric));
    line("needs", needs(metric));
    line(
        "interval",
        match metric.unit {
            Unit::PerExample => {
                "a mean over examples: Wilson's for right and wrong, else Student's"
            }
            Unit::Corpus => "over all examples together: bootstrap, 1000 draws of the examples",
        },
    );
    let other = aliases(metric).join(", ");
    if !other.is_empty() {
        line("also", &other);
    }
    line("source", metric.source);
    if !metric.differs.is_empty() {
        line("differs", metric.differs);
    }
    out
}

/// docs/reference/metrics.md
pub fn metrics_page() -> String {
    let mut out = "# Metrics\n\nGenerated from the registry by `polyloom reference metrics`; do not edit.\n\n\
        **Over**: `example` is a mean of a value per example, with Wilson's interval for right and wrong and Student's \
        for other values; `corpus` is one value of all examples together, with a bootstrap interval. **Chance** is what \
        guessing scores. BLEU, chrF, TER and SQuAD's are on the scale 0 to 100 of their papers; all others are \
        fractions, coefficients or in the unit of the data.\n"
        .to_owned();
    for (family, metrics) in families() {
        let words = metrics.first().map_or("", |m| needs(m));
        out += &format!(
            "\n## {}\n\nA prediction holds {words}.\n\n| metric | better | range | chance | over | what it says | source |\n|---|---|---|---|---|---|---|\n",
            heading(family),
        );
        for metric in metrics {
            out += &row(metric);
        }
    }
    out
}

/// One line of the page.
fn row(metric: &Metric) -> String {
    let quoted: Vec<String> = aliases(metric).iter().map(|a| format!("`{a}`")).collect();
    let also = match quoted.is_empty() {
        true => String::new(),
        false => format!(" ({})", quoted.join(", ")),
    };
    let differs = match metric.differs {
        "" => String::new(),
        text => format!("; {text}"),
    };
    let (least, most) = metric.range;
    format!(
        "| `{}`{also} | {} | {} to {} | {} | {} | {} | {}{differs} |\n",
        metric.name,
        better(metric),
        bound(least),
        bound(most),
        chance(metric),
        unit(metric),
        metric.summary,
        metric.source,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::metric::registry::find;

    #[test]
    fn every_metric_is_on_the_page_and_in_the_list() {
        let (page, list) = (metrics_page(), list());
        for metric in METRICS {
            assert!(page.contains(&format!("| `{}`", metric.name)));
            assert!(list.contains(&format!("  {} ", metric.name)));
        }
        // A family has one heading: its metrics stand together.
        assert_eq!(page.matches("\n## Labels\n").count(), 1);
        assert_eq!(page.matches("\n## Text\n").count(), 1);
        assert!(list.lines().all(|l| l.chars().count() <= 80), "{list}");
    }

    #[test]
    fn one_metric_is_explained() {
        let text = explain(find("macro_f1").unwrap());
        assert!(
            text.starts_with("f1_macro\n") && text.contains("also      macro_f1"),
            "{text}"
        );
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    }
}
