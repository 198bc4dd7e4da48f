//! Values of one type as those of the other, and rows of one array as rows of another.
//!
//! On the CPU these are [`matrix::to_bf16`](crate::matrix::to_bf16), [`Matrix::read`](crate::matrix::Matrix::read) and
//! `copy_from_slice`; a GPU wants kernels of its own for them.

pub mod cuda;
