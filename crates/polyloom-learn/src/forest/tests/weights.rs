//! Weights of rows, labels and targets.

use super::*;

#[test]
fn a_weight_counts_a_row_that_often() {
    let mut weighted = line(&[1.0, 2.0, 3.0, 4.0, 5.0]);
    weighted.weights = Some(vec![1.0, 2.0, 1.0, 0.0, 1.0]);
    let again = line(&[1.0, 2.0, 2.0, 3.0, 5.0]);
    let y = [regression(&[0.0, 1.0, 4.0, 99.0, 2.0])];
    let repeated = [regression(&[0.0, 1.0, 1.0, 4.0, 2.0])];
    let groups = RMtgb {
        max_depth: 2,
        ..RMtgb::default()
    };
    for method in [
        Method::Gbdt(fine(8, 0.3, 1.0)),
        Method::GbdtShared(fine(8, 0.3, 1.0)),
        Method::RMtgb(groups),
    ] {
        let one = train(&weighted, &y, method.clone()).unwrap();
        // The same said of the labels.
        let mut of_labels = y.clone();
        of_labels[0].weights.clone_from(&weighted.weights);
        let plain = line(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(train(&plain, &of_labels, method.clone()).unwrap(), one);
        let two = train(&again, &repeated, method).unwrap();
        let (one, two) = (one.scores(&again).unwrap(), two.scores(&again).unwrap());
        for (a, b) in one.iter().zip(&two) {
            assert!((a - b).abs() < 1e-5, "{one:?} {two:?}");
        }
    }
}

/// Trees that targets share: one that counts 3 is there three times.
#[test]
fn a_target_counts_that_often_in_shared_trees() {
    let data = line(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let a = regression(&[0.0, 1.0, 4.0, 9.0, 2.0, 5.0]);
    let b = regression(&[3.0, 0.0, 1.0, 1.0, 7.0, 2.0]);
    let mut thrice = a.clone();
    thrice.weights = Some(vec![3.0; 6]);
    let method = || {
        Method::GbdtShared(Boost {
            growth: Growth {
                max_leaves: 2,
                min_rows: 1,
                min_hessian: 0.0,
                l2: 0.0,
                ..Growth::default()
            },
            rounds: 5,
            ..Boost::default()
        })
    };
    let one = train(&data, &[thrice, b.clone()], method()).unwrap();
    let all = train(&data, &[a.clone(), a.clone(), a, b], method()).unwrap();
    let (one, all) = (one.scores(&data).unwrap(), all.scores(&data).unwrap());
    for (one, all) in one.chunks(2).zip(all.chunks(4)) {
        assert!((one[0] - all[0]).abs() < 1e-5 && (one[1] - all[3]).abs() < 1e-5);
    }
}
