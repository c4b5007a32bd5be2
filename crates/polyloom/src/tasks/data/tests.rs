use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn all(path: &Path, limits: &Limits) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    read(path, kind_of(path).unwrap(), limits, &mut |t| {
        tables.push(t);
        Ok(())
    })?;
    Ok(tables)
}

fn refused(name: &str, bytes: &[u8]) -> String {
    let (_dir, path) = file(name, bytes);
    let limits = Limits {
        record_bytes: 100_000,
        ..Limits::default()
    };
    all(&path, &limits)
        .unwrap_err()
        .to_string()
        .replace(&*path.display().to_string(), name)
}

#[test]
fn csv_rows_are_text_and_empty_fields_are_missing() {
    let (_dir, path) = file("a.csv", b"\xef\xbb\xbfid,text\n1,\"a, b\"\n2,\n");
    let tables = all(&path, &Limits::default()).unwrap();
    assert_eq!(tables.len(), 1);
    assert_eq!(tables[0].types(), [("id", "text"), ("text", "text")]);
    assert_eq!(tables[0].at(0, "text"), "a, b");
    assert_eq!(tables[0].at(1, "text"), serde_json::Value::Null);
}

#[test]
fn batches_follow_the_width_and_hold_all_rows() {
    let text: String = (0..100).fold("a,b\n".into(), |t, i| t + &format!("{i},x\n"));
    let (_dir, path) = file("a.csv", text.as_bytes());
    let limits = Limits {
        batch_cells: 60,
        ..Limits::default()
    };
    let tables = all(&path, &limits).unwrap();
    let rows: Vec<usize> = tables.iter().map(Table::rows).collect();
    assert_eq!(rows, [30, 30, 30, 10]);
    assert_eq!(count(&path, SourceKind::Csv, &limits).unwrap(), 100);
}

#[test]
fn hostile_files_are_refused_by_file_and_row() {
    assert_eq!(
        refused("a.csv", b"a,b\n1,2\n3\n"),
        "a.csv: row 2: (line 3) has 1 fields, the header has 2"
    );
    assert_eq!(
        refused("a.tsv", b"a\tb\n1\t\xff\n"),
        "a.tsv: row 1: column `b` is not UTF-8 text"
    );
    assert_eq!(
        refused("a.csv", b"a,a\n"),
        "a.csv: the header has `a` twice"
    );
    assert_eq!(
        refused("a.csv", b""),
        "a.csv: is empty; a header row is needed"
    );
    let open = [b"a\n\"".to_vec(), vec![b'x'; 300_000]].concat();
    assert_eq!(
        refused("a.csv", &open),
        "a.csv: row 1: is longer than 100000 bytes; is a quote left open?"
    );
    assert_eq!(
        refused("a.jsonl", b"{\"a\": 1}\n[1]\n"),
        "a.jsonl: row 2: is no JSON object"
    );
    assert!(refused("a.jsonl", b"{\"a\": \xff}\n").contains("row 1: is not UTF-8"));
    assert!(refused("a.jsonl", &[b'['; 3000]).contains("row 1: is not valid JSON"));
    assert!(refused("a.json", b"{\"a\": 1}").contains("holds no list of objects"));
    assert!(refused("a.parquet", b"PAR1").contains("is no readable Parquet file"));
    assert!(refused("a.parquet", &[b'x'; 100]).contains("is no readable Parquet file"));
}

#[test]
fn json_rows_may_differ_in_keys_and_types() {
    let (_dir, path) = file(
        "a.jsonl",
        b"{\"n\": 1, \"l\": [1, {\"k\": \"v\"}]}\n\n{\"n\": \"one\", \"new\": true}\n{\"big\": 9007199254740993}\n",
    );
    let table = &all(&path, &Limits::default()).unwrap()[0];
    assert_eq!(table.rows(), 3);
    assert_eq!(table.at(0, "l[1].k"), "v");
    assert_eq!(table.at(1, "n"), "one");
    assert_eq!(table.at(0, "n"), 1);
    assert_eq!(table.at(0, "new"), serde_json::Value::Null);
    assert_eq!(table.at(2, "big"), json!(9_007_199_254_740_993_u64));
    let (_dir, path) = file(
        "b.json",
        b"{\"canary\": \"x\", \"examples\": [{\"input\": \"q\"}]}",
    );
    assert_eq!(
        all(&path, &Limits::default()).unwrap()[0].at(0, "input"),
        "q"
    );
}

#[test]
fn wide_files_are_read() {
    let names: Vec<String> = (0..200_000).map(|i| format!("c{i}")).collect();
    let text = format!("{}\n{}\n", names.join(","), vec!["1"; 200_000].join(","));
    let (_dir, path) = file("a.csv", text.as_bytes());
    let limits = Limits {
        record_bytes: 8 << 20,
        ..Limits::default()
    };
    let tables = all(&path, &limits).unwrap();
    assert_eq!(tables[0].columns().len(), 200_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), which in 0usize..4) {
        let name = ["a.csv", "a.tsv", "a.jsonl", "a.json"][which];
        let (_dir, path) = file(name, &bytes);
        let _ = all(&path, &Limits::default());
    }

    #[test]
    fn quoted_fields_come_back(fields in proptest::collection::vec("[ -~\n\"]{1,12}", 1..5)) {
        let quoted: Vec<String> = fields.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect();
        let names: Vec<String> = (0..fields.len()).map(|i| format!("c{i}")).collect();
        let (_dir, path) = file("a.csv", format!("{}\n{}\n", names.join(","), quoted.join(",")).as_bytes());
        let table = &all(&path, &Limits::default()).unwrap()[0];
        for (name, field) in names.iter().zip(&fields) {
            prop_assert_eq!(table.at(0, name), field.as_str());
        }
    }
}
