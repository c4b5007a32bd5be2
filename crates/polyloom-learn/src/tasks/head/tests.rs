use super::*;
use crate::engine::slice;
use crate::models::Plain;

#[test]
fn every_group_has_outputs_of_its_own() {
    let labels = vec!["a".to_owned(), "b".to_owned()];
    let mut head = Head::zeros("t", Feature::Goal, HeadKind::Classification, labels, 1).unwrap();
    head.goal = 1;
    head.for_groups(vec!["x".into(), "y".into(), "z".into()])
        .unwrap();
    assert_eq!((head.outputs(), head.inputs()), (2, 1));
    assert_eq!(head.layers[0].0.dims(), [6, 1]);
    // Goals 3, 4 and 5 are those of the second target.
    let own = |name: &str| head.is_own(name);
    assert!(own("goals.3.tower.layers.0.weight") && own("goals.5.gate.weight"));
    assert!(!own("goals.2.gate.weight") && !own("goals.6.gate.weight") && !own("goals."));
    head.layers[0] = (
        tensor(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], (6, 1)).unwrap(),
        tensor(vec![0.0, 0.0, 0.0, 0.0, 0.5, 0.5], 6).unwrap(),
    );
    let source = Plain::new(head.tensors());
    // Two targets of width 1, then the group.
    let rows = vec![9.0, 1.0, 2.0, 9.0, 10.0, 0.0];
    let features = Value::constant(tensor(rows, (2, 3)).unwrap());
    let out = head.forward(&source, &features).unwrap();
    assert_eq!(*slice(out.data()).unwrap(), [5.5, 6.5, 10.0, 20.0]);
    let wrong = Value::constant(tensor(vec![9.0, 1.0, 3.0], (1, 3)).unwrap());
    assert!(head.forward(&source, &wrong).is_err());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.safetensors");
    std::fs::write(&file, head.bytes().unwrap()).unwrap();
    let back = Head::read(&file, "t").unwrap();
    assert_eq!((back.groups.len(), back.outputs(), back.goal), (3, 2, 1));
}

#[test]
fn a_file_gives_the_head_back_with_its_scale_put_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut head = Head::zeros("a/b", Feature::Mean, HeadKind::Regression, Vec::new(), 2).unwrap();
    head.layers[0] = (
        tensor(vec![1.0, -2.0], (1, 2)).unwrap(),
        tensor(vec![0.5], 1).unwrap(),
    );
    head.scale = [10.0, 2.0];
    let file = Head::path(dir.path(), "a/b");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, head.bytes().unwrap()).unwrap();
    let back = Head::read(&file, "a/b").unwrap();
    assert_eq!(
        (back.kind, back.feature, back.scale),
        (HeadKind::Regression, Feature::Mean, [0.0, 1.0])
    );
    let source = Plain::new(back.tensors());
    let x = Value::constant(tensor(vec![1.0, 1.0], (1, 2)).unwrap());
    // (1 - 2 + 0.5) * 2 + 10.
    assert_eq!(back.forward(&source, &x).unwrap().number().unwrap(), 9.0);
    std::fs::write(&file, b"no head").unwrap();
    assert!(Head::read(&file, "a/b").is_err());
}
