mod columns;

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

/// An Arrow file or stream of six rows.
fn arrow(stream: bool) -> Vec<u8> {
    use std::sync::Arc;

    use arrow_array::types::Int8Type;
    use arrow_array::{
        ArrayRef, BooleanArray, DictionaryArray, Int64Array, ListArray, RecordBatch, StringArray,
    };

    let text: ArrayRef = Arc::new(StringArray::from(vec![
        Some("a"),
        None,
        Some("ß"),
        Some("d"),
        Some("e"),
        Some("f"),
    ]));
    let whole: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5, 1 << 60]));
    let yes: ArrayRef = Arc::new(BooleanArray::from(vec![
        true, false, true, false, true, false,
    ]));
    let words: DictionaryArray<Int8Type> = vec!["x", "y", "x", "y", "x", "y"].into_iter().collect();
    let lists = ListArray::from_iter_primitive::<arrow_array::types::Float64Type, _, _>(
        (0..6).map(|i| Some(vec![Some(f64::from(i)), None])),
    );
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("t", text),
        ("n", whole),
        ("b", yes),
        ("d", Arc::new(words)),
        ("l", Arc::new(lists)),
    ];
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
            .unwrap();
    let mut out = Vec::new();
    if stream {
        let mut writer =
            arrow_ipc::writer::StreamWriter::try_new(&mut out, &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
    } else {
        let mut writer = arrow_ipc::writer::FileWriter::try_new(&mut out, &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
    }
    out
}

#[test]
fn arrow_files_and_streams_keep_their_types() {
    for stream in [false, true] {
        let (_dir, path) = file("a.arrow", &arrow(stream));
        let limits = Limits {
            batch_rows: 4,
            ..Limits::default()
        };
        let tables = all(&path, &limits).unwrap();
        let rows: Vec<usize> = tables.iter().map(Table::rows).collect();
        assert_eq!(rows, [4, 2]);
        assert_eq!(
            (tables[0].at(1, "t"), tables[0].at(2, "t")),
            (json!(null), json!("ß"))
        );
        assert_eq!(
            (tables[1].at(0, "n"), tables[1].at(1, "n")),
            (json!(5), json!(1i64 << 60))
        );
        assert_eq!(
            (tables[0].at(0, "b"), tables[0].at(1, "d")),
            (json!(true), json!("y"))
        );
        assert_eq!(tables[0].at(3, "l"), json!([3, null]));
    }
    assert!(refused("a.arrow", b"not arrow at all").contains("a.arrow: is no readable Arrow file"));
}

/// A PNG of this size and colour.
fn png(width: u32, height: u32) -> Vec<u8> {
    let mut out = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_pixel(width, height, image::Rgb([1, 2, 3]));
    image.write_to(&mut out, image::ImageFormat::Png).unwrap();
    out.into_inner()
}

#[test]
fn image_folders_give_pixels_and_labels() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    put("train/b/1.png", &png(3, 2));
    put("train/a/2.png", &png(3, 2));
    put("train/a/notes.txt", b"no image");
    put("test/a/9.raw", &[7; 18]);
    let limits = Limits::default();
    let read = |part: &str, size| {
        let mut out = Vec::new();
        images::read(dir.path(), part, size, &limits, &mut |t| {
            for row in 0..t.rows() {
                let Some(Cell::Bytes(pixels)) = t.column("image").map(|c| c.cell(row)) else {
                    panic!()
                };
                out.push((
                    t.at(row, "file"),
                    t.at(row, "label"),
                    pixels.to_vec(),
                    t.at(row, "channels"),
                ));
            }
            Ok(())
        })
        .map(|()| out)
    };
    let train = read("train", None).unwrap();
    let names: Vec<&str> = train.iter().map(|r| r.0.as_str().unwrap()).collect();
    assert_eq!(names, ["train/a/2.png", "train/b/1.png"]);
    assert_eq!((&train[1].1, &train[1].3), (&json!("b"), &json!(3)));
    assert_eq!(train[0].2, [1u8, 2, 3].repeat(6));
    assert_eq!(read("train", Some([2, 3, 1])).unwrap()[0].2.len(), 6);
    assert_eq!(read("test", Some([2, 3, 3])).unwrap()[0].2, [7; 18]);
    let told = |part: &str, size| read(part, size).unwrap_err().to_string();
    assert!(told("train", Some([9, 9, 3])).ends_with("is 2 x 3 pixels, source.size says 9 x 9"));
    assert!(told("test", Some([2, 2, 3])).ends_with("has 18 bytes, [2, 2, 3] needs 12"));
    assert!(told("test", None).contains("raw pixels"));
    put("train/c/3.jpg", b"\xff\xd8\xff\xe0 no picture");
    assert!(told("train", None).contains("3.jpg: is no readable image"));
    put(
        "manifest.csv",
        b"file,label,split\ntrain/b/1.png,seven,train\ntest/a/9.raw,eight,test\n",
    );
    assert_eq!(read("train", None).unwrap()[0].1, "seven");
    put("manifest.csv", b"file,label\n../secret.png,x\n");
    assert!(told("", None).contains("is no file below this folder"));
}

