//! Values with gradients. Candle's types are named here and in the operations, nowhere else.

mod compose;
mod gradients;
mod meaning;
mod parameters;
mod slice;
mod value;

pub use candle_core::{DType, Device, Tensor};
pub use compose::compose;
pub use gradients::{Gradients, Into};
pub use meaning::Meaning;
pub use parameters::{Parameter, Parameters};
pub use slice::{Slice, on_cpu, slice, tensor};
pub use value::{Op, Value};
