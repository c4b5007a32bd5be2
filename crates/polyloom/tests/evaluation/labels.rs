//! Labels against the references: one or several per example, and clusters.

use polyloom::evaluate::Result;
use polyloom::evaluate::metric::classification::KappaWeights;
use polyloom::evaluate::metric::clustering::Clustering;
use polyloom::evaluate::metric::confusion::{Confusion, Table, codes};
use polyloom::evaluate::metric::multilabel::Multilabel;
use polyloom::evaluate::metric::prf::{Average, Prf, PrfOptions, ZeroDivision};
use serde_json::{Map, Value, json};

use crate::{Case, Outcome, golden, number};

/// A quantity, or that it was refused.
pub fn said(value: Result<impl Into<Value>>) -> Value {
    match value {
        Ok(value) => value.into(),
        Err(why) => json!({ "error": why.to_string() }),
    }
}

pub fn numbers(values: impl IntoIterator<Item = f64>) -> Value {
    values.into_iter().map(number).collect()
}

fn triple(prf: &Prf) -> Value {
    json!({
        "precision": number(prf.precision),
        "recall": number(prf.recall),
        "f1": number(prf.f),
    })
}

pub fn classification(case: &Case) -> Outcome {
    let input = &case.input;
    let (classes, truth, predicted): (Vec<Value>, Vec<u32>, Vec<u32>);
    if let Some(file) = input["file"].as_str() {
        let (t, p) = tensors(file);
        (classes, truth, predicted) = (Vec::new(), t, p);
    } else if input["y_true"]
        .as_array()
        .unwrap()
        .iter()
        .any(Value::is_string)
    {
        let strings =
            |key: &str| -> Vec<String> { serde_json::from_value(input[key].clone()).unwrap() };
        let (c, t, p) = codes(&strings("y_true"), &strings("y_pred"));
        (classes, truth, predicted) = (c.into_iter().map(Value::from).collect(), t, p);
    } else {
        let ints = |key: &str| -> Vec<i64> { serde_json::from_value(input[key].clone()).unwrap() };
        let (c, t, p) = codes(&ints("y_true"), &ints("y_pred"));
        (classes, truth, predicted) = (c.into_iter().map(Value::from).collect(), t, p);
    }
    let weight: Option<Vec<f64>> = input
        .get("weight")
        .map(|w| serde_json::from_value(w.clone()).unwrap());
    // A listed class that never occurs gets an id of its own.
    let id = |label: &Value| {
        classes
            .iter()
            .position(|c| c == label)
            .unwrap_or(classes.len()) as u32
    };
    let listed: Option<Vec<u32>> = input["labels"]
        .as_array()
        .map(|l| l.iter().map(id).collect());
    let mut all = Confusion::default();
    let table = all
        .extend(&truth, &predicted, weight.as_deref())
        .and_then(|()| all.finish());
    let large = input.get("file").is_some();
    let mut found = classification_scores(&table, listed.as_deref());
    if large {
        found.remove("confusion");
        found.remove("per_class");
    } else {
        let labels = input
            .get("labels")
            .cloned()
            .unwrap_or(Value::Array(classes));
        found.insert("labels".into(), labels);
    }
    Outcome::Values(found)
}

