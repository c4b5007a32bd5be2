//! Initialisations that change the base (PiSSA, arXiv 2404.02948; OLoRA, arXiv 2406.01775): an adapter trained from
//! one belongs to `W - s B0 A0`, which is made again when it is folded in.

use super::config::BaseChange;
use super::folder::Factors;
use crate::linalg::{Matrix, qr, svd};

/// The factors `(B0, A0)` an initialisation takes out of a weight `[out, in]`, so that `scaling * B0 A0` is the part
/// taken out: PiSSA `U_r sqrt(S_r / s), sqrt(S_r / s) V_r^T`, OLoRA `Q[:, :r], R[:r]`.
///
/// The product does not depend on the signs of the decomposition; a text says why there is none.
pub fn start_factors(
    change: BaseChange,
    weight: &Matrix,
    rank: usize,
    scaling: f64,
) -> Result<(Matrix, Matrix), String> {
    match change {
        BaseChange::None => Ok((Matrix::zeros(weight.rows, 0), Matrix::zeros(0, weight.cols))),
        BaseChange::Pissa => {
            let d = svd(weight)?;
            let roots: Vec<f64> =
                d.s.iter()
                    .take(rank)
                    .map(|s| (s / scaling.abs()).sqrt())
                    .collect();
            // A negative scaling would need one factor of the other sign.
            let signed: Vec<f64> = roots.iter().map(|r| r * scaling.signum()).collect();
            Ok((
                d.u.first_columns(rank).scale_columns(&roots),
                d.vt.first_rows(rank).scale_rows(&signed),
            ))
        }
        BaseChange::Olora => {
            let (q, r) = qr(weight);
            Ok((q.first_columns(rank), r.first_rows(rank)))
        }
    }
}

/// Widens factors to `[B, -B0] [A; A0]`, so that they fit the base before its change.
pub(super) fn undo_base_change(
    change: BaseChange,
    factors: &mut Factors,
    weight: &[f32],
    transposed: bool,
) -> Result<(), String> {
    let (outputs, inputs, rank) = (factors.outputs, factors.inputs, factors.rank);
    let weight = if transposed {
        Matrix::from_f32(inputs, outputs, weight).transposed()
    } else {
        Matrix::from_f32(outputs, inputs, weight)
    };
    let (b0, a0) = start_factors(change, &weight, rank, factors.scaling)?;
    let wide = rank + b0.cols;
    let mut b = vec![0.0; outputs * wide];
    for o in 0..outputs {
        b[o * wide..][..rank].copy_from_slice(&factors.b[o * rank..][..rank]);
        for k in 0..b0.cols {
            b[o * wide + rank + k] = -b0.data[o * b0.cols + k] as f32;
        }
    }
    factors.b = b;
    factors.a.extend(a0.to_f32());
    factors.rank = wide;
    Ok(())
}
