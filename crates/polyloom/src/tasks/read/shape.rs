//! The keys of a file, by place.

/// The keys of a table, and what each holds.
pub(super) type Shape = &'static [(&'static str, Kind)];

/// What a key holds, as far as its own keys go.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Anything without keys of ours.
    Leaf,
    /// A table with these keys (where it is a table).
    Table(Shape),
    /// A list of tables.
    List(Shape),
    /// A table with free names whose values have these keys.
    Each(Shape),
}

use Kind::{Each, Leaf, List, Table};

const METRIC: Shape = &[
    ("name", Leaf),
    ("primary", Leaf),
    ("params", Leaf),
    ("aggregate", Leaf),
];

pub(super) const TASK: Shape = &[
    ("schema", Leaf),
    ("id", Leaf),
    ("version", Leaf),
    ("type", Leaf),
    ("title", Leaf),
    ("description", Leaf),
    ("license", Leaf),
    ("homepage", Leaf),
    ("citation", Leaf),
    ("canary", Leaf),
    ("language", Leaf),
    ("qrels", Table(&[("same", Leaf)])),
    ("modality", Table(&[("input", Leaf), ("output", Leaf)])),
    (
        "tags",
        Table(&[
            ("skills", Leaf),
            ("domains", Leaf),
            ("tags", Leaf),
            ("capability", Leaf),
        ]),
    ),
    ("weights", Table(&[("train", Leaf), ("eval", Leaf)])),
    (
        "source",
        Table(&[
            ("kind", Leaf),
            ("root", Leaf),
            ("revision", Leaf),
            ("sha256", Leaf),
            ("size", Leaf),
            ("rows", Leaf),
            ("generator", Leaf),
            ("seed", Leaf),
            ("count", Leaf),
            ("options", Leaf),
        ]),
    ),
    (
        "splits",
        Each(&[("file", Leaf), ("slice", Leaf), ("seed", Leaf)]),
    ),
    (
        "fields",
        Table(&[
            ("id", Leaf),
            ("input", Leaf),
            ("input2", Leaf),
            ("target", Leaf),
            ("cluster", Leaf),
            ("choices", Leaf),
            ("spans", Leaf),
            ("map", Leaf),
            ("query", Leaf),
            ("document", Leaf),
            ("time", Leaf),
            ("event", Leaf),
        ]),
    ),
    (
        "labels",
        Table(&[("names", Leaf), ("map", Leaf), ("ignore", Leaf)]),
    ),
    (
        "filter",
        Table(&[("drop_if_missing", Leaf), ("dedupe_on", Leaf)]),
    ),
    (
        "prompts",
        List(&[
            ("id", Leaf),
            ("instruction", Leaf),
            ("template", Leaf),
            ("choices", Leaf),
            ("target", Leaf),
            ("target_delimiter", Leaf),
            ("fewshot_delimiter", Leaf),
            ("choice_format", Leaf),
        ]),
    ),
    (
        "fewshot",
        Table(&[
            ("n", Leaf),
            ("sampler", Table(&[("fixed", Leaf)])),
            ("seed", Leaf),
            ("exclude_self", Leaf),
        ]),
    ),
    (
        "generation",
        Table(&[
            ("max_tokens", Leaf),
            ("stop", Leaf),
            ("temperature", Leaf),
            ("repeats", Leaf),
        ]),
    ),
    (
        "parse",
        List(&[
            ("name", Leaf),
            (
                "steps",
                List(&[
                    ("regex", Leaf),
                    ("group", Leaf),
                    ("strip", Leaf),
                    ("lower", Leaf),
                ]),
            ),
        ]),
    ),
    ("metrics", List(METRIC)),
    (
        "score",
        Table(&[("chance", Leaf), ("maximum", Leaf), ("human", Leaf)]),
    ),
    ("expert", Table(&[("score", Leaf)])),
    (
        "table",
        Table(&[
            ("features", Leaf),
            ("categorical", Leaf),
            ("numeric", Leaf),
            ("text", Leaf),
            ("drop", Leaf),
            ("group", Leaf),
            ("group_as", Leaf),
            ("weight", Leaf),
            ("time", Leaf),
            ("session", Leaf),
            ("order", Leaf),
            ("item", Leaf),
            ("history", Leaf),
            ("mark", Leaf),
        ]),
    ),
    (
        "targets",
        List(&[
            ("name", Leaf),
            ("column", Leaf),
            ("type", Leaf),
            ("labels", Leaf),
            ("metrics", List(METRIC)),
            ("weight", Leaf),
            ("sample", Leaf),
        ]),
    ),
];

pub(super) const GROUP: Shape = &[
    ("schema", Leaf),
    ("id", Leaf),
    ("title", Leaf),
    ("tasks", Leaf),
    (
        "aggregate",
        List(&[("metric", Leaf), ("how", Leaf), ("weight", Leaf)]),
    ),
];
