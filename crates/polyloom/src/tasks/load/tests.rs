use super::*;
use serde_json::json;

fn spec(fields: &str, filter: &str, rows: &str) -> TaskSpec {
    let text = format!(
        "schema = \"polyloom.task/1\"\nid = \"t\"\ntype = \"classification\"\n[fields]\n{fields}\n[filter]\n{filter}\n\
         [source]\nkind = \"inline\"\nrows = [{rows}]\n[splits]\ntest = {{}}\n[labels]\nnames = [\"a\", \"b\"]\n"
    );
    match crate::tasks::read::toml(&text, "t.toml") {
        Ok(crate::tasks::read::Document::Task(mut spec)) => {
            for (name, slice) in [("first", "[:2]"), ("rest", "[2:]")] {
                let split = Split {
                    slice: slice.into(),
                    ..Split::default()
                };
                spec.splits.named.insert(name.into(), split);
            }
            *spec
        }
        other => panic!("{other:?}"),
    }
}

/// The values of a field in the rows of a split.
fn column(spec: &TaskSpec, split: &str, field: &str) -> Result<Vec<Value>> {
    let loader = Loader::new(spec, PathBuf::new(), Limits::default());
    let mut values = Vec::new();
    loader.rows(split, &mut |table| {
        let name = loader.column(field);
        values.extend((0..table.rows()).map(|i| table.at(i, name)));
        Ok(())
    })?;
    Ok(values)
}

const FOUR: &str = r#"
    { head = "A", body = "x", y = "a" }, { head = "B", body = "y", y = "b" },
    { head = "A", body = "x", y = "b" }, { head = " ", body = "z", y = "a" },
"#;

#[test]
fn a_template_is_a_column_of_its_own() {
    let task = spec("input = \"{{head}}: {{body}}\"\ntarget = \"y\"", "", FOUR);
    let found = column(&task, "test", "input").unwrap();
    assert_eq!(found, ["A: x", "B: y", "A: x", " : z"]);
    // Rows of another split are not rendered, and slices cut before.
    assert_eq!(column(&task, "rest", "input").unwrap(), ["A: x", " : z"]);
    // Prompts see the field by its name, and no column named as the template.
    let loader = Loader::new(&task, PathBuf::new(), Limits::default());
    let mut records = Vec::new();
    loader
        .rows("first", &mut |table| {
            records.extend((0..table.rows()).map(|i| loader.record(&table, i)));
            Ok(())
        })
        .unwrap();
    assert_eq!(records[1]["input"], "B: y");
    assert!(records.iter().all(|r| r.keys().all(|k| !k.contains("{{"))));
}

#[test]
fn a_template_over_what_a_row_lacks() {
    let rows = "{ a = \"1\", b = \"x\", y = \"a\" }, { a = \"2\", y = \"b\" }";
    let task = spec("input = \"{{a}} {{b}}\"\ntarget = \"y\"", "", rows);
    // The reader fills a missing column with null, which a template spells as Python does, or refuses.
    match column(&task, "test", "input") {
        Ok(found) => assert_eq!(found, ["1 x", "2 None"]),
        Err(error) => assert!(error.to_string().contains("row 2"), "{error}"),
    }
    let rows = "{ a = \"1\", y = \"a\" }";
    let task = spec("input = \"{{a}} {{absent}}\"\ntarget = \"y\"", "", rows);
    let told = column(&task, "test", "input").unwrap_err();
    assert_eq!(told.code(), "bad-template");
    assert!(told.to_string().contains("split `test`, row 1"), "{told}");
    let task = spec(
        "input = \"{{a}} {{absent}}\"\ntarget = \"y\"",
        "drop_if_missing = [\"input\"]",
        rows,
    );
    assert_eq!(column(&task, "test", "input").unwrap(), [] as [Value; 0]);
}

