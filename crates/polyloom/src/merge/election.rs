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

/// Elements that are elected at once: votes, winning sums and weights stay in the nearest cache.
const STEP: usize = 512;

/// Elects every element of `out`: the sign of the sum of votes wins (a tie counts as plus); a sum that is not a number
/// stays one. Ballots are added in order, whatever the machine.
pub(super) fn elect(ballots: &[Ballot], divisor: Divisor, out: &mut [f32]) {
    let mut votes = [0.0; STEP];
    let mut weights = [0.0; STEP];
    for (i, won) in out.chunks_mut(STEP).enumerate() {
        let range = i * STEP..i * STEP + won.len();
        let (votes, weights) = (&mut votes[..won.len()], &mut weights[..won.len()]);
        wide(
            #[inline(always)]
            || {
                let Some((first, rest)) = ballots.split_first() else {
                    votes.fill(0.0);
                    won.fill(0.0);
                    weights.fill(0.0);
                    return;
                };
                for (sum, v) in votes.iter_mut().zip(&first.values[range.clone()]) {
                    *sum = 0.0 + first.vote * v;
                }
                for b in rest {
                    for (sum, v) in votes.iter_mut().zip(&b.values[range.clone()]) {
                        *sum += b.vote * v;
                    }
                }
                count::<true>(first, &first.values[range.clone()], votes, won, weights);
                for b in rest {
                    count::<false>(b, &b.values[range.clone()], votes, won, weights);
                }
                close(divisor, votes, won, weights);
            },
        );
    }
}

/// Adds one input's entries where they are on the winning side, to nothing if it is the `FIRST`. Written with masks
/// instead of choices, which the compiler would turn into branches that nobody can predict.
#[inline(always)]
fn count<const FIRST: bool>(
    b: &Ballot,
    values: &[f32],
    votes: &[f32],
    won: &mut [f32],
    weights: &mut [f32],
) {
    let bits = b.weight.to_bits();
    for (((v, sum), won), weight) in values.iter().zip(votes).zip(won).zip(weights) {
        let flip = u32::from(*sum < 0.0) << 31;
        let vote = f32::from_bits((b.vote * v).to_bits() ^ flip);
        let agrees = u32::from(vote > 0.0).wrapping_neg();
        let before = if FIRST { (0.0, 0.0) } else { (*won, *weight) };
        *won = before.0 + f32::from_bits((b.share * v).to_bits() & agrees);
        *weight = before.1 + f32::from_bits(bits & agrees);
    }
}

/// Divides the winning sums.
#[inline(always)]
fn close(divisor: Divisor, votes: &[f32], won: &mut [f32], weights: &[f32]) {
    match divisor {
        Divisor::One => {}
        Divisor::Weights => {
            for (won, weight) in won.iter_mut().zip(weights) {
                // One where nobody won.
                let none = u32::from(*weight == 0.0).wrapping_neg();
                *won /= weight + f32::from_bits(1.0f32.to_bits() & none);
            }
        }
        Divisor::AtLeast(floor) => {
            for (won, weight) in won.iter_mut().zip(weights) {
                *won /= weight.max(floor);
            }
        }
    }
    for (won, sum) in won.iter_mut().zip(votes) {
        // A sum that is not a number stays one; any other is turned into zero by the mask.
        let nan = u32::from(sum.is_nan()).wrapping_neg();
        *won += f32::from_bits(sum.to_bits() & nan);
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
