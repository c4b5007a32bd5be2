//! Forests through files, and files that lie.

use super::super::data::{Table, UNKNOWN, Values};
use super::super::model::{Feature, Sides};
use super::super::tests::examples;
use super::super::{Params, fit};
use super::*;

fn forests() -> Vec<(Table, Forest)> {
    let made = examples().into_iter().map(|(data, targets, method)| {
        let params = Params { method, seed: 1 };
        let forest = fit(&data, &targets, None, &params, &mut |_| true).unwrap();
        (data, forest)
    });
    made.collect()
}

#[test]
fn files_give_forests_back() {
    let dir = tempfile::tempdir().unwrap();
    for (i, (data, forest)) in forests().into_iter().enumerate() {
        let file = dir.path().join(format!("{i}.safetensors"));
        forest.save(&file, false, false).unwrap();
        assert!(forest.save(&file, false, false).is_err());
        let read = Forest::open(&file).unwrap();
        assert_eq!(read, forest);
        assert_eq!(read.bytes(), forest.bytes());
        assert_eq!(read.scores(&data).unwrap(), forest.scores(&data).unwrap());
    }
}

/// Rows of any kind for a forest that came from a file.
fn answer(read: &Forest) {
    let column = |f: &Feature| super::super::Column {
        name: f.name.clone(),
        values: match f.categories {
            None => Values::Number(vec![0.0, f32::NAN, f32::INFINITY]),
            Some(_) => Values::Category {
                codes: vec![0, UNKNOWN, 77],
                cardinality: 5,
            },
        },
    };
    let rows = Table {
        rows: 3,
        columns: read.features.iter().map(column).collect(),
        weights: None,
    };
    read.predict(&rows).unwrap();
    assert_eq!(read.importance().len(), read.features.len());
}

#[test]
fn a_file_that_was_changed_anywhere_is_refused_or_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.safetensors");
    let mut refused = 0;
    for (_, forest) in forests().into_iter().skip(1).step_by(2) {
        let whole = forest.bytes();
        let mut try_out = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            match Forest::open(&file) {
                Ok(read) => answer(&read),
                Err(e) => {
                    refused += 1;
                    assert!(e.to_string().contains("f.safetensors"), "{e}");
                }
            }
        };
        for at in (0..whole.len()).step_by(67) {
            for change in [1u8, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                try_out(&bytes);
            }
        }
        for end in (0..whole.len()).step_by(307) {
            try_out(&whole[..end]);
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn lies_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.safetensors");
    let honest = forests().pop().unwrap().1;
    let refused = |change: &dyn Fn(&mut Forest), says: &str| {
        let mut forest = honest.clone();
        change(&mut forest);
        forest.save(&file, true, false).unwrap();
        let told = Forest::open(&file).err().map(|e| e.to_string());
        let told = told.unwrap_or_else(|| panic!("read, where `{says}` is wrong"));
        assert!(told.contains(says) && told.contains("hint"), "{told}");
    };
    // A tree that first asks for a number.
    let root = |forest: &mut Forest, change: &dyn Fn(&mut Node)| {
        let mut roots = forest.ensembles[0]
            .trees
            .iter_mut()
            .map(|t| &mut t.nodes[0]);
        let number = |node: &&mut Node| {
            matches!(
                node,
                Node::Split {
                    test: Test::AtMost(_),
                    ..
                }
            )
        };
        change(roots.find(number).unwrap());
    };
    let split = |change: &'static dyn Fn(&mut u32, &mut Test, &mut u32)| {
        move |node: &mut Node| {
            if let Node::Split {
                column, test, left, ..
            } = node
            {
                change(column, test, left);
            }
        }
    };
    refused(&|f| root(f, &split(&|_, _, left| *left = 0)), "children");
    refused(&|f| root(f, &split(&|_, _, left| *left = 9999)), "children");
    refused(
        &|f| root(f, &split(&|column, _, _| *column = 77)),
        "a column",
    );
    refused(
        &|f| root(f, &split(&|_, test, _| *test = Test::AtMost(f32::NAN))),
        "threshold",
    );
    refused(
        &|f| root(f, &split(&|_, test, _| *test = Test::OneOf(0))),
        "asks a column",
    );
    refused(&|f| root(f, &|node| *node = Node::Leaf(5)), "numbered");
    refused(
        &|f| f.ensembles[0].trees[0].values[0] = f32::INFINITY,
        "leaf",
    );
    refused(
        &|f| {
            f.ensembles[0].trees[0].values.pop();
        },
        "leaves",
    );
    refused(&|f| f.ensembles[0].width = usize::MAX, "ensemble");
    refused(&|f| f.ensembles[0].uses[0].column = usize::MAX, "ensemble");
    refused(&|f| f.ensembles[0].uses[0].width = 2, "ensemble");
    refused(&|f| f.outputs[0].start.clear(), "target");
    refused(&|f| f.outputs.clear(), "targets");
    refused(
        &|f| {
            f.sides = Some(Sides {
                theta: vec![0.0],
                sigma: vec![0.5],
            });
        },
        "sides",
    );
    refused(
        &|f| {
            let kinds = f.features.iter_mut().filter_map(|f| f.categories.as_mut());
            kinds.for_each(|c| c.bin_of[0] = 300);
        },
        "bins",
    );
    std::fs::write(&file, safetensors_bytes(&[], &BTreeMap::new())).unwrap();
    assert!(
        Forest::open(&file)
            .unwrap_err()
            .to_string()
            .contains("no forest")
    );
    let later = BTreeMap::from([("format".to_owned(), "polyloom.forest/2".to_owned())]);
    std::fs::write(&file, safetensors_bytes(&[], &later)).unwrap();
    assert!(
        Forest::open(&file)
            .unwrap_err()
            .to_string()
            .contains("newer")
    );
}
