//! From a wish to a device.

use std::path::Path;

use crate::{Card, Error, Refusal, Surroundings, Survey};

/// What a user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The first card that can be used, else the CPU.
    Auto,
    Cpu,
    /// A card by its index, or the first that can be used.
    Cuda(Option<usize>),
}

impl Wanted {
    /// `auto`, `cpu`, `cuda`, `cuda:1`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let unknown = || Error::Unknown { given: text.to_owned() };
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(None)),
            _ => {
                let digits = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                // Not what `parse` also takes: "+1".
                let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                let index = plain.then(|| digits.parse().ok()).flatten().ok_or_else(unknown)?;
                Ok(Self::Cuda(Some(index)))
            }
        }
    }
}

/// What the program that asks was built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    WithoutCuda,
    Cuda,
}

impl Build {
    /// Why it cannot use any card.
    pub fn problem(self) -> Option<Error> {
        match self {
            Self::WithoutCuda => Some(Error::NoBuild),
            Self::Cuda => None,
        }
    }
}

/// Where work is to be done.
#[derive(Clone, Debug)]
pub enum Choice {
    Cpu {
        /// Why it is no card, where one would have been taken.
        because: Option<Error>,
        /// Whether the machine seems to have a card all the same.
        card_here: bool,
    },
    Card(Card),
}

/// The device for a wish. `auto` never fails; `cpu` looks for nothing.
pub fn choose(wanted: Wanted, build: Build, surroundings: &Surroundings) -> Result<Choice, Refusal> {
    match wanted {
        Wanted::Cpu => Ok(Choice::Cpu { because: None, card_here: false }),
        Wanted::Auto => {
            let found = match build.problem() {
                // Not worth starting a driver.
                Some(problem) => Err(problem),
                None => card(None, &mut Survey::of(surroundings)),
            };
            Ok(match found {
                Ok(card) => Choice::Card(card),
                Err(because) => Choice::Cpu { because: Some(because), card_here: card_seems_here(surroundings) },
            })
        }
        Wanted::Cuda(index) => {
            let mut survey = Survey::of(surroundings);
            let found = match build.problem() {
                Some(problem) => Err(problem),
                None => card(index, &mut survey),
            };
            found.map(Choice::Card).map_err(|error| Refusal { error, attempts: survey.attempts })
        }
    }
}

/// The first card that can be used, for programs that are for a card alone.
pub fn first_card() -> Result<Card, Refusal> {
    let mut survey = Survey::of(&Surroundings::of_process());
    let found = card(None, &mut survey);
    found.map_err(|error| Refusal { error, attempts: survey.attempts })
}

/// The card of that index, or the first that can be used; where none can, what is wrong with the first.
fn card(index: Option<usize>, survey: &mut Survey) -> Result<Card, Error> {
    if let Some(index) = index {
        return survey.examine(index);
    }
    let first = survey.examine(0);
    if first.is_ok() {
        return first;
    }
    (1..survey.cards.len()).find_map(|index| survey.examine(index).ok()).map_or(first, Ok)
}

/// The nodes of the kernel's driver (of Windows' Linux: its graphics).
fn card_seems_here(surroundings: &Surroundings) -> bool {
    ["/dev/nvidiactl", "/dev/dxg"].iter().any(|path| Path::exists(&surroundings.at(path)))
}

#[cfg(test)]
mod test {
    use super::Wanted;

    #[test]
    fn names_of_devices() {
        for (text, wanted) in [
            ("auto", Wanted::Auto),
            ("cpu", Wanted::Cpu),
            ("cuda", Wanted::Cuda(None)),
            ("cuda:0", Wanted::Cuda(Some(0))),
            ("cuda:12", Wanted::Cuda(Some(12))),
        ] {
            assert_eq!(Wanted::parse(text), Ok(wanted));
        }
        for text in
            ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:+1", "cuda: 1", "cuda:1.0", "cuda:99999999999999999999"]
        {
            assert_eq!(Wanted::parse(text).expect_err(text).code(), "ZA_DEVICE_UNKNOWN");
        }
    }
}
