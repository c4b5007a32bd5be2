//! `docs/reference/architectures.md`, made from the registry.

use polyloom::reference::{kind, unset};

use super::architecture::{Golden, Spec};
use super::{Common, architectures};

/// `docs/reference/architectures.md`.
pub fn architectures_page() -> String {
    let mut out = "# Architectures over tables\n\nGenerated from the registry by `polyloom reference architectures`; do not edit.\n\n\
        Models that learn several goals over the rows of a table: `config.json` with `\"model_type\": \"polyloom-table\"`. `x` are the features of a row: the vectors of its categories side by side, \
        then its numbers. `T` goals; the model gives `h_t` for each, and a head outside of it makes scores of that. Tensors named `goals.<t>.` are of one goal alone, all others are shared. \
        Experts of one shape that read one input lie in one tensor `[experts * out, in]`, expert `e` from row `e * out` on.\n\n\
        Weights begin He uniform where an activation follows, Xavier uniform in gates and other linear layers, biases 0, norms 1, embeddings and tokens `N(0, 0.01^2)`. \
        `norm = \"batch\"` has eps 1e-5 and running values with momentum 0.1.\n\n\
        ## Keys\n\n| key | value | default | meaning |\n|---|---|---|---|\n\
        | `architecture` | one of the names below | required | The architecture. |\n\
        | `goals` | list of names | required | Ids of the goals, in order. |\n\
        | `numeric` | whole number | 0 | Numbers of a row. |\n\
        | `categories` | list of whole numbers | `[]` | Codes of every categorical field; 0 is kept for unknown and missing. |\n\
        | `embed_dim` | whole number | 16 | Length of the vector of a category. |\n"
        .to_owned();
    for key in Common::ALL {
        let [value, default, doc] = key.doc();
        out += &format!("| `{}` | {value} | {default} | {doc} |\n", key.word());
    }
    out += "\nA key that an architecture does not read is an error.\n\n## Names\n\n| architecture | summary |\n|---|---|\n";
    for architecture in architectures() {
        let s = architecture.spec();
        out += &format!("| [{0}](#{0}) | {1} |\n", s.name, s.summary);
    }
    for architecture in architectures() {
        out.push('\n');
        out += &section(architecture.spec());
    }
    out
}

fn section(spec: &Spec) -> String {
    let uses: Vec<String> = spec
        .uses
        .iter()
        .map(|k| format!("`{}`", k.word()))
        .collect();
    let mut out = format!(
        "## {}\n\n{}.\n\n{}\n\n- Reads: {}\n- Source: {}\n",
        spec.name,
        spec.summary,
        spec.formula,
        uses.join(", "),
        spec.source
    );
    if !spec.differs.is_empty() {
        out += &format!("- Differs: {}\n", spec.differs);
    }
    out += &match spec.golden {
        Golden::Cases(cases) => format!("- Test vectors: {}\n", cases.join(", ")),
        Golden::None(reason) => format!("- Test vectors: none ({reason})\n"),
    };
    if !spec.params.is_empty() {
        out += "\n| option | value | default | meaning |\n|---|---|---|---|\n";
        for p in spec.params {
            let (value, default) = (kind(p.kind), unset(p.unset));
            out += &format!("| `{}` | {value} | {default} | {} |\n", p.name, p.doc);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_what_the_registry_says() {
        let page = include_str!("../../../../../docs/reference/architectures.md");
        assert!(
            page == super::architectures_page(),
            "polyloom reference architectures > docs/reference/architectures.md"
        );
    }
}
