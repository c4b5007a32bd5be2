//! `docs/reference/balancers.md`, made from the registry.

use polyloom::reference::{kind, unset};

use super::method::{Golden, Looks, Method, Param};
use super::methods;

/// `docs/reference/balancers.md`.
pub fn balancers_page() -> String {
    let mut out = "# Balancing tasks\n\nGenerated from the registry by `polyloom reference balancers`; do not edit.\n\n\
        Methods of `[train.balance]` ([keys](training.md)). `L_t` is the mean loss of task `t` in a step, `g_t` its gradient by the shared parameters, `A` the matrix of their \
        dot products in f64, `d` the direction that the optimiser steps against, `n` the tasks that are here.\n\n\
        For all methods: a task without a labelled row or with a gradient of zero is left out of the step, and counted. A step for which a method has no answer, or whose solver misses its tolerance, \
        takes `w = 1/n` and is counted. A task's own parameters receive their own gradient; where losses are weighted, with the task's weight.\n\n\
        | method | summary | looks at |\n|---|---|---|\n"
        .to_owned();
    for method in methods() {
        let s = method;
        let name = s.name;
        out += &format!(
            "| [{name}](#{name}) | {} | {} |\n",
            s.summary,
            looks(s.looks)
        );
    }
    for method in methods() {
        out.push('\n');
        out += &section(method);
    }
    out
}

fn looks(looks: Looks) -> &'static str {
    match looks {
        Looks::Losses => "losses",
        Looks::Gram => "dot products of gradients",
        Looks::Elements => "elements of gradients",
    }
}

fn section(method: &Method) -> String {
    let mut out = format!(
        "## {}\n\n{}.\n\n{}\n\n",
        method.name, method.summary, method.formula
    );
    let cost = match method.looks {
        Looks::Elements => ", and keeps a vector of the shared parameters for every task",
        _ => "",
    };
    let passes = match method.passes {
        "" => String::new(),
        passes => format!("; {passes}"),
    };
    out += &format!("- Looks at: {}{cost}{passes}\n", looks(method.looks));
    out += &format!(
        "- Dependent gradients: {}\n- Source: {}\n",
        method.degenerate, method.source
    );
    if !method.differs.is_empty() {
        out += &format!("- Differs: {}\n", method.differs);
    }
    out += &match method.golden {
        Golden::Cases(cases) => format!("- Test vectors: {}\n", cases.join(", ")),
        Golden::None(reason) => format!("- Test vectors: none ({reason})\n"),
    };
    if !method.params.is_empty() {
        out += "\n| parameter | value | default | meaning |\n|---|---|---|---|\n";
        let row = |p: &Param| {
            format!(
                "| `{}` | {} | {} | {} |\n",
                p.name,
                kind(p.kind),
                unset(p.unset),
                p.doc
            )
        };
        out.extend(method.params.iter().map(row));
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_what_the_registry_says() {
        let page = include_str!("../../../../docs/reference/balancers.md");
        assert!(
            page == super::balancers_page(),
            "polyloom reference balancers > docs/reference/balancers.md"
        );
    }
}
