//! The fuzz targets of this crate and of `polyloom-core`, as `fuzz/smoke.rs` runs them.

#[path = "../../../../fuzz/bodies.rs"]
mod bodies;
#[path = "../../../../fuzz/smoke.rs"]
mod smoke;

#[test]
fn the_fuzz_targets_hold_over_their_seeds_and_mutations_of_them() {
    smoke::hold(bodies::TARGETS);
}
