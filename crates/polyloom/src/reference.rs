//! Text about methods, generated from the registry: `--list`, `--explain`, the reference pages.

use crate::merge;
use crate::merge::compose::STEPS;
use crate::merge::method::{Base, Golden, Kind, Param, Scope, Spec, Unset};

/// The table of `polyloom merge --list`.
pub fn list() -> String {
    let width = merge::methods()
        .map(|m| m.spec().name.len())
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for method in merge::methods() {
        let spec = method.spec();
        out += &format!("{:width$}  {}\n", spec.name, spec.summary);
    }
    out
}

/// The text of `polyloom merge --explain NAME`.
pub fn explain(spec: &Spec) -> String {
    page(spec)
}

/// One section of the reference page, in Markdown.
pub fn page(spec: &Spec) -> String {
    let mut out = format!(
        "## {}\n\n{}.\n\n{}\n\n",
        spec.name, spec.summary, spec.formula
    );
    out += &format!("- Inputs: {}\n", inputs(spec));
    if let Some(on) = spec.on {
        out += &format!(
            "- Works on the multi-task vector of another merge: `on = {{ method = \"…\" }}` (default `{on}`)\n"
        );
    }
    out += &format!(
        "- Scope: {}\n",
        match spec.scope {
            Scope::Tensor => "tensor by tensor",
            Scope::Model => "the whole model",
        }
    );
    out += &format!("- Cost: {}\n- Source: {}\n", spec.cost, spec.source);
    if !spec.differs.is_empty() {
        out += &format!("- Differs: {}\n", spec.differs);
    }
    out += &format!(
        "- Test vectors: {}\n",
        match spec.golden {
            Golden::Cases(cases) => cases.join(", "),
            Golden::None(reason) => format!("none ({reason})"),
        }
    );
    if !spec.params.is_empty() {
        out.push('\n');
        out += &params(spec.params);
    }
    out
}

fn inputs(spec: &Spec) -> String {
    let count = match spec.experts {
        (a, b) if a == b => format!("{a}"),
        (a, usize::MAX) => format!("{a} or more"),
        (a, b) => format!("{a} to {b}"),
    };
    let base = match spec.base {
        Base::Required => "and a base",
        Base::Optional => "and, if you like, a base",
        Base::Ignored => "(a listed base is one of them)",
    };
    format!("{count} {base}")
}

fn params(params: &[Param]) -> String {
    let mut out =
        "| parameter | given | value | default | meaning |\n|---|---|---|---|---|\n".to_owned();
    for p in params {
        out += &format!(
            "| `{}` | {}{} | {} | {} | {} |\n",
            p.name,
            if p.each { "per input" } else { "once" },
            if p.per_tensor { "" } else { ", whole model" },
            kind(p.kind),
            unset(p.unset),
            p.doc,
        );
    }
    out
}

/// The form and range of a parameter's value.
pub fn kind(kind: Kind) -> String {
    let bound = |low: f64, high: f64| match (low > i64::MIN as f64, high < i64::MAX as f64) {
        (true, true) => format!(" in [{low}, {high}]"),
        (true, false) => format!(" >= {low}"),
        (false, true) => format!(" <= {high}"),
        (false, false) => String::new(),
    };
    match kind {
        Kind::Number(low, high) => format!("number{}", bound(low, high)),
        Kind::Integer(low, high) => format!("whole number{}", bound(low as f64, high as f64)),
        Kind::Flag => "true, false".into(),
        Kind::Word(words) => {
            let mut all: Vec<String> = Vec::new();
            for (_, word) in words {
                let word = format!("`{word}`");
                if !all.contains(&word) {
                    all.push(word);
                }
            }
            all.join(", ")
        }
        Kind::Rescale => "`l1`, `inverse`, false".into(),
        Kind::NumberOr(word) => format!("number or `{word}`"),
        Kind::Text => "text".into(),
        Kind::File => "file".into(),
        Kind::Names => "list of names".into(),
    }
}

/// The default of a parameter.
pub fn unset(unset: Unset) -> String {
    match unset {
        Unset::Required => "required".into(),
        Unset::RequiredInYaml(x) => format!("{x} (required in a mergekit file)"),
        Unset::Number(x) => x.to_string(),
        Unset::Flag(b) => b.to_string(),
        Unset::Word(w) => format!("`{w}`"),
        Unset::Nothing => "unset".into(),
    }
}

/// `docs/reference/methods.md`.
pub fn methods_page() -> String {
    let mut out =
        "# Merge methods\n\nGenerated from the registry by `polyloom reference`; do not edit.\n\n"
            .to_owned();
    out += "| method | summary |\n|---|---|\n";
    for method in merge::methods() {
        let spec = method.spec();
        out += &format!("| [{0}](#{0}) | {1} |\n", spec.name, spec.summary);
    }
    for method in merge::methods() {
        out.push('\n');
        out += &page(method.spec());
    }
    out += "\n# Steps\n\n`[[merge.pre]]` acts on every task vector before the method, `[[merge.post]]` on the merged vector after it.\n";
    for step in STEPS {
        out += &format!(
            "\n## step {}\n\n{} ({}).\n\n- Source: {}\n\n",
            step.name,
            step.summary,
            if step.pre { "pre" } else { "post" },
            step.source
        );
        out += &params(step.params);
    }
    out
}
