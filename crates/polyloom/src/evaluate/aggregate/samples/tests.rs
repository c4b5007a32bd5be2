use super::*;
use crate::evaluate::statistics::draw::Seed;

fn bootstrap(draws: usize) -> Bootstrap {
    Bootstrap::new(Seed::of("board", "strengths")).with_draws(draws)
}

#[test]
fn orders_by_hand() {
    assert_eq!(order(&[0.5, f64::NAN, 0.1, 0.5, 0.2]), [2, ABSENT, 0, 2, 1]);
    assert_eq!(order(&[0.0, -0.0]), [0, 0]);
}

#[test]
fn two_systems_by_hand() {
    // 3 examples won, 1 lost, 2 tied.
    let rows = [
        [1.0, 0.0],
        [1.0, 0.0],
        [0.0, 1.0],
        [9.0, 2.0],
        [1.0, 1.0],
        [0.0, 0.0],
    ];
    let mut samples = Samples::new(2).unwrap();
    samples.add_task(1.0, rows.iter().map(|r| &r[..])).unwrap();
    let of = |model| samples.fit(model, 0.0).unwrap().0[0] * 2.0;
    // Ties as a win for each: 5 to 3. As their own outcome, or left out: 3 to 1.
    assert!((of(Model::BradleyTerry) - (5f64 / 3.0).ln()).abs() < 1e-10);
    assert!((of(Model::Davidson) - 3f64.ln()).abs() < 1e-9);
    assert!((of(Model::PlackettLuce) - 3f64.ln()).abs() < 1e-10);
    assert_eq!((samples.examples(), samples.compared()), (6, vec![true; 2]));
}

#[test]
fn intervals_say_how_firm_the_order_is() {
    // System 0 beats 1 on 70 of 100 examples, 1 and 2 are equal; on another scale in a second task.
    let mut samples = Samples::new(4).unwrap();
    let row = |i: usize, scale: f64| {
        let x = |right: bool| if right { scale } else { 0.0 };
        [x(i % 10 < 9), x(i % 10 < 5), x(i / 10 % 10 < 5), f64::NAN]
    };
    for scale in [1.0, 50.0] {
        let rows: Vec<[f64; 4]> = (0..100).map(|i| row(i, scale)).collect();
        samples.add_task(1.0, rows.iter().map(|r| &r[..])).unwrap();
    }
    for model in [Model::BradleyTerry, Model::Davidson, Model::PlackettLuce] {
        let found = samples
            .intervals(model, 0.0, &bootstrap(200), 0.95)
            .unwrap();
        assert!(!found.regularised && found.pulled == 0, "{model:?}");
        // Nothing was measured of the last system.
        assert_eq!(samples.compared(), [true, true, true, false]);
        assert!(found.theta[3].is_nan() && found.ranks[3].rank.is_nan());
        assert!(
            found.theta[0] > found.theta[1].max(found.theta[2]) + 0.3,
            "{model:?}"
        );
        assert_eq!(found.ranks[0].interval, Interval::new(1.0, 1.0));
        assert!(found.ranks[1].interval.high > found.ranks[1].interval.low);
        assert!(found.interval[0].contains(found.theta[0]));
        let again = samples
            .intervals(model, 0.0, &bootstrap(200), 0.95)
            .unwrap();
        assert_eq!(
            (&found.ranks[..3], found.theta[0]),
            (&again.ranks[..3], again.theta[0])
        );
    }
}

#[test]
fn bad_examples_are_refused() {
    assert!(Samples::new(0).is_err());
    let mut samples = Samples::new(2).unwrap();
    assert!(samples.add_task(1.0, [&[1.0][..]]).is_err());
    assert!(samples.add_task(-1.0, [&[1.0, 0.0][..]]).is_err());
    assert!(samples.add_task(1.0, std::iter::empty()).is_err());
    samples.add_task(1.0, [&[1.0, 0.0][..]]).unwrap();
    assert!(samples.fit(Model::BradleyTerry, f64::NAN).is_err());
    assert!(
        samples
            .intervals(Model::BradleyTerry, 0.0, &bootstrap(0), 0.95)
            .is_err()
    );
    let mut one = Samples::new(1).unwrap();
    one.add_task(1.0, [&[1.0][..]]).unwrap();
    assert!(
        one.intervals(Model::BradleyTerry, 0.0, &bootstrap(9), 0.95)
            .is_err()
    );
}
