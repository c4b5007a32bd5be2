//! Family `statistics`.

use polyloom::evaluate::statistics::mcnemar::McNemar;
use polyloom::evaluate::statistics::multiplicity::{Correction, adjust};
use polyloom::evaluate::statistics::power::{examples_needed, minimum_detectable};
use polyloom::evaluate::statistics::proportion::{ProportionMethod, proportion};
use polyloom::evaluate::statistics::{Interval, special};
use serde_json::{Map, Value, json};

use super::{Case, Outcome, float, number};

pub fn solve(case: &Case) -> Outcome {
    let input = &case.input;
    let found = match input["kind"].as_str().unwrap() {
        "proportion" => proportions(input),
        "mcnemar" => mcnemar(input),
        "p_values" => p_values(input),
        "distribution" => distribution(input),
        "nemenyi_q" => nemenyi_q(input),
        "power" => power(input),
        _ => return Outcome::NotBuilt,
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
        let of = |k: &Value| special::range_quantile(level, k.as_u64().unwrap() as usize);
        let found: Vec<f64> = systems.iter().map(|k| of(k) / 2f64.sqrt()).collect();
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
