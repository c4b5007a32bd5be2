//! A spec for a folder of images.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Wishes, id};
use crate::error::Result;
use crate::tasks::data::{self, Limits};
use crate::tasks::spec::{Metric, Source, SourceKind, Split, TaskSpec, TaskType};

/// Writes a spec for a folder of images in folders by class: `<class>/<file>`, or `train/<class>/<file>` and the like.
/// Without folders of splits, seeded splits of 80, 10 and 10 percent.
///
/// # Errors
/// No images, one class alone, a folder that cannot be read.
pub fn images(folder: &Path, wishes: &Wishes, limits: &Limits) -> Result<(TaskSpec, usize)> {
    const SPLITS: [(&str, &[&str]); 3] = [
        ("train", &["train", "training"]),
        ("validation", &["validation", "valid", "val", "dev"]),
        ("test", &["test"]),
    ];
    let mut spec = TaskSpec::new(id(folder, wishes), Source::new(SourceKind::ImageFolder, ""));
    let there = |names: &[&str]| {
        let mut names = names.iter();
        names
            .find(|n| folder.join(n).is_dir())
            .map(|n| (*n).to_owned())
    };
    let parts: Vec<(&str, String)> = SPLITS
        .iter()
        .filter_map(|(name, words)| Some((*name, there(words)?)))
        .collect();
    let mut listed = Vec::new();
    if parts.is_empty() {
        for (name, slice) in [
            ("train", "[:80%]"),
            ("validation", "[80%:90%]"),
            ("test", "[90%:]"),
        ] {
            let split = Split {
                slice: slice.into(),
                seed: Some(wishes.seed),
                ..Split::default()
            };
            spec.splits.named.insert(name.into(), split);
        }
        listed = data::images::list(folder, "", limits)?;
    }
    for (name, part) in parts {
        listed.extend(data::images::list(folder, &part, limits)?);
        let split = Split {
            // The split's own name is its folder already.
            file: if part == name { String::new() } else { part },
            ..Split::default()
        };
        spec.splits.named.insert(name.into(), split);
    }
    let classes: BTreeSet<&str> = listed.iter().map(|l| &*l.label).collect();
    if classes.len() < 2 {
        let only = classes.iter().next().copied().unwrap_or_default();
        return Err(
            data::bad(folder, format!("has images of one class alone, `{only}`"))
                .hint("a folder for every class, with its images: <class>/<file>.png"),
        );
    }
    spec.kind = Some(TaskType::Classification);
    spec.modality.input = vec!["image".into()];
    spec.modality.output = "label".into();
    spec.fields.id = "file".into();
    spec.fields.input = "image".into();
    spec.fields.target = "label".into();
    spec.labels.names = classes.into_iter().map(str::to_owned).collect();
    spec.metrics = vec![
        Metric::named("accuracy", true),
        Metric::named("macro_f1", false),
    ];
    Ok((spec, listed.len()))
}
