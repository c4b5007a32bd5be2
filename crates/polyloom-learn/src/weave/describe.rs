//! What a woven folder holds, for people and programs.

use std::path::Path;

use polyloom_core::writer::human;
use serde_json::{Value as Json, json};

use super::meta::{Meta, Method, ROUTER};
use crate::error::Result;
use crate::route::Router;

/// What `inspect` shows of a woven folder; the base is not opened.
///
/// # Errors
/// A `woven.json` or a router that cannot be read.
pub fn describe(folder: &Path) -> Result<(Json, String)> {
    let meta = Meta::read(folder)?;
    let router = match &meta.routing {
        Some(_) => Some(Router::open(&folder.join(ROUTER))?),
        None => None,
    };
    let said = router.as_ref().map(
        |r| json!({"method": r.method().word(), "reads": r.tap.to_string(), "fitted": r.fitted}),
    );
    let json =
        json!({"folder": folder, "woven": meta, "router": said, "added": meta.sizes.added()});
    let mut lines = vec![
        format!(
            "{}   woven model, {}, {} experts, numbers in {}",
            folder.display(),
            meta.method.word(),
            meta.experts.len(),
            meta.dtype
        ),
        format!("  base     {}", meta.base.path),
        format!("  shared   {}", human(meta.sizes.shared)),
    ];
    if let Some(g) = &meta.gating {
        lines.push(format!(
            "  gates    {} of the first singular vectors, {} experts of a token",
            g.gate_rank, g.top
        ));
    }
    if meta.method == Method::Wemoe {
        lines.push(format!(
            "  mixers   {} feed-forward parts",
            meta.blocks.len()
        ));
    }
    match (&router, &meta.routing) {
        (Some(router), Some(routing)) => {
            let top = routing
                .top
                .map_or("all experts".into(), |n| format!("at most {n}"));
            let levels = match routing.levels {
                0 => "exact weights".to_owned(),
                n => format!("weights in steps of 1/{n}"),
            };
            let accuracy = router
                .fitted
                .get("held_out_accuracy")
                .and_then(Json::as_f64);
            let accuracy = accuracy.map_or(String::new(), |a| {
                format!("; {a:.3} of held-out rows right")
            });
            lines.push(format!(
                "  router   {} reads {}; {top}, {levels}{accuracy}",
                router.method().word(),
                router.tap
            ));
        }
        _ => lines.push("  router   none: one expert".into()),
    }
    let width = meta.experts.iter().map(|e| e.name.chars().count()).max();
    let width = width.unwrap_or(0).max(6);
    lines.push(format!(
        "  {:<width$}  {:>7}  {:>4}  {:>9}  heads",
        "expert", "tensors", "rank", "parts"
    ));
    for expert in &meta.experts {
        lines.push(format!(
            "  {:<width$}  {:>7}  {:>4}  {:>9}  {}",
            expert.name,
            expert.tensors,
            expert.rank.map_or("-".into(), |r| r.to_string()),
            human(expert.bytes),
            expert.heads.join(", "),
        ));
    }
    let s = &meta.sizes;
    lines.push(format!(
        "  beside the base: {} ({} parts, {} routing, {} heads); whole copies of the experts: {}",
        human(s.added()),
        human(s.parts),
        human(s.routing),
        human(s.heads),
        human(s.copies)
    ));
    Ok((json, lines.join("\n")))
}
