//! Given text that goes through a model piece by piece, between which the page's messages come in.

use std::rc::Rc;

use wasm_bindgen::prelude::wasm_bindgen;
use zephyr_mistral::Weights;
use zephyr_mistral::generate::{Generator, Scoring, Wanted};

use crate::failure::Failure;
use crate::generation::ROWS;

/// Log-probabilities, or logits, in work. Dropping it is the end of it.
#[wasm_bindgen]
pub struct WasmScoring {
    // Before what they refer to: fields are dropped in this order.
    work: Option<(Scoring, Generator<'static>)>,
    _weights: Rc<Weights>,
}

impl WasmScoring {
    pub(crate) fn new(weights: Rc<Weights>, ids: &[u32], exact: bool, wanted: Wanted) -> Result<Self, Failure> {
        // SAFETY: what an `Rc` holds stays in its place, and unchanged as nobody has it mutably, as long as the `Rc` lives;
        // that of this struct lives longer than what refers to it.
        let held = unsafe { &*Rc::as_ptr(&weights) };
        let mut generator = Generator::new(held).with_rows(ROWS);
        generator.set_exact(exact);
        let work = Some((Scoring::new(&generator, ids, wanted)?, generator));
        Ok(Self { work, _weights: weights })
    }
}

fn over() -> Failure {
    Failure::new("ZA_ARGUMENT", "the scoring is over. Remedy: Begin another.")
}

#[wasm_bindgen]
impl WasmScoring {
    /// One step: 128 tokens. Gives whether there is more to do.
    pub fn step(&mut self) -> Result<bool, Failure> {
        let (scoring, generator) = self.work.as_mut().ok_or_else(over)?;
        Ok(scoring.step(generator)?)
    }

    /// What was asked for, when no step is left.
    pub fn finish(&mut self) -> Result<Vec<f32>, Failure> {
        let (scoring, _) = self.work.take().ok_or_else(over)?;
        Ok(scoring.finish())
    }
}
