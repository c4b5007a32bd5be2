//! Sign election: entries vote with their values, those on the winning side are added up (methods/merging.md 2.6, 2.7).

use polyloom_core::wide;

/// What one input brings to an election.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ballot<'a> {
    /// Entries; removed ones are zero and take no side.
    pub values: &'a [f32],
    /// Factor of the values in the vote.
    pub vote: f32,
    /// Factor of the values in the sum.
    pub share: f32,
    /// What an entry on the winning side adds to the divisor.
    pub weight: f32,
}

/// What the winning sums are divided by.
#[derive(Debug, Clone, Copy)]
pub(super) enum Divisor {
    /// Nothing.
    One,
    /// The weights of the winning side, unless they add up to zero.
    Weights,
    /// The weights of the winning side, at least this.
    AtLeast(f32),
}

/// Elements that are elected at once, in registers.
const LANES: usize = 16;

/// Elects every element of `out`: the sign of the sum of votes wins (a tie counts as plus); a sum that is not a number
/// stays one. Ballots are added in order, whatever the machine.
pub(super) fn elect(ballots: &[Ballot], divisor: Divisor, out: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            let whole = out.len() / LANES * LANES;
            let (body, tail) = out.split_at_mut(whole);
            for (i, out) in body.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                lanes(ballots, i * LANES, divisor, out);
            }
            // The last few: zeros behind them change nothing.
            if !tail.is_empty() {
                let mut padded = [0.0; LANES];
                short(ballots, whole, divisor, tail.len(), &mut padded);
                tail.copy_from_slice(&padded[..tail.len()]);
            }
        },
    );
}

#[inline(always)]
fn lanes(ballots: &[Ballot], at: usize, divisor: Divisor, out: &mut [f32; LANES]) {
    let load = |b: &Ballot| -> [f32; LANES] {
        let mut v = [0.0; LANES];
        v.copy_from_slice(&b.values[at..at + LANES]);
        v
    };
    settle(ballots, load, divisor, out);
}

#[inline(always)]
fn short(ballots: &[Ballot], at: usize, divisor: Divisor, n: usize, out: &mut [f32; LANES]) {
    let load = |b: &Ballot| -> [f32; LANES] {
        let mut v = [0.0; LANES];
        v[..n].copy_from_slice(&b.values[at..at + n]);
        v
    };
    settle(ballots, load, divisor, out);
}

#[inline(always)]
fn settle(
    ballots: &[Ballot],
    load: impl Fn(&Ballot) -> [f32; LANES],
    divisor: Divisor,
    out: &mut [f32; LANES],
) {
    let mut sum = [0.0f32; LANES];
    for b in ballots {
        let v = load(b);
        for k in 0..LANES {
            sum[k] += b.vote * v[k];
        }
    }
    let mut won = [0.0f32; LANES];
    let mut weight = [0.0f32; LANES];
    for b in ballots {
        let v = load(b);
        for k in 0..LANES {
            let vote = b.vote * v[k];
            let agrees = ((sum[k] >= 0.0) & (vote > 0.0)) | ((sum[k] < 0.0) & (vote < 0.0));
            won[k] += if agrees { b.share * v[k] } else { 0.0 };
            weight[k] += if agrees { b.weight } else { 0.0 };
        }
    }
    for k in 0..LANES {
        let divided = match divisor {
            Divisor::One => won[k],
            Divisor::Weights => won[k] / if weight[k] == 0.0 { 1.0 } else { weight[k] },
            Divisor::AtLeast(floor) => won[k] / weight[k].max(floor),
        };
        out[k] = if sum[k].is_nan() { sum[k] } else { divided };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn election_by_hand() {
        // Element 0: +2 against -1; 1: an exact tie counts as plus; 2: negative wins; 3: nothing.
        let inputs: [&[f32]; 3] = [
            &[2.0, 1.0, -4.0, 0.0],
            &[-2.0, -2.0, 2.0, 0.0],
            &[4.0, 0.0, -4.0, 0.0],
        ];
        let ballots: Vec<Ballot> = [1.0, 0.5, 0.25]
            .into_iter()
            .zip(inputs)
            .map(|(weight, values)| Ballot {
                values,
                vote: weight,
                share: weight,
                weight,
            })
            .collect();
        let mut out = [9.0; 4];
        elect(&ballots, Divisor::Weights, &mut out);
        assert_eq!(out, [3.0 / 1.25, 1.0, -5.0 / 1.25, 0.0]);
        elect(&ballots, Divisor::One, &mut out);
        assert_eq!(out, [3.0, 1.0, -5.0, 0.0]);
        elect(&ballots, Divisor::AtLeast(2.0), &mut out);
        assert_eq!(out, [1.5, 0.5, -2.5, 0.0]);
    }

    #[test]
    fn every_length_is_elected_whole() {
        let v: Vec<f32> = (0..50).map(|i| i as f32 - 20.0).collect();
        for n in 0..50 {
            let ballot = Ballot {
                values: &v[..n],
                vote: 1.0,
                share: 2.0,
                weight: 1.0,
            };
            let mut out = vec![0.0; n];
            elect(&[ballot], Divisor::Weights, &mut out);
            let want: Vec<f32> = v[..n].iter().map(|x| 2.0 * x).collect();
            assert_eq!(out, want);
        }
        let mut out = [0.0];
        let ballot = Ballot {
            values: &[f32::NAN],
            vote: 1.0,
            share: 1.0,
            weight: 1.0,
        };
        elect(&[ballot], Divisor::One, &mut out);
        assert!(out[0].is_nan());
    }
}
