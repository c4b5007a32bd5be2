//! `flat_mtl`: every task looks for a flat place (SAM), and both parts of its gradient are aggregated.

use super::aligned::impartial;
use super::cagrad;
use super::method::{
    Balancer, Golden, Gram, Kind, Looks, Method, Param, Step, Unset, Unsolved, Wants, Weights,
};
use super::mgda::shortest;
use super::project::{orders, pcgrad};

static SPEC: Method = Method {
    name: "flat_mtl",
    summary: "Sharpness-aware gradients of every task, aggregated beside the plain ones",
    source: "Phan et al., Improving MTL via Seeking Task-based Flat Regions; FS-MTL city2scape/train.py",
    formula: "A second pass of every task at `theta + rho g_t/(|g_t| + 1e-12)`, its own parameters moved likewise by their own length, gives `h_t = g_t^SAM - g_t`; `d = Agg({g_t}) + Agg({h_t})`, `Agg` one of \"mgda\" (times `n`), \"pcgrad\", \"cagrad\" (c 0.4, rescale 1), \"imtl\". Own parameters receive their gradient at the second point.",
    differs: "The adaptive form and the one that aggregates `g_t^SAM` alone are not here.",
    degenerate: "As the aggregator.",
    looks: Looks::Gram,
    passes: "a second forward and backward pass of every task",
    params: &[
        Param::shared(
            "inner",
            Kind::Word(&[
                ("mgda", "mgda"),
                ("pcgrad", "pcgrad"),
                ("cagrad", "cagrad"),
                ("imtl", "imtl"),
            ]),
            Unset::Word("cagrad"),
            "The aggregator.",
        ),
        Param::shared(
            "rho",
            Kind::Number(0.0, 100.0),
            Unset::Number(0.05),
            "Length of the step to the second point; 0.005 to 0.5 are usual.",
        ),
    ],
    golden: Golden::Cases(&["flat_mtl"]),
    begin: |values, _| {
        Box::new(Flat {
            inner: match values.word("inner") {
                "mgda" => Inner::Mgda,
                "pcgrad" => Inner::Pcgrad,
                "imtl" => Inner::Imtl,
                _ => Inner::Cagrad,
            },
            rho: values.number("rho"),
        })
    },
};

/// The entries of this file.
pub static METHODS: &[&Method] = &[&SPEC];

/// What aggregates.
#[derive(Debug, Clone, Copy)]
enum Inner {
    Mgda,
    Pcgrad,
    Cagrad,
    Imtl,
}

struct Flat {
    inner: Inner,
    rho: f64,
}

impl Flat {
    fn aggregate(&self, gram: &Gram, step: &Step<'_>, name: &str) -> Result<Vec<f64>, Unsolved> {
        match self.inner {
            Inner::Mgda => {
                let n = gram.len() as f64;
                Ok(shortest(gram)?.iter().map(|w| n * w).collect())
            }
            Inner::Pcgrad => Ok(pcgrad(gram, &orders(step, name, false))),
            Inner::Cagrad => cagrad::weights(gram, 0.4, 1.16),
            Inner::Imtl => impartial(gram),
        }
    }
}

impl Balancer for Flat {
    fn wants(&self) -> Wants {
        Wants::Perturbed(self.rho)
    }

    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        let second = step
            .second
            .ok_or_else(|| Unsolved("no gradients at the second point".into()))?;
        let mut weights = self.aggregate(step.gram, step, "balance flat")?;
        weights.extend(self.aggregate(second.gram, step, "balance flat second")?);
        Ok(Weights::of_gradients(weights, step.tasks.len()))
    }

    fn rows<'a>(&'a self, step: &Step<'a>) -> Vec<&'a [f32]> {
        let second = step
            .second
            .iter()
            .flat_map(|s| s.differences.iter().copied());
        step.gradients.iter().copied().chain(second).collect()
    }
}

/// The step of a task to its second point: `rho g / (|g| + 1e-12)`; norms of shared and own parameters are taken apart.
pub fn perturbation(gradient: &[f32], rho: f64) -> Vec<f32> {
    let length = polyloom_core::nn::elementwise::squares(gradient).sqrt();
    let factor = rho / (length + 1e-12);
    gradient
        .iter()
        .map(|g| (f64::from(*g) * factor) as f32)
        .collect()
}
