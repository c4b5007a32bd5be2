//! Parquet columns of several kinds, read side by side.

use std::sync::Arc;

use ::parquet::data_type::{
    ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int32Type, Int64Type,
};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use serde_json::json;

use super::super::{Cell, Limits};
use super::{all, file};

/// Rows `i` from `from` on: a text (none where 3 divides), a date, two bytes, and a list of `i` and `i + 1` (none where 4 divides).
fn mixed_group(writer: &mut SerializedFileWriter<&mut Vec<u8>>, (from, n): (i32, i32)) {
    let mut group = writer.next_row_group().unwrap();
    let rows = || from..from + n;
    let mut column = group.next_column().unwrap().unwrap();
    let texts = rows().filter(|i| i % 3 != 0);
    let texts: Vec<ByteArray> = texts
        .map(|i| ByteArray::from(format!("t{i}").into_bytes()))
        .collect();
    let there: Vec<i16> = rows().map(|i| i16::from(i % 3 != 0)).collect();
    column
        .typed::<ByteArrayType>()
        .write_batch(&texts, Some(&there), None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let days: Vec<i32> = rows().collect();
    column
        .typed::<Int32Type>()
        .write_batch(&days, None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let two = |i: i32| FixedLenByteArray::from(ByteArray::from(vec![i as u8, 1]));
    let bytes: Vec<FixedLenByteArray> = rows().map(two).collect();
    column
        .typed::<FixedLenByteArrayType>()
        .write_batch(&bytes, None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    for i in rows() {
        if i % 4 == 0 {
            defined.push(0);
            repeated.push(0);
            continue;
        }
        values.extend([i64::from(i), i64::from(i) + 1]);
        defined.extend([2, 2]);
        repeated.extend([0, 1]);
    }
    column
        .typed::<Int64Type>()
        .write_batch(&values, Some(&defined), Some(&repeated))
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
}

#[test]
fn columns_of_all_kinds_stay_side_by_side_over_row_groups_and_batches() {
    let schema = "message m { optional binary t (UTF8); required int32 d (DATE); required fixed_len_byte_array(2) b;
        optional group l (LIST) { repeated group list { required int64 element; } } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut out = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut out, schema, Arc::default()).unwrap();
    for group in [(0, 3), (3, 1), (4, 6)] {
        mixed_group(&mut writer, group);
    }
    writer.close().unwrap();
    let (_dir, path) = file("m.parquet", &out);
    for most in [1, 4, 7, 100] {
        let limits = Limits {
            batch_rows: most,
            ..Limits::default()
        };
        let tables = all(&path, &limits).unwrap();
        assert!(tables.iter().rev().skip(1).all(|t| t.rows() == most));
        let rows = tables
            .iter()
            .flat_map(|t| (0..t.rows()).map(move |r| (t, r)));
        let mut seen = 0;
        for (i, (table, row)) in rows.enumerate() {
            let text = (i % 3 != 0).then(|| format!("t{i}"));
            assert_eq!(table.at(row, "t"), json!(text));
            assert_eq!(table.at(row, "d"), json!(format!("1970-01-{:02}", i + 1)));
            let column = table.column("b").unwrap();
            assert_eq!(column.cell(row), Cell::Bytes(&[i as u8, 1]));
            let list = (i % 4 != 0).then(|| vec![i, i + 1]);
            assert_eq!(table.at(row, "l"), json!(list));
            seen += 1;
        }
        assert_eq!(seen, 10);
    }
    let short = Limits {
        record_bytes: 1,
        ..Limits::default()
    };
    assert!(
        all(&path, &short)
            .unwrap_err()
            .to_string()
            .contains("has 2 bytes, the limit is 1")
    );
}
