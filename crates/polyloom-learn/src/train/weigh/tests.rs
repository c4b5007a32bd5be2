//! Weights by hand, and what is refused.

use polyloom::evaluate::board::score::examples::Asked;
use polyloom::tasks::spec::TaskType;

use super::*;
use crate::tasks::Feature;
use crate::train::Recipe;

fn head(name: &str, kind: HeadKind, labels: &[&str]) -> Head {
    let labels = labels.iter().map(|l| (*l).to_owned()).collect();
    Head::zeros(name, Feature::Goal, kind, labels, 1).unwrap()
}

/// Four rows of class no, yes, no, no, and one without a label.
fn rows(weights: Option<Vec<f32>>) -> Rows {
    let class = |c: u32| Some(Wanted::Class(c));
    Rows {
        asked: vec![Asked {
            target: "rich".into(),
            kind: TaskType::Classification,
            classes: vec!["no".into(), "yes".into()],
            discovered: false,
            pixels: None,
        }],
        ids: (0..5).map(|i| i.to_string()).collect(),
        wanted: vec![vec![class(0), class(1), None, class(0), class(0)]],
        weights,
        ..Rows::default()
    }
}

fn said(text: &str) -> std::result::Result<ClassWeight, String> {
    let table: toml::Table = format!("x = {text}").parse().unwrap();
    ClassWeight::try_from(table["x"].clone())
}

fn weighed(text: &str, weights: Option<Vec<f32>>) -> Result<Option<Vec<f32>>> {
    let head = head("t/rich", HeadKind::Classification, &["no", "yes"]);
    let said = said(text).unwrap();
    let found = by_head(Some(&said), std::slice::from_ref(&head))?;
    let rows = rows(weights);
    let factors = factors(found[0].unwrap(), &head, &rows, 0)?;
    Ok(super::weights(&rows, 0, Some(&factors)))
}

#[test]
fn by_hand() {
    // 4 rows of 2 classes: 4 / (2 * 3) and 4 / (2 * 1).
    let third = 2.0 / 3.0;
    let plain = weighed("\"balanced\"", None).unwrap().unwrap();
    assert_eq!(plain, [third, 2.0, 1.0, third, third]);
    // Sums of weights 4 and 12: 16 / 8 and 16 / 24; a row of weight 2 is two rows.
    let own = Some(vec![1.0, 12.0, 5.0, 2.0, 1.0]);
    let both = weighed("\"balanced\"", own.clone()).unwrap().unwrap();
    assert_eq!(both, [2.0, 8.0, 5.0, 4.0, 2.0]);
    for text in [
        "{ yes = 3 }",
        "{ yes = 3.0, no = 1.0 }",
        "{ rich = { yes = 3 } }",
    ] {
        let found = weighed(text, own.clone()).unwrap().unwrap();
        assert_eq!(found, [1.0, 36.0, 5.0, 2.0, 1.0], "{text}");
    }
    assert_eq!(weights(&rows(None), 0, None), None);
    assert_eq!(weights(&rows(own.clone()), 0, None), own);
}

#[test]
fn forms_go_there_and_back() {
    for text in [
        "\"balanced\"",
        "{ yes = 3.0 }",
        "{ job = { cook = 2.0 }, rich = \"balanced\" }",
    ] {
        let one = said(text).unwrap();
        assert_eq!(ClassWeight::try_from(one.toml()).unwrap(), one);
    }
    for (text, why) in [
        ("\"even\"", "not \"even\""),
        ("3", "not 3"),
        ("{}", "not {}"),
        ("{ yes = 0 }", "above 0"),
        ("{ yes = -1.0 }", "above 0"),
        ("{ yes = inf }", "above 0"),
        (
            "{ yes = 1.0, rich = \"balanced\" }",
            "`rich` is \"balanced\", no number",
        ),
        ("{ rich = \"even\" }", "not \"even\""),
        ("{ rich = { yes = \"much\" } }", "no number"),
    ] {
        let told = said(text).unwrap_err();
        assert!(told.contains(why), "{text}: {told}");
    }
}

#[test]
fn what_there_is_not_is_refused() {
    let heads = [
        head("t/rich", HeadKind::Classification, &["no", "yes"]),
        head("t/hours", HeadKind::Regression, &[]),
        head("t/job", HeadKind::Classification, &["cook", "clerk"]),
    ];
    let told = |text: &str, heads: &[Head]| {
        let said = said(text).unwrap();
        let error = by_head(Some(&said), heads).unwrap_err();
        format!("{error} {error:?}")
    };
    let balanced = said("\"balanced\"").unwrap();
    let found = by_head(Some(&balanced), &heads).unwrap();
    assert!(found[0].is_some() && found[1].is_none() && found[2].is_some());
    assert!(told("{ yes = 3.0 }", &heads).contains("t/rich, t/job"));
    assert!(told("\"balanced\"", &heads[1..2]).contains("no target is one class"));
    assert!(told("{ hours = \"balanced\" }", &heads).contains("regression"));
    assert!(told("{ rihc = \"balanced\" }", &heads).contains("did you mean `rich`"));
    let twice = [
        heads[0].clone(),
        head("u/rich", HeadKind::Classification, &["a", "b"]),
    ];
    assert!(told("{ rich = \"balanced\" }", &twice).contains("t/rich, u/rich"));
    let whole = said("{ \"u/rich\" = \"balanced\" }").unwrap();
    assert!(by_head(Some(&whole), &twice).unwrap()[1].is_some());
    let class = weighed("{ yse = 2.0 }", None).unwrap_err();
    assert!(class.to_string().contains("no class `yse`"));
    assert!(format!("{class:?}").contains("did you mean `yes`"));
}

#[test]
fn keys_that_count_rows_alike_do_not_go_with_it() {
    let told = |more: &str| {
        let text = format!(
            "[base]\npath = \"m\"\n[train]\ntasks = [\"a\"]\nclass_weight = \"balanced\"\n{more}"
        );
        Recipe::read(&text, "f", &[]).map_err(|e| e.to_string())
    };
    assert!(told("").is_ok());
    for more in [
        "optimiser = \"sophia_g\"\n",
        "[train.head]\nstart = \"probe\"\n",
        "[train.chain]\nloss = \"ordered\"\n",
        "[train.language]\n",
        "[train.fuse]\nsources = [\"x\"]\n",
        "[train.representation]\nmethod = \"rep_mtl\"\n",
    ] {
        let said = told(more).unwrap_err();
        assert!(said.contains("counts rows alike"), "{more}: {said}");
    }
    let text = "[train]\ntasks = [\"a\"]\nclass_weight = 3\n";
    let said = Recipe::read(text, "loom.toml", &[])
        .unwrap_err()
        .to_string();
    assert!(said.starts_with("loom.toml:3"), "{said}");
}
