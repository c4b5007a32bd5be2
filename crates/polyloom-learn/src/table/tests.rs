use polyloom::evaluate::board::score::examples::Field;

use super::rows::rank;
use super::*;

fn columns() -> Vec<Column> {
    let column = |name: &str, kind| Column {
        name: name.into(),
        kind,
    };
    vec![
        column("age", ColumnKind::Number),
        column("job", ColumnKind::Word),
        column("pay", ColumnKind::Number),
    ]
}

fn row(age: f64, job: Option<&str>, pay: Option<f64>) -> Vec<Field> {
    vec![
        Field::Number(age),
        job.map_or(Field::Missing, |w| Field::Word(w.into())),
        pay.map_or(Field::Missing, Field::Number),
    ]
}

fn fitted(scaling: Scaling) -> Preparation {
    let settings = Settings {
        rare: 2,
        scaling,
        clip: 1.5,
        ..Settings::default()
    };
    let mut fitting = Fitting::new(settings).unwrap();
    for (age, job, pay) in [
        (10.0, Some("cook"), Some(1.0)),
        (20.0, Some("cook"), None),
        (30.0, Some("judge"), Some(1.0)),
        (40.0, None, Some(1.0)),
        (50.0, None, Some(1.0)),
    ] {
        fitting.see(&columns(), &row(age, job, pay)).unwrap();
    }
    fitting.finish().unwrap()
}

#[test]
fn rows_by_hand() {
    let made = fitted(Scaling::Standard);
    assert_eq!((made.numeric(), made.categories()), (3, vec![3]));
    let all = columns();
    let reader = made.reader(&all).unwrap();
    // Deviation of 10..50 is the root of 200; pay is constant; rows without a job come before `cook` by name.
    let found = reader.row(&row(40.0, Some("cook"), None)).unwrap();
    assert!((found.numbers[0] - 10.0 / 200f32.sqrt()).abs() < 1e-6);
    assert_eq!(
        (&found.numbers[1..], &found.codes[..]),
        (&[0.0, 1.0][..], &[2][..])
    );
    // What is rare and what was never seen have code 0; far numbers are cut.
    let far = reader.row(&row(1e9, Some("judge"), Some(1.0))).unwrap();
    assert_eq!((far.numbers, far.codes), (vec![1.5, 0.0, 0.0], vec![0]));
    assert_eq!(reader.row(&row(30.0, None, Some(3.0))).unwrap().codes, [1]);
}

#[test]
fn ranks_by_hand() {
    let marks = [0.0, 0.0, 0.0, 1.0, 3.0];
    for (x, expected) in [
        (-5.0, 0.0),
        (0.0, 0.25),
        (0.5, 0.625),
        (1.0, 0.75),
        (2.0, 0.875),
        (9.0, 1.0),
    ] {
        assert_eq!(rank(&marks, x), expected, "{x}");
    }
    let made = fitted(Scaling::Quantile);
    let all = columns();
    let reader = made.reader(&all).unwrap();
    // 30 is the middle one of 10..50; 40 is at three quarters, 0.6745 deviations up; beyond the ends all are alike.
    let number = |age: f64| reader.row(&row(age, None, None)).unwrap().numbers[0];
    assert!(number(30.0).abs() < 1e-6 && (number(40.0) - 0.67449).abs() < 1e-4);
    assert_eq!(number(60.0), 1.5);
}

#[test]
fn other_tables_are_refused_where_training_rows_had_the_column() {
    let made = fitted(Scaling::Standard);
    let all = columns();
    let error = made.reader(&all[1..]).err().unwrap().to_string();
    assert!(error.contains("`age`, which is not there"), "{error}");
    // Pay was missing in training: it may be missing again.
    assert!(made.reader(&all[..2]).is_ok());
    let mut words = columns();
    words[0].kind = ColumnKind::Word;
    assert!(made.reader(&words).is_err());
    let mut fitting = Fitting::default();
    fitting.see(&columns(), &row(1.0, None, None)).unwrap();
    assert!(fitting.see(&words, &[Field::Word("a".into())]).is_err());
}

