//! The devices of this machine, and the one that a wish comes to.
//!
//! A driver may take seconds to start and a job may hold the engine for hours, so both run on threads of their own.

use napi::Env;
use napi::bindgen_prelude::{Object, ToNapiValue};
use napi_derive::napi;
use serde_json::{Value, json};
use zephyr_devices::{Choice, Error, Surroundings, Survey, Wanted};

use crate::card::{BUILD, choose};
use crate::engine::{Promised, promise};
use crate::failure::Failure;

fn beside<'env, T>(
    env: &'env Env,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> napi::Result<Object<'env>>
where
    T: ToNapiValue + Send + 'static,
{
    promise(env, |promised: Promised<T>| {
        std::thread::Builder::new()
            .name("zephyr-devices".into())
            .spawn(move || promised.settle(work))
            .map(|_| ())
            .map_err(|error| Failure::new("ZA_THREADS", format!("the thread that looks for devices: {error}")))
    })
}

fn problem_of(error: &Error) -> Value {
    json!({ "code": error.code(), "text": error.to_string(), "remedy": error.remedy() })
}

/// What was looked for, where, and what was found (JSON): driver, libraries, cards with what hinders each, attempts.
#[napi(ts_return_type = "Promise<string>")]
pub fn survey_devices(env: &Env) -> napi::Result<Object<'_>> {
    beside(env, || {
        let mut survey = Survey::of(&Surroundings::of_process());
        let examined: Vec<Option<Error>> =
            (0..survey.cards.len()).map(|index| survey.examine(index).err().or(BUILD.problem())).collect();
        let cards = survey.cards.iter().zip(&examined).map(|(card, problem)| {
            let mut card = json!(card);
            card["problem"] = json!(problem.as_ref().map(problem_of));
            card
        });
        let found = json!({
            "build": BUILD.problem().as_ref().map(problem_of),
            "driver": survey.driver,
            "libraries": survey.libraries,
            "cards": cards.collect::<Vec<_>>(),
            "attempts": survey.attempts,
            "problem": survey.problem.as_ref().map(problem_of),
        });
        Ok(found.to_string())
    })
}

/// Loads every kernel onto a card, which shows that its driver takes them. Resolves to the number of sources.
#[napi(ts_return_type = "Promise<number>")]
pub fn load_kernels(env: &Env, card: u32) -> napi::Result<Object<'_>> {
    beside(env, move || kernels_on(card as usize))
}

#[cfg(feature = "cuda")]
fn kernels_on(card: usize) -> Result<u32, Failure> {
    use zephyr_kernels::cuda::launch::Launcher;
    // It opens the driver's library, too.
    choose(Wanted::Cuda(Some(card)))?;
    let refused = |what: String| {
        Failure::new("ZA_DEVICE_FAILS", format!("card {card}: {what}. Remedy: install driver 580 or newer (CUDA 13)"))
    };
    let context = cudarc::driver::CudaContext::new(card).map_err(|error| refused(format!("{error:?}")))?;
    let launcher = Launcher::new(context.default_stream()).map_err(|error| refused(error.to_string()))?;
    Ok(launcher.sources() as u32)
}

#[cfg(not(feature = "cuda"))]
fn kernels_on(_: usize) -> Result<u32, Failure> {
    Err(Error::NoBuild.into())
}

/// The device for `auto`, `cpu`, `cuda` or `cuda:1` (JSON): `kind`, and the card or why it is none.
#[napi(ts_return_type = "Promise<string>")]
pub fn choose_device(env: &Env, wanted: String) -> napi::Result<Object<'_>> {
    beside(env, move || {
        let chosen = match choose(Wanted::parse(&wanted)?)? {
            Choice::Card(card) => json!({ "kind": "cuda", "card": card }),
            Choice::Cpu { because, card_here } => {
                json!({ "kind": "cpu", "because": because.as_ref().map(problem_of), "cardHere": card_here })
            }
        };
        Ok(chosen.to_string())
    })
}
