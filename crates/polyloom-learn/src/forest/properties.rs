//! What holds for any table: every method answers with numbers, and its file gives it back.

use polyloom_core::rng::Stream;

use super::*;

/// Draws of one stream, one after the other.
struct Draws(Stream, u64);

impl Draws {
    fn below(&mut self, n: u64) -> u64 {
        self.1 += 1;
        self.0.bits(self.1) % n
    }

    fn number(&mut self) -> f32 {
        match self.below(12) {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => f32::NEG_INFINITY,
            3 => -0.0,
            4 => f32::MAX,
            5 => f32::MIN_POSITIVE,
            n => self.0.normal(self.1) * 10f32.powi(n as i32 - 8),
        }
    }

    fn column(&mut self, i: usize, rows: usize) -> Column {
        let values = match self.below(4) {
            0 => Values::Category {
                cardinality: self.below(6) as u32,
                codes: (0..rows).map(|_| self.below(8) as u32).collect(),
            },
            1 => Values::Number(vec![self.number(); rows]),
            _ => Values::Number((0..rows).map(|_| self.number()).collect()),
        };
        Column {
            name: format!("x{i}"),
            values,
        }
    }

    fn labels(&mut self, classes: usize, rows: usize) -> Labels {
        match classes {
            0 => {
                let unit = 10f64.powi(self.below(190) as i32 - 95);
                let mut label = |_| match self.below(5) {
                    0 => f64::NAN,
                    _ => unit * f64::from(self.0.normal(self.1)),
                };
                Labels::Regression((0..rows).map(&mut label).collect())
            }
            _ => {
                let mut label = |_| match self.below(5) {
                    0 => UNKNOWN,
                    _ => self.below(classes as u64) as u32,
                };
                Labels::Classification {
                    classes,
                    labels: (0..rows).map(&mut label).collect(),
                }
            }
        }
    }

    fn growth(&mut self) -> Growth {
        Growth {
            max_depth: self.below(5) as usize,
            max_leaves: [0, 2, 5, 31][self.below(4) as usize],
            min_rows: self.below(4) as usize,
            min_hessian: [0.0, 1e-3][self.below(2) as usize],
            l2: [0.0, 1.0][self.below(2) as usize],
            category_smoothing: [0.0, 10.0][self.below(2) as usize],
            ..Growth::default()
        }
    }

    fn method(&mut self, alike: bool) -> Method {
        let subsample = [1.0, 0.5][self.below(2) as usize];
        let boost = Boost {
            rounds: self.below(12) as usize,
            bins: [2, 3, 255, 400][self.below(4) as usize],
            growth: self.growth(),
            subsample,
            ..Boost::default()
        };
        match self.below(3) {
            0 => Method::Gbdt(boost),
            1 if alike => Method::RMtgb(RMtgb {
                shared_steps: self.below(4) as usize,
                outlier_steps: self.below(4) as usize,
                task_steps: self.below(4) as usize,
                max_depth: 1 + self.below(3) as usize,
                stump: self.below(2) == 0,
                subsample,
                ..RMtgb::default()
            }),
            _ => Method::GbdtShared(boost),
        }
    }
}

#[test]
fn any_table_is_answered_with_numbers_and_its_file_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("forest.safetensors");
    for seed in 0..400 {
        let mut draws = Draws(Stream::new(seed, "tables", 0), 0);
        let rows = 1 + draws.below(60) as usize;
        let columns = draws.below(5) as usize;
        let alike = draws.below(2) == 0;
        let first = draws.below(5) as usize;
        let mut kinds = vec![first];
        for _ in 0..draws.below(3) {
            kinds.push(if alike {
                first
            } else {
                draws.below(5) as usize
            });
        }
        let data = Table {
            rows,
            columns: (0..columns).map(|i| draws.column(i, rows)).collect(),
            weights: (draws.below(3) == 0)
                .then(|| (0..rows).map(|_| draws.below(4) as f32).collect()),
        };
        let target = |classes: &usize| Target {
            name: format!("y{classes}"),
            labels: draws.labels(*classes, rows),
            weights: (draws.below(3) == 0)
                .then(|| (0..rows).map(|_| draws.below(4) as f32).collect()),
        };
        let targets: Vec<Target> = kinds.iter().map(target).collect();
        let params = Params {
            method: draws.method(alike),
            seed,
        };
        let forest = fit(&data, &targets, None, &params, &mut |_| true).unwrap();
        let told = forest.predict(&data).unwrap();
        assert_eq!(told.len(), rows * forest.width());
        assert!(told.iter().all(|x| x.is_finite()), "{seed}: {params:?}");
        forest.save(&file, true, false).unwrap();
        assert_eq!(Forest::open(&file).unwrap(), forest, "{seed}");
    }
}
