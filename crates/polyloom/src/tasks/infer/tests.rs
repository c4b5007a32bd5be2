use super::*;

const PEOPLE: &str = "person_id,age,job,note,city,income,hours\n";

fn people() -> String {
    let row = |i: usize| {
        let job = ["cook", "clerk", "judge"][i % 3];
        let city = ["Ulm", "Bonn"][i % 2];
        let high = ["no", "yes"][usize::from(i.is_multiple_of(4))];
        format!(
            "p{i},{},{job},this is a long note {i},{city},{high},{}.5\n",
            20 + i % 50,
            i % 9
        )
    };
    PEOPLE.to_owned() + &(0..60).map(row).collect::<String>()
}

fn run(wishes: &Wishes) -> Result<(TaskSpec, Vec<Inferred>)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("My People.csv");
    std::fs::write(&path, people()).unwrap();
    infer(&path, wishes, &Limits::default())
}

#[test]
fn types_targets_and_ids_are_inferred() {
    let wishes = Wishes {
        targets: vec!["income".into(), "hours".into()],
        group: Some("city".into()),
        ..Wishes::default()
    };
    let (spec, columns) = run(&wishes).unwrap();
    let roles: Vec<&str> = columns.iter().map(|c| c.role.name()).collect();
    assert_eq!(
        roles,
        [
            "id",
            "numeric",
            "categorical",
            "text",
            "group",
            "target",
            "target"
        ]
    );
    assert_eq!(spec.id, "my_people");
    let kinds: Vec<TaskType> = spec.targets.iter().map(|t| t.kind).collect();
    assert_eq!(kinds, [TaskType::Classification, TaskType::Regression]);
    assert_eq!(spec.targets[0].labels, ["no", "yes"]);
    assert_eq!(spec.fields.id, "person_id");
    assert!(super::super::validate::task(&spec).is_empty());
    let written = toml::to_string(&spec).unwrap();
    let again = super::super::read::toml(&written, "x").unwrap();
    assert_eq!(again, super::super::read::Document::Task(Box::new(spec)));
}

#[test]
fn a_wrong_column_names_the_nearest() {
    let wishes = Wishes {
        targets: vec!["incom".into()],
        ..Wishes::default()
    };
    let error = run(&wishes).unwrap_err();
    assert!(
        error.to_string().ends_with("has no column `incom`"),
        "{error}"
    );
    assert_eq!(error.hints(), ["did you mean `income`?"]);
    assert!(
        run(&Wishes::default())
            .unwrap_err()
            .to_string()
            .contains("no target")
    );
}

#[test]
fn a_text_with_one_label_is_a_text_task() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.csv");
    let rows: String = (0..20)
        .map(|i| format!("a text of some words {i},{}\n", ["x", "y"][i % 2]))
        .collect();
    std::fs::write(&path, format!("text,label\n{rows}")).unwrap();
    let wishes = Wishes {
        targets: vec!["label".into()],
        ..Wishes::default()
    };
    let (spec, _) = infer(&path, &wishes, &Limits::default()).unwrap();
    assert_eq!(
        (spec.kind, &*spec.fields.input),
        (Some(TaskType::Classification), "text")
    );
    assert!(spec.targets.is_empty() && spec.table.is_none());
    assert!(super::super::validate::task(&spec).is_empty());
}

#[test]
fn what_stands_for_a_missing_number_is_none_and_words_stay_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.csv");
    let mut text = String::from("age,born,kind,grade,score\n");
    for i in 0..60 {
        let or = |every: usize, word: &str, x: String| {
            if i % every == 1 { word.to_owned() } else { x }
        };
        let age = or(7, "NA", format!("{}", 20 + i));
        let born = or(9, "null", format!("20{:02}-02-03", 10 + i % 40));
        let kind = or(5, "None", ["a", "b"][i % 2].to_owned());
        let grade = or(11, "NaN", format!("{}", i % 3));
        let score = or(13, "#N/A", format!("{i}.5"));
        text += &format!("{age},{born},{kind},{grade},{score}\n");
    }
    std::fs::write(&path, text).unwrap();
    let wishes = Wishes {
        targets: vec!["grade".into(), "score".into()],
        ..Wishes::default()
    };
    let (spec, columns) = infer(&path, &wishes, &Limits::default()).unwrap();
    let found: Vec<(&str, u64, usize)> = columns
        .iter()
        .map(|c| (c.role.name(), c.missing, c.distinct))
        .collect();
    assert_eq!(found[0], ("numeric", 9, 51));
    assert_eq!(found[1].0, "numeric");
    assert_eq!(found[2], ("categorical", 0, 3));
    assert_eq!(found[3], ("target", 6, 3));
    assert_eq!(found[4], ("target", 5, 55));
    let kinds: Vec<TaskType> = spec.targets.iter().map(|t| t.kind).collect();
    assert_eq!(kinds, [TaskType::Classification, TaskType::Regression]);
    assert!(spec.targets[0].labels.is_empty());
}