#[test]
fn a_picture_that_unpacks_to_gigabytes_is_refused_before() {
    // 50,000 x 50,000 in the header of a small file.
    let mut bytes = png(1, 1);
    bytes[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
    let crc = {
        let mut crc = u32::MAX;
        for byte in &bytes[12..29] {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 {
                    (crc >> 1) ^ 0xEDB8_8320
                } else {
                    crc >> 1
                };
            }
        }
        !crc
    };
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    let (_dir, path) = file("a.png", &bytes);
    let told = images::decode(&path, None, &Limits::default())
        .unwrap_err()
        .to_string();
    assert!(told.contains("50000 x 50000 pixels, more than"), "{told}");
}

#[test]
fn a_million_columns_are_read_or_refused() {
    let names: Vec<String> = (0..1_000_000).map(|i| i.to_string()).collect();
    let text = format!(
        "{}\n{}\n",
        names.join(","),
        vec!["1"; names.len()].join(",")
    );
    let (_dir, path) = file("a.csv", text.as_bytes());
    let tables = all(&path, &Limits::default()).unwrap();
    assert_eq!((tables.len(), tables[0].columns().len()), (1, 1_000_000));
    let row: Vec<String> = names[..2000]
        .iter()
        .map(|n| format!("\"{n}\": 1"))
        .collect();
    let (_dir, path) = file("a.jsonl", format!("{{{}}}\n", row.join(",")).as_bytes());
    let limits = Limits {
        columns: 1000,
        ..Limits::default()
    };
    assert!(
        all(&path, &limits)
            .unwrap_err()
            .to_string()
            .contains("2000 different keys")
    );
}

/// A Parquet file of two columns.
fn parquet_file() -> Vec<u8> {
    use std::sync::Arc;

    use ::parquet::basic::{Compression, ZstdLevel};
    use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use ::parquet::file::properties::WriterProperties;
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;

    let schema =
        parse_message_type("message m { optional binary t (UTF8); required int64 n; }").unwrap();
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(zstd).build();
    let mut out = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut out, Arc::new(schema), Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let texts: Vec<ByteArray> = (0..40)
        .map(|i| ByteArray::from(format!("text {i}").into_bytes()))
        .collect();
    column
        .typed::<ByteArrayType>()
        .write_batch(&texts, Some(&[1; 40]), None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<Int64Type>()
        .write_batch(&(0..40).collect::<Vec<i64>>(), None, None)
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    out
}

#[test]
fn a_parquet_column_that_unpacks_too_far_is_refused_before() {
    let (_dir, path) = file("a.parquet", &parquet_file());
    assert_eq!(all(&path, &Limits::default()).unwrap()[0].rows(), 40);
    let limits = Limits {
        unpacked_bytes: 100,
        ..Limits::default()
    };
    let told = all(&path, &limits).unwrap_err().to_string();
    assert!(
        told.contains("column `t` of row group 0 unpacks to"),
        "{told}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_files_are_errors_and_never_panics(
        which in 0usize..4, flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<proptest::sample::Index>(), short in any::<bool>(),
    ) {
        let (name, mut bytes) = match which {
            0 => ("a.parquet", parquet_file()),
            1 => ("a.arrow", arrow(false)),
            2 => ("a.arrow", arrow(true)),
            _ => ("a.png", png(5, 4)),
        };
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if short {
            bytes.truncate(cut.index(bytes.len()));
        }
        let (_dir, path) = file(name, &bytes);
        let limits = Limits { unpacked_bytes: 1 << 20, image_bytes: 1 << 20, ..Limits::default() };
        if which == 3 {
            let _ = images::decode(&path, None, &limits);
        } else {
            let _ = all(&path, &limits);
        }
    }
}

#[test]
fn a_panic_of_a_decoder_is_caught_on_its_thread_alone() {
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let into = told.clone();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload_as_str().unwrap_or_default().to_owned();
        into.lock()
            .unwrap()
            .push((text, super::panics_are_caught()));
    }));
    let value =
        super::quiet(|| super::quiet(|| panic!("inner 1")).is_none() && super::panics_are_caught());
    let failed = super::quiet(|| -> u8 { panic!("outer 1") });
    let other = std::thread::spawn(|| panic!("other 1")).join();
    std::panic::set_hook(before);
    assert!(value == Some(true) && failed.is_none() && other.is_err());
    assert!(!super::panics_are_caught());
    let mut told = told.lock().unwrap().clone();
    // Other tests may panic meanwhile.
    told.retain(|(text, _)| text.ends_with(" 1"));
    let told: Vec<(&str, bool)> = told.iter().map(|(t, c)| (&**t, *c)).collect();
    assert_eq!(
        told,
        [("inner 1", true), ("outer 1", true), ("other 1", false)]
    );
}
