//! Metrics of a value per pixel, and of graphs of tools.

use super::maps::Pixels;
use super::measure::{Form, Pairs, Params, whole};
use super::truth::Truth;
use crate::error::Result;
use crate::evaluate::metric::dense::{ClassMaps, DepthErrors, EdgeCounts, normal_angles};
use crate::evaluate::metric::tool_graph::ToolGraphCounts;
use crate::evaluate::sum::Sum;

/// True and predicted values of an example, those outside its mask taken out.
type Both = (Vec<f32>, Vec<f32>);

fn both(params: &Params<'_>, pairs: &Pairs<'_>, kind: Pixels) -> Result<Vec<Both>> {
    let mut all = Vec::new();
    for (truth, given) in pairs.truths.iter().zip(&pairs.given) {
        let (Truth::Map { values, masks }, Some(map)) = (truth, &given.map) else {
            return Err(params.unfit("it needs a map per example"));
        };
        let each = kind.values();
        let pixels = values.len() / each;
        let said = map
            .values(kind, Some(pixels))
            .map_err(|e| params.unfit(&e))?;
        if said.len() != values.len() {
            let why = format!(
                "a map has {} values, the true one {}",
                said.len(),
                values.len()
            );
            return Err(params.unfit(&why));
        }
        let Some(name) = params.word("mask") else {
            all.push((values.clone(), said));
            continue;
        };
        let mask = masks.iter().find(|(n, _)| n == name).map(|(_, m)| m);
        let mask = mask.filter(|m| m.len() == pixels);
        let Some(mask) = mask else {
            return Err(params.unfit(&format!("the mask `{name}` has not a value per pixel")));
        };
        let cut = |values: &[f32]| {
            let kept = values.chunks_exact(each).zip(mask).filter(|(_, m)| **m);
            kept.flat_map(|(v, _)| v.iter().copied())
                .collect::<Vec<f32>>()
        };
        all.push((cut(values), cut(&said)));
    }
    Ok(all)
}

pub(super) fn maps<'a>(params: &Params<'_>, pairs: &'a Pairs<'a>) -> Result<Form<'a>> {
    let Some(kind) = Pixels::of(params.metric) else {
        return Err(params.unfit("it is not of maps"));
    };
    let all = both(params, pairs, kind)?;
    let n = all.len();
    let fail = |e| params.failed(e);
    match kind {
        Pixels::Classes => {
            let class = |list: &[f32]| -> Vec<u32> {
                // What is no whole number from 0 is no class.
                let one = |x: &f32| {
                    if *x >= 0.0 && x.fract() == 0.0 {
                        *x as u32
                    } else {
                        u32::MAX
                    }
                };
                list.iter().map(one).collect()
            };
            let classes = match pairs.goal.classes.len() {
                0 => {
                    let most = all
                        .iter()
                        .flat_map(|(t, _)| class(t))
                        .filter(|c| *c < 255)
                        .max();
                    most.map_or(1, |c| c as usize + 1)
                }
                n => n,
            };
            let mut parts = Vec::new();
            for (truth, said) in &all {
                let mut one = ClassMaps::new(classes).map_err(fail)?;
                one.add(&class(truth), &class(said)).map_err(fail)?;
                parts.push(one);
            }
            let mean = params.metric == "miou";
            whole(params, n, move |places| {
                let mut all = ClassMaps::new(classes)?;
                places
                    .iter()
                    .try_for_each(|&i| all.merge(&parts[i as usize]))?;
                Ok(if mean {
                    all.mean_overlap()
                } else {
                    all.pixel_accuracy()
                })
            })
        }
        Pixels::Depth => {
            let mut parts = vec![DepthErrors::default(); n];
            for ((truth, said), part) in all.iter().zip(&mut parts) {
                part.add(truth, said).map_err(fail)?;
            }
            let of = match params.metric {
                "rel_err" => DepthErrors::relative,
                "rel_l2" => DepthErrors::length,
                _ => DepthErrors::absolute,
            };
            whole(params, n, move |places| {
                let mut all = DepthErrors::default();
                places.iter().for_each(|&i| all.merge(&parts[i as usize]));
                Ok(of(&all))
            })
        }
        Pixels::Edges => {
            let mut parts = vec![EdgeCounts::default(); n];
            for ((truth, said), part) in all.iter().zip(&mut parts) {
                part.add(truth, said).map_err(fail)?;
            }
            whole(params, n, move |places| {
                let mut all = EdgeCounts::default();
                places.iter().for_each(|&i| all.merge(&parts[i as usize]));
                Ok(all.f1())
            })
        }
        Pixels::Normals => {
            let mut angles = Vec::new();
            for (truth, said) in &all {
                angles.push(normal_angles(truth, said).map_err(fail)?);
            }
            angle(params, angles)
        }
    }
}

