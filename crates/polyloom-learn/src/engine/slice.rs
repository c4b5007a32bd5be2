//! Tensors of the processor as plain slices.

use std::cell::Cell;
use std::ops::{Deref, Range};

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Storage, Tensor};

use crate::error::{Error, In, Result};

/// The elements of a dense tensor of `f32` on the processor.
pub struct Slice<'a> {
    /// A guard of candle's lock.
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    at: Range<usize>,
}

impl Deref for Slice<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &**self.storage {
            Storage::Cpu(CpuStorage::F32(all)) => &all[self.at.clone()],
            _ => &[],
        }
    }
}

/// The elements of a tensor, in row-major order.
///
/// # Errors
/// A tensor that is not dense (call `contiguous` first), not of `f32` or not on the processor.
pub fn slice(tensor: &Tensor) -> Result<Slice<'_>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(Error::shape(
            "slice",
            format!(
                "the strides {:?} of {:?} are not dense",
                layout.stride(),
                layout.dims()
            ),
        ));
    };
    match &*storage {
        Storage::Cpu(CpuStorage::F32(_)) => Ok(Slice {
            storage: Box::new(storage),
            at: start..end,
        }),
        _ => Err(Error::shape(
            "slice",
            format!(
                "{:?} on {:?} is not f32 on the processor",
                tensor.dtype(),
                tensor.device().location()
            ),
        )),
    }
}

/// A tensor of the processor that takes over its elements.
///
/// # Errors
/// Another number of elements than the shape says.
pub fn tensor(
    values: Vec<f32>,
    shape: impl std::convert::Into<candle_core::Shape>,
) -> Result<Tensor> {
    Tensor::from_vec(values, shape, &Device::Cpu).during("tensor")
}

/// Whether all lie on the processor as `f32`.
pub fn on_cpu<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> bool {
    tensors
        .into_iter()
        .all(|t| t.device().is_cpu() && t.dtype() == candle_core::DType::F32)
}

/// Lets `f` write the elements of a dense tensor in place; every tensor that shares them sees it.
pub(crate) fn write(tensor: &Tensor, f: impl FnOnce(&mut [f32])) -> Result<()> {
    struct Write<F>(Cell<Option<F>>);

    impl<F: FnOnce(&mut [f32])> InplaceOp1 for Write<F> {
        fn name(&self) -> &'static str {
            "write"
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
            let (CpuStorage::F32(all), Some((start, end))) = (storage, layout.contiguous_offsets())
            else {
                candle_core::bail!("only dense tensors of f32 are written in place");
            };
            if let Some(f) = self.0.take() {
                f(&mut all[start..end]);
            }
            Ok(())
        }
    }
    tensor
        .inplace_op1(&Write(Cell::new(Some(f))))
        .during("write")
}
