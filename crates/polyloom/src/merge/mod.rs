//! Merging without training: one file per method, one line in `methods!`.

pub mod band;
mod bracket;
pub mod compose;
mod cuts;
mod election;
pub mod gram;
mod long;
pub mod method;
pub mod params;
pub mod per_tensor;
pub mod pre;
mod ranks;
pub mod run;
pub mod sparsify;
pub mod survey;

#[cfg(test)]
mod gta_golden;
#[cfg(test)]
mod properties;

/// Declares the method modules and the table of all methods, in the order of the reference page.
macro_rules! methods {
    ($($name:ident),* $(,)?) => {
        $(pub mod $name;)*
        /// Modules of methods; each offers `METHODS`, the entries it adds (a family may share one routine).
        static FAMILIES: &[&[&dyn method::Method]] = &[$($name::METHODS),*];
    };
}

// One line per file. (Checked by rustfmt over all tracked files: `cargo fmt` does not see modules made by a macro.)
methods! {
    linear,
    task_arithmetic,
    slerp,
    nuslerp,
    multislerp,
    karcher,
    sce,
    ram,
    model_stock,
    nearswap,
    arcee_fusion,
    passthrough,
    ties_reference,
    breadcrumbs_reference,
    tall,
    emr,
    magmax,
    magnitude_prune,
    graft,
    pcb,
    spectral,
    wudi,
    knots,
    lines,
    greedy_soup,
    regmean,
    fisher,
}

/// All registered methods.
pub fn methods() -> impl Iterator<Item = &'static dyn method::Method> {
    FAMILIES.iter().flat_map(|f| f.iter().copied())
}

/// A method by registry name.
pub fn find(name: &str) -> Option<&'static dyn method::Method> {
    methods().find(|m| m.spec().name == name)
}

#[cfg(test)]
mod testing;