#[test]
fn only_the_first_of_equal_rows_is_kept() {
    let fields = "input = \"head\"\ninput2 = \"body\"\ntarget = \"y\"";
    let all = spec(fields, "", FOUR);
    assert_eq!(
        column(&all, "test", "target").unwrap(),
        ["a", "b", "b", "a"]
    );
    // By canonical names: the third row has the inputs of the first.
    let both = spec(fields, "dedupe_on = [\"input\", \"input2\"]", FOUR);
    assert_eq!(column(&both, "test", "target").unwrap(), ["a", "b", "a"]);
    // By a column, and by split: the third row is the first of its slice.
    let one = spec(fields, "dedupe_on = [\"y\"]", FOUR);
    assert_eq!(column(&one, "test", "input").unwrap(), ["A", "B"]);
    assert_eq!(
        column(&one, "rest", "input").unwrap(),
        [json!("A"), json!(" ")]
    );
    // A row that another filter drops is no earlier row.
    let filter = "dedupe_on = [\"body\"]\ndrop_if_missing = [\"input\"]";
    let rows = r#"{ head = "", body = "x", y = "a" }, { head = "A", body = "x", y = "b" }"#;
    let dropped = spec(fields, filter, rows);
    assert_eq!(column(&dropped, "test", "target").unwrap(), ["b"]);
    // Over a template.
    let made = spec(
        "input = \"{{head}}{{body}}\"\ntarget = \"y\"",
        "dedupe_on = [\"input\"]",
        FOUR,
    );
    assert_eq!(column(&made, "test", "target").unwrap(), ["a", "b", "a"]);
}

#[test]
fn the_rows_of_a_target() {
    let mut task = spec("input = \"head\"\ntarget = \"y\"", "", FOUR);
    let target = Target {
        name: "t".into(),
        column: "head".into(),
        kind: crate::tasks::spec::TaskType::Classification,
        labels: Vec::new(),
        metrics: Vec::new(),
        weight: 1.0,
        sample: "y == \"a\"".into(),
    };
    task.targets.push(target.clone());
    let loader = Loader::new(&task, PathBuf::new(), Limits::default());
    let mut rows = 0;
    let mut count = |table: Table| {
        rows += table.rows();
        Ok(())
    };
    // Two rows have y = a; one of them has a blank head.
    loader.rows_of("test", &target, &mut count).unwrap();
    assert_eq!(rows, 1);
}

#[test]
fn parts_of_splits_are_read_in_the_order_of_the_file() {
    let mut task = spec("input = \"body\"\ntarget = \"head\"", "", FOUR);
    let shuffled = |slice: &str| Split {
        slice: slice.into(),
        seed: Some(1),
        ..Split::default()
    };
    for (name, slice) in [("some", "[:50%]"), ("others", "[50%:]")] {
        task.splits.named.insert(name.into(), shuffled(slice));
    }
    let of: std::sync::Arc<[String]> = ["others".to_owned(), "some".to_owned()].into();
    let read = |keep: Option<&[bool]>| {
        let part = Part {
            of: of.clone(),
            keep: keep.map(Into::into),
        };
        let parts = Parts::from([("some".to_owned(), part)]);
        let loader = Loader::new(&task, PathBuf::new(), Limits::default()).with_parts(parts.into());
        let mut found = Vec::new();
        loader
            .rows("some", &mut |table| {
                found.extend((0..table.rows()).map(|i| table.at(i, "y")));
                Ok(())
            })
            .unwrap();
        found
    };
    // A part stands in the place of the split of its name, which it may be made of.
    assert_eq!(read(None), ["a", "b", "b", "a"]);
    assert_eq!(read(Some(&[true, true, false, false])), ["a", "b"]);
    // Rows beyond those that were numbered are left out.
    assert_eq!(read(Some(&[false, false, true])), ["b"]);
    // A row that stands twice is read once, whatever the split.
    task.filter.dedupe_on = vec!["body".into()];
    let part = Part { of, keep: None };
    let loader = Loader::new(&task, PathBuf::new(), Limits::default())
        .with_parts(std::sync::Arc::new(Parts::from([("all".to_owned(), part)])));
    let mut rows = 0;
    loader
        .rows("all", &mut |table| {
            rows += table.rows();
            Ok(())
        })
        .unwrap();
    assert_eq!(rows, 3);
}
