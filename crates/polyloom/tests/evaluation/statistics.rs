//! Family `statistics`.

use polyloom::evaluate::statistics::bootstrap::jackknife_mean;
use polyloom::evaluate::statistics::draw::Seed;
use polyloom::evaluate::statistics::friedman;
use polyloom::evaluate::statistics::mcnemar::McNemar;
use polyloom::evaluate::statistics::mean::{clustered_standard_error, standard_error, t_interval};
use polyloom::evaluate::statistics::multiplicity::{Correction, adjust};
use polyloom::evaluate::statistics::paired::{paired_t, permutation, sign_test};
use polyloom::evaluate::statistics::power::{examples_needed, minimum_detectable};
use polyloom::evaluate::statistics::proportion::{ProportionMethod, proportion};
use polyloom::evaluate::statistics::replicates::Replicates;
use polyloom::evaluate::statistics::wilcoxon::{Zeros, wilcoxon};
use polyloom::evaluate::statistics::{Interval, special};
use polyloom::evaluate::sum::mean;
use serde_json::{Map, Value, json};

use super::{Case, Outcome, float, number};

pub fn solve(case: &Case) -> Outcome {
    let input = &case.input;
    let found = match input["kind"].as_str().unwrap() {
        "bootstrap_mean" => bootstrap_mean(input),
        "clustered_stderr" => clustered(input),
        "friedman" => tasks_by_systems(input),
        "paired" => paired(input, case),
        "proportion" => proportions(input),
        "mcnemar" => mcnemar(input),
        "p_values" => p_values(input),
        "distribution" => distribution(input),
        "nemenyi_q" => nemenyi_q(input),
        "power" => power(input),
        kind => unreachable!("kind {kind}"),
    };
    let Value::Object(found) = found else {
        unreachable!("quantities by name")
    };
    Outcome::Values(found)
}

/// The numbers of a list.
pub fn floats(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap();
    list.iter().map(|x| float(x).unwrap()).collect()
}

/// A list as the vectors write it.
pub fn numbers(values: &[f64]) -> Value {
    values.iter().map(|&x| number(x)).collect()
}

fn bounds(interval: Interval) -> Value {
    numbers(&[interval.low, interval.high])
}

fn proportions(input: &Value) -> Value {
    let of = |method| {
        let successes = input["successes"].as_u64().unwrap();
        let n = input["n"].as_u64().unwrap();
        bounds(proportion(successes, n, input["level"].as_f64().unwrap(), method).unwrap())
    };
    json!({
        "wilson": of(ProportionMethod::Wilson),
        "exact": of(ProportionMethod::ClopperPearson),
        "wilson_cc": of(ProportionMethod::WilsonCorrected),
        "wald": of(ProportionMethod::Wald),
    })
}

fn mcnemar(input: &Value) -> Value {
    let counts = McNemar {
        only_first: input["only_first_right"].as_u64().unwrap(),
        only_second: input["only_second_right"].as_u64().unwrap(),
    };
    if counts == McNemar::default() {
        return json!({"exact_p": counts.exact()});
    }
    let chi = |(chi2, p): (f64, f64)| json!({"chi2": chi2, "p": p});
    json!({
        "exact_p": counts.exact(),
        "mid_p": counts.mid_p(),
        "chi2": chi(counts.chi_squared(false)),
        "chi2_corrected": chi(counts.chi_squared(true)),
    })
}

fn p_values(input: &Value) -> Value {
    let p = floats(&input["p"]);
    let mut found = Map::new();
    for (name, correction) in [
        ("bonferroni", Correction::Bonferroni),
        ("holm", Correction::Holm),
        ("hochberg", Correction::Hochberg),
        ("benjamini_hochberg", Correction::BenjaminiHochberg),
        ("benjamini_yekutieli", Correction::BenjaminiYekutieli),
    ] {
        let adjusted = adjust(&p, correction).unwrap();
        let reject: Vec<bool> = adjusted.iter().map(|&p| p <= 0.05).collect();
        let both = json!({"adjusted": numbers(&adjusted), "reject_0.05": reject});
        found.insert(name.into(), both);
    }
    found.into()
}

fn distribution(input: &Value) -> Value {
    let each = |key: &str, f: &dyn Fn(&[f64]) -> f64| {
        let list = input[key].as_array().unwrap();
        let found: Vec<f64> = list.iter().map(|x| f(&floats(x))).collect();
        numbers(&found)
    };
    let z = floats(&input["z"]);
    let cdf: Vec<f64> = z.into_iter().map(special::normal_cdf).collect();
    let quantiles = [1.0, 2.0, 5.0, 30.0, 1000.0].map(|df| special::t_quantile(0.975, df));
    json!({
        "norm_cdf": numbers(&cdf),
        "t_two_sided_p": each("t", &|x| special::t_two_sided(x[0], x[1])),
        "chi2_sf": each("chi2", &|x| special::chi2_sf(x[0], x[1])),
        "f_sf": each("f", &|x| special::f_sf(x[0], x[1], x[2])),
        "t_ppf_0.975": numbers(&quantiles),
    })
}

