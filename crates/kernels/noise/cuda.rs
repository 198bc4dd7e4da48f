//! Launches of `kernel.cu`.

use super::Noise;
use crate::cuda::{Element, Launch, Pointer, kernel, packs, queue};

/// As [`Noise::add`], for `embeddings` `[tokens, width]` and the tokens' [`Noise::reaches`].
pub fn add<T: Element>(
    noise: &Noise,
    embeddings: Pointer<T>,
    reaches: Pointer<f32>,
    tokens: usize,
    width: usize,
) -> Launch {
    let (grid, threads, width) = packs::<T>(tokens, width);
    queue!(kernel!(T, "noise_add"), grid, threads, 0; embeddings, reaches, width, noise.key())
}
