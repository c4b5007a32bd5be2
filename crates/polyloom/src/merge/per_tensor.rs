//! A method that looks at one tensor at a time, inside a merge that has to look at the whole model.

use super::method::{BLOCK, Chunk, Job, Kernel, Method, Next, Part, Partial, Scope, Unit, typed};
use crate::error::{MergeError, Result};

/// One kernel per tensor of a job over the whole model. A step, a post-step or an outer method may need the whole
/// model while the method itself counts its shares and reads its parameters tensor by tensor.
struct PerTensor {
    kernels: Vec<Box<dyn Kernel>>,
    /// Kernels whose survey is over.
    done: Vec<bool>,
    unit: Unit,
    /// The tensor whose partials arrive. Earlier ones have ended the round, so that only one holds its tables.
    at: usize,
}

/// Makes a method's kernel for a job: one per tensor where a method of [`Scope::Tensor`] meets a whole model. Methods
/// that work on another merge's vector take any job: it is the inner merge that decides what they look at.
///
/// # Errors
/// The method refuses a tensor.
pub fn kernel(method: &'static dyn Method, job: &Job) -> Result<Box<dyn Kernel>> {
    let spec = method.spec();
    if spec.scope == Scope::Model || spec.on.is_some() || job.tensors.len() < 2 {
        return method.kernel(job);
    }
    let kernels = job
        .tensors
        .iter()
        .map(|tensor| {
            method.kernel(&Job {
                tensors: vec![tensor.clone()],
                ..job.clone()
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let unit = kernels
        .iter()
        .map(|k| (k.unit(), k.surveys()))
        .fold((Unit::Chunk, false), |a, b| (common_unit(a, b), a.1 | b.1))
        .0;
    Ok(Box::new(PerTensor {
        done: kernels.iter().map(|k| !k.surveys()).collect(),
        kernels,
        unit,
        at: 0,
    }))
}

/// The unit in which two kernels can see the same chunks; each is (unit, whether it surveys). Sums over chunks that
/// start at rows instead of blocks would depend on the chunk size, so those two meet at whole tensors.
pub(super) fn common_unit(a: (Unit, bool), b: (Unit, bool)) -> Unit {
    match (a.0, b.0) {
        (Unit::Chunk, Unit::Row) if a.1 => Unit::Tensor,
        (Unit::Row, Unit::Chunk) if b.1 => Unit::Tensor,
        (a, b) => a.max(b),
    }
}

/// The head of every block, for a kernel that is content with a sample. The engine's own samples spread over the
/// whole model, so that a tensor might get none.
fn glances(kernel: &dyn Kernel, round: usize, chunk: &Chunk) -> Result<Vec<Partial>> {
    let mut found = Vec::new();
    for from in (0..chunk.len()).step_by(BLOCK) {
        let to = (from + BLOCK / 16).min(chunk.len());
        let inputs: Vec<&[f32]> = chunk.inputs.iter().map(|x| &x[from..to]).collect();
        found.push(kernel.survey(
            round,
            &Chunk {
                start: chunk.start + from,
                base: chunk.base.map(|b| &b[from..to]),
                inputs: &inputs,
                ..*chunk
            },
        )?);
    }
    Ok(found)
}

impl PerTensor {
    /// The chunk as its own kernel sees it.
    fn own<'a>(chunk: &Chunk<'a>) -> Chunk<'a> {
        Chunk { index: 0, ..*chunk }
    }

    fn end(&mut self, tensor: usize, round: usize) -> Result<()> {
        if !self.done[tensor] {
            self.done[tensor] = self.kernels[tensor].finish(round)? == Next::Done;
        }
        Ok(())
    }
}

impl Kernel for PerTensor {
    fn surveys(&self) -> bool {
        self.done.iter().any(|d| !d)
    }

    fn unit(&self) -> Unit {
        self.unit
    }

    fn survey(&self, round: usize, chunk: &Chunk) -> Result<Partial> {
        let kernel = &self.kernels[chunk.index];
        let own = Self::own(chunk);
        let found = if self.done[chunk.index] {
            Vec::new()
        } else if kernel.samples() {
            glances(kernel.as_ref(), round, &own)?
        } else {
            vec![kernel.survey(round, &own)?]
        };
        Ok(Box::new((chunk.index, found)))
    }

    fn absorb(&mut self, round: usize, partial: Partial) -> Result<()> {
        let (tensor, found) = typed::<(usize, Vec<Partial>)>(partial)?;
        if tensor >= self.kernels.len() {
            return Err(MergeError::Internal("partial of an unknown tensor".into()));
        }
        while self.at < tensor {
            self.end(self.at, round)?;
            self.at += 1;
        }
        found
            .into_iter()
            .try_for_each(|f| self.kernels[tensor].absorb(round, f))
    }

    fn finish(&mut self, round: usize) -> Result<Next> {
        for tensor in self.at..self.kernels.len() {
            self.end(tensor, round)?;
        }
        self.at = 0;
        Ok(if self.surveys() {
            Next::Again
        } else {
            Next::Done
        })
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        self.kernels[chunk.index].apply(&Self::own(chunk), out)
    }

    fn part(&self, part: Part, chunk: &Chunk, out: &mut [f32]) -> Result<bool> {
        self.kernels[chunk.index].part(part, &Self::own(chunk), out)
    }

    fn task_scale(&self, task: usize) -> Option<f64> {
        self.kernels.first().and_then(|k| k.task_scale(task))
    }
}
