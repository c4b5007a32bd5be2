//! The fuzz targets of this crate, as `fuzz/smoke.rs` runs them.

#[path = "../../../../fuzz/bodies_learn.rs"]
mod bodies;
#[path = "../../../../fuzz/smoke.rs"]
mod smoke;

#[test]
fn the_fuzz_targets_hold_over_their_seeds_and_mutations_of_them() {
    smoke::hold(bodies::TARGETS);
}
