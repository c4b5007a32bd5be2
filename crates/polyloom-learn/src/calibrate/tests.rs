use polyloom::evaluate::metric::curve::roc_auc;
use polyloom_core::rng::Stream;

use super::*;

fn of_head(map: Option<Map>, threshold: Option<Threshold>) -> OfHead {
    OfHead {
        rows: 3,
        classes: vec!["no".into(), "yes".into()],
        map,
        before: None,
        after: None,
        threshold,
        errors: Errors::of(vec![0.5, 0.25, 0.75]),
        positive: 1,
    }
}

fn temperature(temperature: f64) -> OfHead {
    of_head(Some(Map::Temperature { temperature }), None)
}

/// The order of rows by the second class, and so the area under the ROC curve, is that of the logits under any temperature.
#[test]
fn temperature_keeps_the_order() {
    let draw = Stream::new(11, "order", 0);
    for case in 0..50u64 {
        let at = |i: u64| draw.normal(case * 1000 + i);
        let rows: Vec<[f32; 2]> = (0..60).map(|i| [at(2 * i), at(2 * i + 1)]).collect();
        let truth: Vec<bool> = (0..60)
            .map(|i| draw.bits(case * 1000 + 500 + i).is_multiple_of(3))
            .collect();
        // Far sharper ones make f32 probabilities of 1, which are equal; none turns an order round.
        let t = f64::from(draw.normal(case * 1000 + 900)).exp();
        let of = temperature(if case % 2 == 0 {
            t.clamp(0.5, 3.0)
        } else {
            t / 10.0
        });
        let plain = temperature(1.0);
        let scores = |of: &OfHead| -> Vec<f64> {
            let p = |row: &[f32; 2]| f64::from(of.probabilities(row).unwrap()[1]);
            rows.iter().map(p).collect()
        };
        let (before, after) = (scores(&plain), scores(&of));
        for i in 0..60 {
            for j in 0..60 {
                assert!(
                    before[i] > before[j] || after[i] <= after[j],
                    "{case}: {i}, {j}"
                );
            }
        }
        if case % 2 == 1 {
            continue;
        }
        assert_eq!(
            roc_auc(&truth, &before).unwrap(),
            roc_auc(&truth, &after).unwrap(),
            "{case}"
        );
    }
}

#[test]
fn maps_are_applied_to_logits() {
    // Logits 0 and ln 9 are 0.1 and 0.9; halved 1/4 and 3/4.
    let logits = [0.0, 9.0f32.ln()];
    let p = temperature(2.0).probabilities(&logits).unwrap();
    assert!(
        (p[0] - 0.25).abs() < 1e-6 && (p[1] - 0.75).abs() < 1e-6,
        "{p:?}"
    );
    let curve = Isotonic {
        scores: vec![0.0, 1.0],
        values: vec![0.0, 0.5],
    };
    let mut of = of_head(Some(Map::Isotonic { curve }), None);
    let p = of.probabilities(&logits).unwrap();
    assert!(
        (p[1] - 0.45).abs() < 1e-6 && (p[0] - 0.55).abs() < 1e-6,
        "{p:?}"
    );
    // A task with its classes the other way round.
    of.reorder(&[1, 0]);
    let p = of.probabilities(&[9.0f32.ln(), 0.0]).unwrap();
    assert!((p[0] - 0.45).abs() < 1e-6, "{p:?}");
    assert_eq!(of.classes, ["yes", "no"]);
    assert!(of_head(None, None).probabilities(&logits).is_none());
}

#[test]
fn a_cut_answers_in_place_of_the_likelier_class() {
    let cut = Threshold::fit(Rule::Fixed(0.25), &[0.5], &[true]);
    let mut of = of_head(None, Some(cut));
    assert_eq!(of.answer(&[0.75, 0.25]), Some(1));
    assert_eq!(of.answer(&[0.875, 0.125]), Some(0));
    of.reorder(&[1, 0]);
    assert_eq!(of.answer(&[0.25, 0.75]), Some(0));
    assert_eq!(of_head(None, None).answer(&[0.5, 0.5]), None);
    assert!(
        of.told()
            .unwrap()
            .contains("`yes` answered from 0.2500 on (0.25)")
    );
}

#[test]
fn files_are_read_as_they_are_written_and_damage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(CALIBRATION);
    let beside = || Calibration::beside(dir.path());
    let heads = [
        ("people/rich", temperature(1.0 / 3.0)),
        (
            "people/cook",
            of_head(
                None,
                Some(Threshold::fit(Rule::F1, &[0.125, 0.75], &[false, true])),
            ),
        ),
    ];
    let heads = heads.map(|(name, of)| (name.to_owned(), of));
    let whole = Calibration::new("validation", heads.into());
    let text = whole.text().unwrap();
    std::fs::write(&file, &text).unwrap();
    // Without a table.json beside it the file is another program's.
    assert_eq!(beside().unwrap(), None);
    std::fs::write(dir.path().join(TABLE), "{}").unwrap();
    assert_eq!(beside().unwrap(), Some(whole.clone()));
    let of = |labels: [&str; 2]| whole.of("people/rich", &labels.map(str::to_owned), dir.path());
    assert!(of(["no", "yes"]).unwrap().is_some());
    assert!(
        of(["yes", "no"])
            .unwrap_err()
            .to_string()
            .contains("has the classes no, yes")
    );
    for (from, to, want) in [
        ("\"version\":1", "\"version\":2", "is of version 2"),
        ("0.3333333333333333", "-1.0", "has the temperature -1"),
        ("0.3333333333333333", "1e999", CALIBRATION),
        ("\"cut\":0.4375", "\"cut\":1.4375", "has the cut 1.4375"),
        ("\"rule\":\"f1\"", "\"rule\":\"f9\"", "`f9` is no rule"),
        ("[0.25,0.5,0.75]", "[0.5,0.25,0.75]", "do not ascend"),
        ("[0.25,0.5,0.75]", "[0.25]", "another number of errors"),
        (
            "\"rows\":3,\"sorted\"",
            "\"rows\":18446744073709551615,\"sorted\"",
            "another number of errors",
        ),
        (
            "[\"no\",\"yes\"]",
            "[\"no\",\"yes\",\"both\"]",
            "of two classes",
        ),
        ("\"split\"", "\"spilt\"", "spilt"),
        ("}}}", "", CALIBRATION),
    ] {
        assert!(text.contains(from), "{from}: {text}");
        std::fs::write(&file, text.replace(from, to)).unwrap();
        let said = beside().unwrap_err().to_string();
        assert!(
            said.contains(want) && said.contains(CALIBRATION),
            "{to}: {said}"
        );
    }
}
