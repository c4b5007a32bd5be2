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
            let (body, tail) = out.as_chunks_mut::<LANES>();
            for (i, out) in body.iter_mut().enumerate() {
                lanes(ballots, divisor, out, |b| {
                    &b.values.as_chunks::<LANES>().0[i]
                });
            }
            // The last few: zeros behind them change nothing.
            if !tail.is_empty() {
                let at = body.len() * LANES;
                let padded: Vec<[f32; LANES]> = ballots
                    .iter()
                    .map(|b| {
                        let mut v = [0.0; LANES];
                        v[..tail.len()].copy_from_slice(&b.values[at..at + tail.len()]);
                        v
                    })
                    .collect();
                let mut last = [0.0; LANES];
                let short: Vec<Ballot> = ballots
                    .iter()
                    .zip(&padded)
                    .map(|(b, values)| Ballot { values, ..*b })
                    .collect();
                lanes(&short, divisor, &mut last, |b| {
                    &b.values.as_chunks::<LANES>().0[0]
                });
                tail.copy_from_slice(&last[..tail.len()]);
            }
        },
    );
}

/// One step. Written with masks instead of choices, which the compiler would turn into branches that nobody can
/// predict.
#[inline(always)]
fn lanes<'a, 'b: 'a>(
    ballots: &'a [Ballot<'b>],
    divisor: Divisor,
    out: &mut [f32; LANES],
    values: impl Fn(&'a Ballot<'b>) -> &'b [f32; LANES],
) {
    let mut sum = [0.0f32; LANES];
    for b in ballots {
        let v = values(b);
        for k in 0..LANES {
            sum[k] += b.vote * v[k];
        }
    }
    let mut flip = [0u32; LANES];
    for k in 0..LANES {
        flip[k] = u32::from(sum[k] < 0.0) << 31;
    }
    let mut won = [0.0f32; LANES];
    let mut weight = [0.0f32; LANES];
    for b in ballots {
        let v = values(b);
        let bits = b.weight.to_bits();
        for k in 0..LANES {
            let vote = f32::from_bits((b.vote * v[k]).to_bits() ^ flip[k]);
            let agrees = u32::from(vote > 0.0).wrapping_neg();
            won[k] += f32::from_bits((b.share * v[k]).to_bits() & agrees);
            weight[k] += f32::from_bits(bits & agrees);
        }
    }
    match divisor {
        Divisor::One => {}
        Divisor::Weights => {
            for k in 0..LANES {
                // One where nobody won.
                let none = u32::from(weight[k] == 0.0).wrapping_neg();
                let one = f32::from_bits(1.0f32.to_bits() & none);
                won[k] /= weight[k] + one;
            }
        }
        Divisor::AtLeast(floor) => {
            for k in 0..LANES {
                won[k] /= weight[k].max(floor);
            }
        }
    }
    for k in 0..LANES {
        // A sum that is not a number stays one; any other is turned into zero by the mask.
        let nan = u32::from(sum[k].is_nan()).wrapping_neg();
        out[k] = won[k] + f32::from_bits(sum[k].to_bits() & nan);
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