fn angle(params: &Params<'_>, angles: Vec<Vec<f64>>) -> Result<Form<'static>> {
    let n = angles.len();
    let limit = match params.metric {
        "normal_angle_mean" => {
            let parts: Vec<Sum> = angles.iter().map(|a| a.iter().copied().collect()).collect();
            return whole(params, n, move |places| {
                let mut all = Sum::default();
                places.iter().for_each(|&i| all.merge(&parts[i as usize]));
                Ok(all.mean())
            });
        }
        "normal_angle_median" => return median(params, angles),
        "normal_angle_within_11" => 11.25,
        "normal_angle_within_22" => 22.5,
        _ => 30.0,
    };
    let of = |a: &Vec<f64>| {
        (
            a.iter().filter(|x| **x < limit).count() as f64,
            a.len() as f64,
        )
    };
    let parts: Vec<(f64, f64)> = angles.iter().map(of).collect();
    whole(params, n, move |places| {
        let add = |(a, b), (c, d)| (a + c, b + d);
        let drawn = places.iter().map(|&i| parts[i as usize]);
        let (within, all) = drawn.fold((0.0, 0.0), add);
        Ok(within / all)
    })
}

/// The middle angle of all pixels: sorted once, a draw counts along the order.
fn median(params: &Params<'_>, angles: Vec<Vec<f64>>) -> Result<Form<'static>> {
    let sizes: Vec<u64> = angles.iter().map(|a| a.len() as u64).collect();
    let mut order: Vec<(f64, u32)> = Vec::new();
    for (i, list) in (0u32..).zip(angles) {
        order.extend(list.into_iter().map(|a| (a, i)));
    }
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    whole(params, sizes.len(), move |places| {
        let mut times = vec![0u64; sizes.len()];
        places.iter().for_each(|&i| times[i as usize] += 1);
        let total: u64 = times.iter().zip(&sizes).map(|(t, n)| t * n).sum();
        // The two in the middle, the same one for an odd number.
        let (low, high) = (total.saturating_sub(1) / 2, total / 2);
        let (mut seen, mut first) = (0, f64::NAN);
        for (angle, i) in &order {
            let before = seen;
            seen += times[*i as usize];
            if before <= low && low < seen {
                first = *angle;
            }
            if before <= high && high < seen {
                return Ok(f64::midpoint(first, *angle));
            }
        }
        Ok(f64::NAN)
    })
}

/// F1 of tools or links over all examples.
pub(super) fn graphs<'a>(params: &Params<'_>, pairs: &'a Pairs<'a>) -> Result<Form<'a>> {
    let mut counts = Vec::new();
    for (truth, given) in pairs.truths.iter().zip(&pairs.given) {
        let (Truth::Graph(truth), Some(said)) = (truth, &given.graph) else {
            return Err(params.unfit("it needs a graph of tools per example"));
        };
        counts.push(ToolGraphCounts::of(truth, said));
    }
    let links = params.metric == "edge_match_f1";
    whole(params, counts.len(), move |places| {
        let mut all = ToolGraphCounts::default();
        places.iter().for_each(|&i| all.merge(&counts[i as usize]));
        Ok(if links { all.link_f1() } else { all.node_f1() })
    })
}
