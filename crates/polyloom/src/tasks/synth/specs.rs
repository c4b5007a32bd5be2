//! The task specs of the generators.

use serde_json::json;

use super::{Generator, SPLITS, fields, multitab, shapes};
use crate::tasks::spec::{
    Fields, Metric, Modality, Split, Table, Tags, Target, TaskSpec, TaskType,
};

fn strings<const N: usize>(list: [&str; N]) -> Vec<String> {
    list.map(str::to_owned).to_vec()
}

fn target(name: impl Into<String>, kind: TaskType, metrics: &[&str]) -> Target {
    let name = name.into();
    let metrics = metrics.iter().enumerate();
    Target {
        column: name.clone(),
        name,
        kind,
        labels: Vec::new(),
        metrics: metrics.map(|(i, m)| Metric::named(*m, i == 0)).collect(),
        weight: 1.0,
        sample: String::new(),
    }
}

impl Generator {
    /// The task that reads this generator without files, with the id `synth/<name>`.
    #[must_use]
    pub fn spec(&self) -> TaskSpec {
        let id = format!("synth/{}", self.name());
        let mut spec = TaskSpec::new(id, self.source());
        spec.title = format!("{} (synthetic)", self.name());
        spec.license = "generated; no rights claimed".into();
        for name in SPLITS {
            spec.splits.named.insert(name.into(), Split::default());
        }
        spec.splits.fewshot = Some("train".into());
        spec.tags = Tags {
            tags: strings(["synthetic", "several targets"]),
            ..Tags::default()
        };
        match self {
            Self::Shapes(_) => dense(&mut spec),
            Self::Fields(_) => equations(&mut spec),
            Self::Log(_) => steps(&mut spec),
            Self::Multitab(options) => tables(options, &mut spec),
        }
        spec
    }
}

fn dense(spec: &mut TaskSpec) {
    spec.description = "Synthetic: rendered scenes of 2 to 5 bodies, 48 x 48 x 3 bytes. Maps row by row: segmentation \
        u8; depth u16, little endian, thousandths of 20 - height; normals i8 x 3, 127 times the unit normal; edges u8. \
        Proves mechanisms, not quality in the world."
        .into();
    spec.modality = Modality {
        input: strings(["image"]),
        output: "image".into(),
    };
    spec.tags.skills = strings(["dense vision"]);
    spec.source.size = Some([shapes::SIDE as u32, shapes::SIDE as u32, 3]);
    spec.fields = Fields {
        id: "id".into(),
        input: "image".into(),
        ..Fields::default()
    };
    let angles = [
        "normal_angle_mean",
        "normal_angle_median",
        "normal_angle_within_11",
        "normal_angle_within_22",
        "normal_angle_within_30",
    ];
    let metrics: [&[&str]; 5] = [
        &["miou", "pixel_acc"],
        &["abs_err", "rel_err"],
        &angles,
        &["edge_f1"],
        &["accuracy"],
    ];
    for (name, metrics) in shapes::TARGETS.into_iter().zip(metrics) {
        let mut target = target(name, TaskType::Dense, metrics);
        match name {
            "segmentation" => target.labels = strings(shapes::CLASSES),
            // Angles of the bodies: the background is nearly flat.
            "normals" => {
                for metric in &mut target.metrics {
                    metric.params.insert("mask".into(), "segmentation".into());
                }
            }
            "label" => {
                target.kind = TaskType::Classification;
                target.labels = strings(shapes::CLASSES).split_off(1);
            }
            _ => {}
        }
        spec.targets.push(target);
    }
}

fn equations(spec: &mut TaskSpec) {
    spec.description = "Synthetic: Poisson's equation and the screened one over sources and geometries, 24 x 24 x 2 bytes: \
        the source, and where the equations hold. Maps row by row: u16, little endian, thousandths of the solution, 0 \
        outside. Proves mechanisms, not quality in the world."
        .into();
    spec.modality = Modality {
        input: strings(["image"]),
        output: "image".into(),
    };
    spec.tags.skills = strings(["operators"]);
    spec.source.size = Some([fields::SIDE as u32, fields::SIDE as u32, 2]);
    spec.fields = Fields {
        id: "id".into(),
        input: "image".into(),
        ..Fields::default()
    };
    let metrics = ["rel_l2", "abs_err"];
    let targets = fields::TARGETS.map(|name| target(name, TaskType::Dense, &metrics));
    spec.targets.extend(targets);
}