fn nemenyi_q(input: &Value) -> Value {
    let systems = input["k"].as_array().unwrap();
    let q = |level: f64| {
        let of = |k: &Value| friedman::nemenyi_q(k.as_u64().unwrap() as usize, level);
        let found: Vec<f64> = systems.iter().map(of).collect();
        numbers(&found)
    };
    json!({"q": q(0.95), "q_0.10": q(0.90)})
}

fn power(input: &Value) -> Value {
    let [sd, delta, alpha, power] =
        ["sd_difference", "delta", "alpha", "power"].map(|key| input[key].as_f64().unwrap());
    json!({
        "n_required": examples_needed(sd, delta, alpha, power).unwrap(),
        "mde_at_1000": minimum_detectable(sd, 1000, alpha, power).unwrap(),
    })
}

fn bootstrap_mean(input: &Value) -> Value {
    let x = floats(&input["x"]);
    let draws = input["indices"].as_array().unwrap().iter();
    let values = draws.map(|indices| {
        let indices = indices.as_array().unwrap().iter();
        mean(indices.map(|i| x[i.as_u64().unwrap() as usize]))
    });
    let replicates = Replicates {
        point: mean(x.iter().copied()),
        values: values.collect(),
    };
    let bca = replicates.bca(0.95, &jackknife_mean(&x)).unwrap();
    json!({
        "point": replicates.point,
        "bootstrap_stderr": replicates.standard_error(),
        "analytic_stderr": standard_error(&x).unwrap(),
        "percentile": bounds(replicates.percentile(0.95).unwrap()),
        "basic": bounds(replicates.basic(0.95).unwrap()),
        "bca": {
            "z0": bca.z0,
            "acceleration": bca.acceleration,
            "alpha": bca.alpha,
            "interval": bounds(bca.interval),
        },
        "t_interval": bounds(t_interval(&x, 0.95).unwrap()),
    })
}

fn clustered(input: &Value) -> Value {
    let x = floats(&input["x"]);
    let cluster: Vec<u32> = floats(&input["cluster"])
        .iter()
        .map(|&c| c as u32)
        .collect();
    json!({
        "stderr_uncorrected": clustered_standard_error(&x, &cluster, false).unwrap(),
        "stderr_corrected": clustered_standard_error(&x, &cluster, true).unwrap(),
        "naive": standard_error(&x).unwrap(),
    })
}

fn paired(input: &Value, case: &Case) -> Value {
    let (a, b) = (floats(&input["a"]), floats(&input["b"]));
    let t = paired_t(&a, &b).unwrap();
    let signed = |zeros| wilcoxon(&a, &b, zeros).unwrap();
    let normal = |zeros| {
        let found = signed(zeros);
        json!({"statistic": found.statistic(), "p": number(found.p_normal)})
    };
    let permutation = permutation(&a, &b, 0, &Seed::of("", "")).unwrap();
    assert!(permutation.exact, "{}", case.id);
    let mut found = json!({
        "mean_difference": t.mean_difference,
        "t_test": {"t": number(t.t), "p": number(t.p)},
        "wilcoxon_wilcox": normal(Zeros::Wilcox),
        "wilcoxon_pratt": normal(Zeros::Pratt),
        "wilcoxon_zsplit": normal(Zeros::Split),
        "sign_test_p": sign_test(&a, &b).unwrap(),
        "permutation_exact_p": permutation.p,
    });
    let exact = signed(Zeros::Wilcox);
    if !exact.p_exact.is_nan() {
        found["wilcoxon_exact"] = json!({"statistic": exact.statistic(), "p": exact.p_exact});
    }
    found
}

fn tasks_by_systems(input: &Value) -> Value {
    let rows = input["scores_task_by_system"].as_array().unwrap();
    let tasks: Vec<Vec<f64>> = rows.iter().map(floats).collect();
    let found = friedman::friedman(&tasks).unwrap();
    let ranks = &found.mean_ranks;
    let cd = friedman::nemenyi_critical_difference(ranks.len(), tasks.len(), 0.95).unwrap();
    let cliques = friedman::cliques(ranks, |i, j| (ranks[i] - ranks[j]).abs() <= cd);
    json!({
        "chi2": found.chi2,
        "p": found.p,
        "iman_davenport_F": found.f,
        "iman_davenport_p": found.f_p,
        "mean_rank": ranks,
        "critical_difference_0.05": cd,
        "order": cliques.order,
        "cliques_positions": cliques.groups,
    })
}
