//! The fastest that matrix products go on this machine: what the speed of a training is held against.

use std::time::{Duration, Instant};

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use zephyr_align::session::Precision;
use zephyr_kernels::cuda::Bf16;
use zephyr_kernels::gemm::{self, Mat, MatMut};

use crate::card;
use crate::engine::submit;
use crate::failure::Failure;

/// Rows and columns of both factors: they fit no cache, as those of a model do not.
const SIZE: usize = 1536;
/// The same of a card, where products must also be long beside their start.
const SIZE_ON_CARD: usize = if cfg!(feature = "emulated") { 128 } else { 8192 };

/// Measures products for about so many seconds, at least two of them after a first one: of f32 on the compute threads, or of
/// `precision` (bfloat16, float32) on a card. Resolves to the operations in a second of the fastest.
#[napi(ts_return_type = "Promise<number>")]
pub fn measure_gemm_peak(env: &Env, seconds: f64, card: Option<u32>, precision: String) -> napi::Result<Object<'_>> {
    submit(env, move || match (card, Precision::parse(&precision)) {
        (None, _) => Ok(on_this_processor(seconds)),
        (Some(card), Some(Precision::F32)) => {
            Ok(gemm::cuda::peak::<f32>(&card::open(card as usize)?, SIZE_ON_CARD, seconds)?)
        }
        (Some(card), Some(Precision::Bf16)) => {
            Ok(gemm::cuda::peak::<Bf16>(&card::open(card as usize)?, SIZE_ON_CARD, seconds)?)
        }
        (Some(_), None) => Err(Failure::new("ZA_ARGUMENT", format!("{precision:?} is no precision"))),
    })
}

fn on_this_processor(seconds: f64) -> f64 {
    let factor: Vec<f32> = (0..SIZE * SIZE).map(|index| (index % 17) as f32 - 8.0).collect();
    let mut product = vec![0.0; SIZE * SIZE];
    let mut fastest = Duration::MAX;
    let begin = Instant::now();
    let mut runs = 0;
    while runs < 3 || begin.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        let (a, b) = (Mat::new(&factor, SIZE, SIZE), Mat::new(&factor, SIZE, SIZE));
        gemm::nt(MatMut::new(&mut product, SIZE, SIZE), a, b, 1.0, 0.0);
        // The first run wakes the threads.
        if runs > 0 {
            fastest = fastest.min(start.elapsed());
        }
        runs += 1;
    }
    2.0 * (SIZE as f64).powi(3) / fastest.as_secs_f64()
}