#[test]
fn groups_have_places_and_are_no_features() {
    let mut all = columns();
    all.push(Column {
        name: "school".into(),
        kind: ColumnKind::Number,
    });
    let of = |school: Field| {
        let mut fields = row(1.0, None, None);
        fields.push(school);
        fields
    };
    let mut fitting = Fitting::default().by_group("school".into());
    for school in [10.0, 9.0, 10.0] {
        fitting.see(&all, &of(Field::Number(school))).unwrap();
    }
    fitting.see(&all, &of(Field::Missing)).unwrap();
    let made = fitting.finish().unwrap();
    // Numbers by value, whatever their text's order.
    assert_eq!(made.groups().unwrap().values, ["9", "10"]);
    assert_eq!(made.columns().len(), 3);
    let group = |columns: &[Column], school: Field| {
        made.reader(columns)
            .unwrap()
            .row(&of(school))
            .unwrap()
            .group
    };
    assert_eq!(group(&all, Field::Number(10.0)), Some(1));
    assert_eq!(group(&all, Field::Number(11.0)), None);
    assert_eq!(group(&all, Field::Missing), None);
    // As another file has it.
    all[3].kind = ColumnKind::Word;
    assert_eq!(group(&all, Field::Word("9.0".into())), Some(0));
    let error = made.reader(&all[..3]).err().unwrap().to_string();
    assert!(error.contains("a goal for each `school`"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let text = made.text().unwrap();
    for (from, to) in [
        ("\"9\"", "\"10\""),
        ("\"column\": \"school\"", "\"column\": \"age\""),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        std::fs::write(dir.path().join(TABLE), changed).unwrap();
        assert!(Preparation::read(dir.path()).is_err(), "{to}");
    }
    std::fs::write(dir.path().join(TABLE), text).unwrap();
    assert_eq!(Preparation::read(dir.path()).unwrap(), made);
}

#[test]
fn the_file_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let made = fitted(Scaling::Standard);
    std::fs::write(dir.path().join(TABLE), made.text().unwrap()).unwrap();
    assert_eq!(Preparation::read(dir.path()).unwrap(), made);
    let text = made.text().unwrap();
    for (from, to) in [
        ("\"version\": 1", "\"version\": 9"),
        ("\"clip\": 1.5", "\"clip\": -1.0"),
        ("\"name\": \"pay\"", "\"name\": \"age\""),
        ("\"deviation\": 1.0", "\"deviation\": 0.0"),
        ("\"kind\": \"words\"", "\"kind\": \"music\""),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        std::fs::write(dir.path().join(TABLE), changed).unwrap();
        assert!(Preparation::read(dir.path()).is_err(), "{to}");
    }
}

#[test]
fn words_of_any_length_have_codes_of_their_own() {
    let columns = [Column {
        name: "word".into(),
        kind: ColumnKind::Word,
    }];
    let field = |word: &str| vec![Field::Word(word.into())];
    let long = "x".repeat(40);
    let words = [
        "",
        "\0",
        "a",
        "a\0",
        "8 bytes.",
        "nine byte",
        "fifteen bytes..",
        "sixteen bytes...",
        &long,
    ];
    let settings = Settings {
        rare: 1,
        ..Settings::default()
    };
    let mut fitting = Fitting::new(settings).unwrap();
    for word in words {
        fitting.see(&columns, &field(word)).unwrap();
    }
    let made = fitting.finish().unwrap();
    let reader = made.reader(&columns).unwrap();
    let mut codes: Vec<u32> = words
        .map(|w| reader.row(&field(w)).unwrap().codes[0])
        .to_vec();
    codes.sort_unstable();
    assert!(codes.iter().copied().eq(1..=9), "{codes:?}");
    for unknown in [
        "b",
        "a\0\0",
        "8 bytes",
        "nine bytes",
        "fifteen bytes.",
        "sixteen bytes..!",
        &long[1..],
    ] {
        assert_eq!(
            reader.row(&field(unknown)).unwrap().codes,
            [0],
            "{unknown:?}"
        );
    }
}

/// Numbers, the places of texts, marks of what is missing: in this order, whatever the columns' order.
#[test]
fn texts_stand_between_numbers_and_marks() {
    let mut all = columns();
    all.insert(
        1,
        Column {
            name: "note".into(),
            kind: ColumnKind::Text,
        },
    );
    let row = |note: Option<&str>, pay: Option<f64>| {
        let mut fields = row(1.0, None, pay);
        fields.insert(1, note.map_or(Field::Missing, |t| Field::Word(t.into())));
        fields
    };
    let settings = Settings {
        text: 16,
        ..Settings::default()
    };
    let mut fitting = Fitting::new(settings).unwrap();
    for (note, pay) in [(Some("warm soup"), None), (None, Some(2.0))] {
        fitting.see(&all, &row(note, pay)).unwrap();
    }
    let made = fitting.finish().unwrap();
    assert_eq!(made.numeric(), 2 + 16 + 1);
    let (names, _) = made.names();
    assert_eq!(
        [&names[1], &names[2], &names[17], &names[18]],
        ["pay", "note, place 0", "note, place 15", "pay is missing"]
    );
    let reader = made.reader(&all).unwrap();
    let found = reader.row(&row(Some("Soup!"), None)).unwrap().numbers;
    let said: Vec<f32> = found.iter().copied().filter(|x| *x != 0.0).collect();
    // One word is the whole text: its place has all of its length.
    assert!(
        said.len() == 2 && said[0].abs() == 1.0 && said[1] == 1.0,
        "{found:?}"
    );
    assert_eq!(found[18], 1.0);
    let none = reader.row(&row(None, Some(2.0))).unwrap().numbers;
    assert!(none[2..].iter().all(|x| *x == 0.0));
    let dir = tempfile::tempdir().unwrap();
    let text = made.text().unwrap();
    std::fs::write(dir.path().join(TABLE), &text).unwrap();
    assert_eq!(Preparation::read(dir.path()).unwrap(), made);
    let light = text.replacen("        2.0986123", "        0.5", 1);
    assert_ne!(light, text);
    std::fs::write(dir.path().join(TABLE), light).unwrap();
    assert!(Preparation::read(dir.path()).is_err());
    for text in [0, 1 << 20] {
        let settings = Settings {
            text,
            ..Settings::default()
        };
        assert!(Fitting::new(settings).is_err());
    }
}
