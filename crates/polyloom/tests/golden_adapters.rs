//! The vectors of `golden/adapters`, and the adapter operations among those of `golden/merging`, through the public
//! interface: every single-layer case becomes a base file and an adapter folder on disk first.

#![allow(clippy::print_stdout, reason = "the walkers report which cases ran")]

mod adapters;
