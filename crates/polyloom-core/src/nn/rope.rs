//! Rotary position embedding.

use rayon::prelude::*;

/// Rotates pairs of features of every head by the angle of its position.
///
/// `x` is `[batch, length, heads, dim]`; `cos` and `sin` are `[length, dim / 2]` (of the positions of this call) and rotate
/// the first `2 * cos.len() / length` features of a head, the rest stays. `halves`: feature i goes with i + rotated/2
/// (Llama, Qwen, Gemma); else neighbours go together (GPT-J). `back` turns the other way: the gradient.
///
/// # Panics
/// If the lengths do not fit together.
pub fn rotate(
    x: &mut [f32],
    shape: [usize; 4],
    cos: &[f32],
    sin: &[f32],
    halves: bool,
    back: bool,
) {
    let [batch, length, heads, dim] = shape;
    assert!(
        x.len() == batch * length * heads * dim && cos.len() == sin.len(),
        "lengths of a rotation"
    );
    if x.is_empty() {
        return;
    }
    let half = cos.len() / length;
    assert!(
        cos.len() == length * half && 2 * half <= dim,
        "angles of a rotation"
    );
    x.par_chunks_mut(heads * dim)
        .enumerate()
        .for_each(|(at, row)| {
            let position = at % length;
            let (cos, sin) = (
                &cos[position * half..][..half],
                &sin[position * half..][..half],
            );
            for head in row.chunks_exact_mut(dim) {
                for i in 0..half {
                    let (a, b) = if halves {
                        (i, i + half)
                    } else {
                        (2 * i, 2 * i + 1)
                    };
                    let s = if back { -sin[i] } else { sin[i] };
                    let (x, y) = (head[a], head[b]);
                    head[a] = x * cos[i] - y * s;
                    head[b] = y * cos[i] + x * s;
                }
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_and_back() {
        // Two positions, one head of four features; the second position turns the first pair by 90 degrees.
        let (cos, sin) = ([1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]);
        let start = [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0];
        let mut x = start;
        rotate(&mut x, [1, 2, 1, 4], &cos, &sin, true, false);
        assert_eq!(x, [1.0, 2.0, 3.0, 4.0, -3.0, 2.0, 1.0, 4.0]);
        rotate(&mut x, [1, 2, 1, 4], &cos, &sin, true, true);
        assert_eq!(x, start);
        rotate(&mut x, [1, 2, 1, 4], &cos, &sin, false, false);
        assert_eq!(x[4..], [-2.0, 1.0, 3.0, 4.0]);
    }
}