fn classification_scores(table: &Result<Table>, listed: Option<&[u32]>) -> Map<String, Value> {
    let mut found = Map::new();
    let mut put = |key: &str, f: &dyn Fn(&Table) -> Result<Value>| {
        found.insert(key.into(), said(table.clone().and_then(|t| f(&t))));
    };
    put("accuracy", &|t| Ok(number(t.accuracy())));
    put("balanced_accuracy", &|t| Ok(number(t.balanced_accuracy())));
    put("balanced_accuracy_adjusted", &|t| {
        Ok(number(t.balanced_accuracy_adjusted()))
    });
    put("mcc", &|t| Ok(number(t.mcc())));
    put("cohen_kappa", &|t| {
        Ok(number(t.cohen_kappa(KappaWeights::None)))
    });
    put("confusion", &|t| {
        let matrix = t.matrix(listed.unwrap_or(t.classes()))?;
        Ok(matrix.into_iter().map(numbers).collect())
    });
    let options = PrfOptions::default();
    let averages = [
        ("micro", Average::Micro),
        ("macro", Average::Macro),
        ("weighted", Average::Weighted),
    ];
    for (key, average) in averages {
        put(key, &|t| Ok(triple(&t.prf(listed, average, &options)?)));
    }
    put("per_class", &|t| {
        let each = t.prf_per_class(listed, &options)?;
        Ok(json!({
            "precision": numbers(each.iter().map(|c| c.precision)),
            "recall": numbers(each.iter().map(|c| c.recall)),
            "f1": numbers(each.iter().map(|c| c.f)),
            "support": numbers(t.class_counts(listed)?.iter().map(|c| c.support)),
        }))
    });
    let others = [
        ("macro_f1_zero_division_1", 1.0, ZeroDivision::One),
        ("macro_f1_zero_division_nan", 1.0, ZeroDivision::Nan),
        ("macro_f_beta_2", 2.0, ZeroDivision::Zero),
    ];
    for (key, beta, zero_division) in others {
        let options = PrfOptions {
            beta,
            zero_division,
        };
        put(key, &|t| {
            Ok(number(t.prf(listed, Average::Macro, &options)?.f))
        });
    }
    found
}

/// The two tensors of bytes in a safetensors file.
fn tensors(file: &str) -> (Vec<u32>, Vec<u32>) {
    let bytes = std::fs::read(golden("evaluation").join(file)).unwrap();
    let (size, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*size) as usize);
    let header: Value = serde_json::from_slice(header).unwrap();
    let tensor = |name: &str| {
        assert_eq!(header[name]["dtype"], "U8");
        let at = |i: usize| header[name]["data_offsets"][i].as_u64().unwrap() as usize;
        data[at(0)..at(1)].iter().map(|&b| u32::from(b)).collect()
    };
    (tensor("y_true"), tensor("y_pred"))
}

pub fn multilabel(case: &Case) -> Outcome {
    let rows = |key: &str| -> Vec<Vec<bool>> {
        let rows: Vec<Vec<u8>> = serde_json::from_value(case.input[key].clone()).unwrap();
        let flags = |row: Vec<u8>| row.into_iter().map(|x| x == 1).collect();
        rows.into_iter().map(flags).collect()
    };
    let (truth, predicted) = (rows("y_true"), rows("y_pred"));
    let mut all = Multilabel::new(truth[0].len(), PrfOptions::default()).unwrap();
    for (t, p) in truth.iter().zip(&predicted) {
        all.add(t, p).unwrap();
    }
    let jaccard = all.jaccard_samples(ZeroDivision::One);
    let values = [
        ("subset_accuracy", said(all.subset_accuracy())),
        ("hamming_loss", said(all.hamming_loss())),
        ("micro", triple(&all.prf(Average::Micro).unwrap())),
        ("macro", triple(&all.prf(Average::Macro).unwrap())),
        ("weighted", triple(&all.prf(Average::Weighted).unwrap())),
        ("samples", triple(&all.prf_samples().unwrap())),
        ("hamming_score", said(jaccard.clone())),
        ("jaccard_samples_zero_division_1", said(jaccard)),
    ];
    Outcome::Values(values.map(|(k, v)| (k.to_owned(), v)).into_iter().collect())
}

pub fn clustering(case: &Case) -> Outcome {
    let ids = |key: &str| -> Vec<u32> { serde_json::from_value(case.input[key].clone()).unwrap() };
    let found = match Clustering::new(&ids("y_true"), &ids("y_pred")) {
        Ok(found) => found,
        Err(why) => return Outcome::Refused(why.to_string()),
    };
    let values = [
        ("homogeneity", number(found.homogeneity())),
        ("completeness", number(found.completeness())),
        ("v_measure", said(found.v_measure(1.0))),
        ("v_measure_beta_0.5", said(found.v_measure(0.5))),
        ("nmi", number(found.normalized_mutual_information())),
        ("ami", number(found.adjusted_mutual_information())),
        ("ari", number(found.adjusted_rand())),
        ("fowlkes_mallows", number(found.fowlkes_mallows())),
        ("mi", said(found.mutual_information())),
    ];
    Outcome::Values(values.map(|(k, v)| (k.to_owned(), v)).into_iter().collect())
}