fn steps(spec: &mut TaskSpec) {
    spec.description = "Synthetic: impressions in time order, of which some are clicked, then put in the cart, then \
        bought. The probabilities are known: no model beats the planted AUC but by chance. Proves mechanisms, not \
        quality in the world."
        .into();
    spec.modality = Modality {
        input: strings(["table"]),
        output: "table".into(),
    };
    spec.tags.skills = strings(["recommendation"]);
    spec.fields = Fields {
        id: "row".into(),
        cluster: "session".into(),
        ..Fields::default()
    };
    spec.table = Some(Table {
        categorical: strings([
            "user", "age", "job", "region", "item", "category", "brand", "word1", "word2", "word3",
        ]),
        numeric: strings(["pos", "price"]),
        drop: strings(["row", "session"]),
        ..Table::default()
    });
    let samples = [("click", ""), ("cart", "click == 1"), ("buy", "cart == 1")];
    for (name, sample) in samples {
        let mut target = target(name, TaskType::Classification, &["roc_auc", "log_loss"]);
        target.sample = sample.into();
        spec.targets.push(target);
    }
}

fn tables(options: &multitab::Multitab, spec: &mut TaskSpec) {
    spec.description = format!(
        "Synthetic: {} targets of {} normal features, polynomials whose weights have pairwise cosine {}. The best R2 \
         is {:.3} for every number. Proves mechanisms, not quality in the world.",
        options.tasks,
        options.features,
        options.correlation,
        1.0 / (1.0 + options.noise * options.noise)
    );
    spec.modality = Modality {
        input: strings(["table"]),
        output: "table".into(),
    };
    spec.tags.skills = strings(["tabular"]);
    spec.fields.id = "row".into();
    spec.table = Some(Table {
        numeric: (0..options.features).map(|k| format!("x{k}")).collect(),
        drop: strings(["row"]),
        ..Table::default()
    });
    for t in 0..options.tasks {
        let (kind, metrics): (_, &[&str]) = if options.is_label(t) {
            (TaskType::Classification, &["roc_auc"])
        } else {
            (TaskType::Regression, &["r2", "rmse"])
        };
        spec.targets.push(target(format!("y{t}"), kind, metrics));
    }
}

/// A spec of generated rows as the `task.json` of the folder they were written to.
pub(super) fn task_json(generator: &Generator, spec: &TaskSpec) -> serde_json::Value {
    let splits: serde_json::Map<_, _> = SPLITS
        .iter()
        .map(|name| {
            let rows = generator.split(name).unwrap_or_default();
            let file = format!("{name}.parquet");
            (
                (*name).to_owned(),
                json!({"file": file, "rows": rows.end - rows.start}),
            )
        })
        .collect();
    let targets: Vec<_> = spec
        .targets
        .iter()
        .map(|t| {
            let metrics: Vec<&str> = t.metrics.iter().map(|m| &*m.name).collect();
            let mut entry = json!({
                "column": t.column, "kind": t.kind.name(), "metric": metrics.join(", "),
                "labels": t.labels, "sample": t.sample,
            });
            if let Some(mask) = t.metrics.first().and_then(|m| m.params.get("mask")) {
                entry["mask"] = mask.clone();
            }
            entry
        })
        .collect();
    let table = spec.table.clone().unwrap_or_default();
    let tabular = spec.table.is_some();
    let mut value = json!({
        "name": generator.name(),
        "synthetic": true,
        "modality": if tabular { "tabular" } else { "image" },
        "kind": "multi-task",
        "targets": targets,
        "licence": spec.license,
        "note": spec.description,
        "splits": splits,
        "source": spec.source,
    });
    if tabular {
        value["features"] = json!({"categorical": table.categorical, "numeric": table.numeric});
        value["not_features"] = json!(table.drop);
    } else {
        value["input_columns"] = json!([spec.fields.input]);
        let [height, width, channels] = spec.source.size.unwrap_or_default();
        value["image"] = json!({"height": height, "width": width, "channels": channels});
    }
    value
}
