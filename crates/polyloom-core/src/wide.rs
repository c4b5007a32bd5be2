//! Loops compiled for the widest vector unit that the machine has.

/// Runs `f`, compiled once for plain x86-64 (or the target's baseline) and once for AVX2 and FMA where the machine has
/// them. Results are the same bits on every machine: nothing is reordered or fused, only more lanes work at once.
///
/// `f` must be an `#[inline(always)]` closure over plain slices, and what it calls must be inlined too: code that is
/// called rather than inlined keeps the baseline's registers.
#[inline(always)]
pub fn wide<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}
