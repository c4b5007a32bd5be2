//! As `bodies.rs`, for files that `polyloom-learn` reads: what is accepted answers rows of any kind without a panic.

use std::path::Path;

use polyloom::evaluate::board::score::examples::{ColumnKind, Field};
use polyloom_learn::calibrate::{CALIBRATION, Calibration, Level};
use polyloom_learn::forest::{self, Forest, UNKNOWN, Values};
use polyloom_learn::table::{Preparation, TABLE};

/// A target: its name, which is also its folder under `seeds/`, and its body.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All targets.
#[allow(dead_code, reason = "each fuzz program uses one")]
pub const TARGETS: &[Target] = &[
    ("forest", forest),
    ("calibration", calibration),
    ("table", table),
];

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).expect("a file");
    }
    folder
}

/// Trees, in the file of a model's weights.
pub fn forest(bytes: &[u8]) -> bool {
    let dir = folder(&[("model.safetensors", bytes)]);
    let Ok(read) = Forest::open(&dir.path().join("model.safetensors")) else {
        return false;
    };
    let column = |f: &forest::Feature| forest::Column {
        name: f.name.clone(),
        values: match f.categories {
            None => Values::Number(vec![0.0, f32::NAN, f32::INFINITY]),
            Some(_) => Values::Category {
                codes: vec![0, UNKNOWN, 77],
                cardinality: 5,
            },
        },
    };
    let rows = forest::Table {
        rows: 3,
        columns: read.features.iter().map(column).collect(),
        weights: None,
    };
    read.predict(&rows).expect("answers");
    assert_eq!(read.importance().len(), read.features.len());
    true
}

/// What was fitted on validation rows.
pub fn calibration(bytes: &[u8]) -> bool {
    let dir = folder(&[(CALIBRATION, bytes), (TABLE, b"{}")]);
    let Ok(Some(read)) = Calibration::beside(dir.path()) else {
        return false;
    };
    for (name, head) in &read.heads {
        for said in [&[][..], &[0.5], &[0.3, 0.7], &[f32::NAN; 2], &[0.1; 40]] {
            if let Some(class) = head.answer(said) {
                assert!(class < 2, "{class}");
            }
        }
        let _ = head.told();
        if let Ok(most) = head.errors.quantile(Level::USUAL, name) {
            assert!(most.is_finite() && most >= 0.0, "{most}");
        }
    }
    read.text().expect("its bytes");
    true
}

/// What prepares rows.
pub fn table(bytes: &[u8]) -> bool {
    let dir = folder(&[(TABLE, bytes)]);
    let Ok(read) = Preparation::read(Path::new(dir.path())) else {
        return false;
    };
    let columns = read.asked();
    let reader = read.reader(&columns).expect("its own columns");
    let odd = [
        "",
        "cook",
        "a word of more than fifteen bytes",
        "12.0",
        "東京 \0",
    ];
    for (i, x) in [0.0, -1e308, 1e308, f64::MIN_POSITIVE, 3.0]
        .into_iter()
        .enumerate()
    {
        let fields = columns.iter().enumerate().map(|(at, c)| match c.kind {
            _ if at % 5 == i => Field::Missing,
            ColumnKind::Number => Field::Number(x),
            ColumnKind::Word | ColumnKind::Text => Field::Word(odd[i]),
        });
        // An encoder of texts is not open here, and says so.
        let Ok(row) = reader.row(&fields.collect::<Vec<_>>()) else {
            assert!(read.encoder().is_some());
            continue;
        };
        assert_eq!(row.numbers.len(), read.numeric());
        assert!(row.numbers.iter().all(|x| x.is_finite()), "{row:?}");
        let known = read.categories();
        assert_eq!(row.codes.len(), known.len());
        assert!(
            row.codes
                .iter()
                .zip(known)
                .all(|(code, n)| (*code as usize) < n)
        );
    }
    read.text().expect("its bytes");
    true
}
