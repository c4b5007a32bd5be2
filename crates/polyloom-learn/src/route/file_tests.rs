//! Files of routers, and what routers do that came from them.

use super::super::{Labelled, MlpFit, Tap};
use super::*;

fn examples() -> Labelled {
    let values = vec![
        3.0, 0.1, 2.5, -0.2, 0.0, 2.0, 0.3, 4.0, -2.0, -2.0, -1.0, -1.5,
    ];
    Labelled {
        points: Points::new(values, 2).unwrap(),
        labels: vec![0, 0, 1, 1, 2, 2],
    }
}

/// No loss for the expert that a row belongs to, 1 for the others.
fn losses(x: &Labelled) -> Predicted {
    let all: Vec<f32> = x
        .labels
        .iter()
        .flat_map(|l| (0..3).map(move |e| f32::from(u8::from(e != *l))))
        .collect();
    Predicted::fit((&x.points, &all), None, 3, Costs::new())
}

fn routers() -> Vec<Router> {
    let (x, n) = (examples(), 3);
    let sources = ["a", "b", "c"].map(str::to_owned);
    let mlp = MlpFit {
        epochs: 3,
        ..MlpFit::default()
    };
    let rules = [
        Rule::Centroid(Centroid::fit(&x, n, 0.07)),
        Rule::Knn(Knn::fit(&x, n, 2, 0.07)),
        Rule::Linear(Linear::fit(&x, None, n).0),
        Rule::Mlp(Box::new(mlp.fit(&x, None, n).0)),
        Rule::Pilots(Pilots::empty(2).of_labels(&x, &sources, 2).unwrap()),
        Rule::Predicted(Box::new(Predicted {
            costs: Costs::from([("bytes".to_owned(), vec![1.0, 2.0, 3.0])]),
            ..losses(&x)
        })),
    ];
    let made = rules.into_iter().map(|rule| Router {
        experts: sources
            .iter()
            .map(|name| Expert {
                name: name.clone(),
                path: Some(format!("experts/{name}")),
                task: None,
            })
            .collect(),
        tap: Tap::Layer(1),
        reads: Reads {
            model: Some("base".into()),
            fingerprint: Some("f".into()),
            max_length: Some(64),
            preprocessor: Some(serde_json::json!({"do_resize": false})),
        },
        rule,
        fitted: serde_json::Map::new(),
    });
    made.collect()
}

#[test]
fn files_give_routers_back() {
    let dir = tempfile::tempdir().unwrap();
    for router in routers() {
        let file = dir
            .path()
            .join(format!("{}.safetensors", router.method().word()));
        router.save(&file, false, false).unwrap();
        assert!(router.save(&file, false, false).is_err());
        assert_eq!(Router::open(&file).unwrap(), router);
        // A file cut or changed anywhere is refused or read, never a panic.
        let whole = std::fs::read(&file).unwrap();
        let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        for at in (8..header + 8).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] = bytes[at].wrapping_add(1);
            std::fs::write(&file, &bytes).unwrap();
            if let Ok(read) = Router::open(&file) {
                let x = Points::new(vec![0.5; read.width()], read.width()).unwrap();
                read.decide_all(&x).unwrap();
            }
        }
    }
}

#[test]
fn every_rule_tells_its_examples_apart_and_weights_sum_to_one() {
    let x = examples();
    for router in routers() {
        let all = router.decide_all(&x.points).unwrap();
        for (one, (row, label)) in all.iter().zip(x.points.rows().zip(&x.labels)) {
            let alone = router.decide(row).unwrap();
            assert_eq!(alone.expert, one.expert);
            assert!((one.weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            if router.method() != Method::Mlp {
                assert_eq!(one.expert, Some(*label as usize), "{:?}", router.method());
            }
        }
        assert!(router.decide(&[1.0]).is_err());
        assert!(router.decide(&[f32::NAN, 1.0]).is_err());
    }
}

#[test]
fn experts_come_and_go_without_training() {
    let x = examples();
    let more = Points::new(vec![2.0, -2.0, 3.0, -2.5], 2).unwrap();
    let expert = Expert {
        name: "d".into(),
        path: None,
        task: None,
    };
    for mut router in routers() {
        let before = router.clone();
        if matches!(
            router.method(),
            Method::Linear | Method::Mlp | Method::PredictedLoss
        ) {
            assert!(router.add(expert.clone(), &more, 1).is_err());
            assert!(router.remove("a").is_err());
            continue;
        }
        router.add(expert.clone(), &more, 2).unwrap();
        assert!(router.add(expert.clone(), &more, 2).is_err());
        assert_eq!(router.decide(more.row(0)).unwrap().expert, Some(3));
        router.remove("d").unwrap();
        assert_eq!(router, before);
        router.remove("a").unwrap();
        let found = router.decide(x.points.row(4)).unwrap().expert;
        assert_eq!(found, Some(1), "{:?}", router.method());
        assert!(router.remove("a").is_err());
        router.remove("b").unwrap();
        assert!(router.remove("c").is_err());
    }
}
