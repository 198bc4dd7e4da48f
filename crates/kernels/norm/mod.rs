//! The squared Euclidean norm of a gradient, for clipping by global norm.

#[cfg(test)]
mod test;

mod cpu;
pub mod cuda;

/// `Σ x²` in f64. An infinity or a NaN in `x` makes the result non-finite, which is how the trainer finds out.
///
/// The order of the sum is fixed by the length alone: the same bits for any number of threads.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    cpu::sum_of_squares(x)
}
