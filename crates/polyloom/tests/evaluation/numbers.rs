//! Numbers against the references: scores and probabilities, regression and correlation, survival.

use polyloom::evaluate::Result;
use polyloom::evaluate::metric::calibration::{
    Calibration, CalibrationError, calibration_equal_mass,
};
use polyloom::evaluate::metric::class_scores::{
    ClassScores, brier, brier_binary, log_loss, log_loss_binary, top_k_accuracy,
};
use polyloom::evaluate::metric::concordance::c_index;
use polyloom::evaluate::metric::correlation::{
    Correlation, KendallVariant, kendall, pearson, spearman,
};
use polyloom::evaluate::metric::curve::{Curve, MultiAuc, roc_auc, roc_auc_multi};
use polyloom::evaluate::metric::regression as reg;
use serde_json::{Map, Value, json};

use crate::labels::{numbers, said};
use crate::{Case, Outcome, float, number};

fn floats(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|x| float(x).unwrap())
        .collect()
}

fn flags(value: &Value) -> Vec<bool> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64() == Some(1.0))
        .collect()
}

fn scalar(value: Result<f64>) -> Value {
    said(value.map(number))
}

/// Only what the case asks for.
fn asked(case: &Case, quantities: Vec<(&str, Value)>) -> Outcome {
    let wanted = |key: &str| case.wants(key);
    let values: Map<String, Value> = quantities
        .into_iter()
        .filter(|(key, _)| wanted(key))
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    Outcome::Values(values)
}

fn gaps(errors: Result<CalibrationError>) -> Value {
    said(errors.map(|e| json!({ "l1": e.l1, "l2": e.l2, "max": e.max })))
}

pub fn probabilistic(case: &Case) -> Outcome {
    if case.input["kind"] == "binary" {
        binary(case)
    } else {
        multiclass(case)
    }
}

fn binary(case: &Case) -> Outcome {
    let (truth, scores) = (flags(&case.input["y_true"]), floats(&case.input["score"]));
    let weight = case.input.get("weight").map(floats);
    let weight = weight.as_deref();
    let curve = Curve::new(&truth, &scores, weight);
    let area = match weight {
        None => roc_auc(&truth, &scores),
        Some(_) => curve.clone().map(|c| c.roc_auc()),
    };
    let roc = curve.clone().map(|c| c.roc()).map(|roc| {
        json!({
            "fpr": numbers(roc.false_positive_rate),
            "tpr": numbers(roc.true_positive_rate),
            "thresholds": numbers(roc.thresholds),
        })
    });
    let ece = |bins| {
        let mut all = Calibration::new(bins).unwrap();
        gaps(all.add_binary(&truth, &scores).and_then(|()| all.finish()))
    };
    let values = vec![
        ("roc_auc", scalar(area)),
        (
            "average_precision",
            scalar(curve.clone().map(|c| c.average_precision())),
        ),
        (
            "pr_auc_trapezoid",
            scalar(curve.map(|c| c.pr_auc_trapezoid())),
        ),
        ("roc_curve", said(roc)),
        ("log_loss", scalar(log_loss_binary(&truth, &scores, weight))),
        ("brier", scalar(brier_binary(&truth, &scores, weight))),
        ("ece_width_5", ece(5)),
        ("ece_width_10", ece(10)),
        ("ece_width_15", ece(15)),
    ];
    asked(case, values)
}

fn multiclass(case: &Case) -> Outcome {
    let truth: Vec<u32> = serde_json::from_value(case.input["y_true"].clone()).unwrap();
    let rows: Vec<Vec<f64>> = case.input["prob"]
        .as_array()
        .unwrap()
        .iter()
        .map(floats)
        .collect();
    let values = rows.concat();
    let p = ClassScores::new(&values, rows[0].len()).unwrap();
    let area = |kind| scalar(roc_auc_multi(&truth, &p, kind));
    let ece = |bins| {
        let mut all = Calibration::new(bins).unwrap();
        gaps(all.add_classes(&truth, &p).and_then(|()| all.finish()))
    };
    let best = truth.iter().enumerate().map(|(i, &t)| {
        let (class, confidence) = p.best(i);
        (confidence, class == t as usize)
    });
    let (confidence, right): (Vec<f64>, Vec<bool>) = best.unzip();
    let mass = calibration_equal_mass(&confidence, &right, 10);
    let values = vec![
        ("roc_auc_ovr_macro", area(MultiAuc::OneVsRest)),
        ("roc_auc_ovr_weighted", area(MultiAuc::OneVsRestWeighted)),
        ("roc_auc_ovo_macro", area(MultiAuc::OneVsOne)),
        ("roc_auc_ovo_weighted", area(MultiAuc::OneVsOneWeighted)),
        ("log_loss", scalar(log_loss(&truth, &p, None))),
        ("brier_sum", scalar(brier(&truth, &p, None))),
        ("top_1_accuracy", scalar(top_k_accuracy(&truth, &p, 1))),
        ("top_2_accuracy", scalar(top_k_accuracy(&truth, &p, 2))),
        ("ece_width_10", ece(10)),
        ("ece_width_15", ece(15)),
        ("ece_mass_10", scalar(mass.map(|m| m.l1))),
    ];
    asked(case, values)
}

pub fn regression(case: &Case) -> Outcome {
    let (truth, predicted) = (floats(&case.input["y_true"]), floats(&case.input["y_pred"]));
    let means = reg::errors(&truth, &predicted).and_then(|e| e.finish());
    let of = |f: fn(&reg::ErrorMeans) -> f64| scalar(means.clone().map(|m| f(&m)));
    let pair =
        |c: Result<Correlation>| said(c.map(|c| json!({"r": number(c.r), "p": number(c.p)})));
    let tau_c = kendall(&truth, &predicted, KendallVariant::C);
    let values = vec![
        ("mse", of(|m| m.mse)),
        ("rmse", of(|m| m.rmse)),
        ("mae", of(|m| m.mae)),
        (
            "median_ae",
            scalar(reg::median_absolute_error(&truth, &predicted)),
        ),
        ("max_error", of(|m| m.max)),
        ("mape", of(|m| m.mape)),
        ("r2", scalar(reg::r2(&truth, &predicted))),
        (
            "explained_variance",
            scalar(reg::explained_variance(&truth, &predicted)),
        ),
        ("pearson", pair(pearson(&truth, &predicted))),
        ("spearman", pair(spearman(&truth, &predicted))),
        (
            "kendall_b",
            pair(kendall(&truth, &predicted, KendallVariant::B)),
        ),
        (
            "kendall_c",
            said(tau_c.map(|c| json!({ "r": number(c.r) }))),
        ),
    ];
    asked(case, values)
}

pub fn concordance(case: &Case) -> Outcome {
    let (time, score) = (floats(&case.input["time"]), floats(&case.input["score"]));
    let event = case.input["event"]
        .as_array()
        .map(|_| flags(&case.input["event"]));
    let found = scalar(c_index(&time, &score, event.as_deref()));
    asked(case, vec![("c_index", found)])
}
