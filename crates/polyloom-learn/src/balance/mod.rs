//! Weighting the losses and balancing the gradients of tasks that are learned together: one file per method or family,
//! one line in `methods!`.
//!
//! Tasks share parameters; `g_t` is the gradient of task t's loss by them, `A` the matrix of their dot products. A method
//! says T weights, nearly always from `A` alone, and the direction is one weighted sum. Solvers work in `f64` on scaled
//! variables and say when they have no answer. [`combine::Balance`] holds the rules that are the same for all.

pub mod combine;
pub mod conflict;
pub mod dots;
pub mod method;
pub mod newton;
pub mod page;
pub mod qp;
mod scalars;
pub mod within;

#[cfg(test)]
mod properties;

use polyloom::MergeError;

pub use combine::{Balance, Combined, Counts, Given};
pub use method::{At, Balancer, Looks, Method, State, Step, Unsolved, Wants};

/// Declares the method modules and the table of all methods, in the order of the reference page.
macro_rules! methods {
    ($($name:ident),* $(,)?) => {
        $(pub mod $name;)*
        /// Modules of methods; each offers `METHODS`, the entries it adds.
        static FAMILIES: &[&[&Method]] = &[$($name::METHODS),*];
    };
}

methods! {
    losses,
    learned,
    history,
    coba,
    mgda,
    gradnorm,
    project,
    cagrad,
    aligned,
    fair,
    moving,
    flat,
}

/// All registered methods.
pub fn methods() -> impl Iterator<Item = &'static Method> {
    FAMILIES.iter().flat_map(|f| f.iter().copied())
}

/// A method by registry name.
pub fn find(name: &str) -> Option<&'static Method> {
    methods().find(|m| m.name == name)
}

/// The error for a name that is not registered.
pub fn unknown(name: &str) -> MergeError {
    let names: Vec<&str> = methods().map(|m| m.name).collect();
    let error = MergeError::plan(
        "unknown-method",
        format!(
            "no balancing method `{name}`; there are: {}",
            names.join(", ")
        ),
    );
    if ["graddrop", "rep_mtl"].contains(&name) {
        return error.hint(format!(
            "`{name}` acts on what the heads see: [train.representation] method = \"{name}\""
        ));
    }
    match polyloom::suggest::nearest(name, &names, 1).first() {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}
