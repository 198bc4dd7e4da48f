//! The decoding loop over many sequences.

use super::sampler::{Choice, Sampler};
use super::{Cache, FinishReason, Generation, Generator, Halt, Request, Step, check_tokens};
use crate::error::{Error, Result};
use std::ops::ControlFlow;
use zephyr_kernels::{leads, run, team};

/// Tokens up to which a step is many short tasks, for which threads should be at hand.
const FEW: usize = 32;

/// A sequence in work.
struct Active {
    index: usize,
    /// Prompt tokens that have not been through the network, or the token chosen last.
    pending: Vec<u32>,
    sampler: Sampler,
    ids: Vec<u32>,
    logps: Vec<f32>,
    top: Vec<Vec<(u32, f32)>>,
}

impl Active {
    fn finished(self, finish: FinishReason) -> Generation {
        Generation { ids: self.ids, logps: self.logps, top: self.top, finish }
    }
}

/// Requests between two steps of the network, for whoever has other things to do in between. [`Generator::generate_batch`]
/// takes all steps at once.
pub struct Batch {
    requests: Vec<Request>,
    /// The first request that nobody has begun.
    waiting: usize,
    active: Vec<Active>,
    /// Beside `active`, place by place.
    caches: Vec<Cache>,
    logits: Vec<f32>,
    answers: Vec<Generation>,
}

impl Batch {
    /// # Errors
    /// As [`Generator::generate`], but `ZA_NOT_FINITE` and a device's.
    pub fn new(generator: &Generator, requests: Vec<Request>) -> Result<Self> {
        for request in &requests {
            check_tokens(&request.prompt, &generator.config)?;
            request.options.check()?;
        }
        // A kind of cache that there is not is refused before any work.
        generator.network.cache(generator.cache, false)?;
        let answers = vec![Generation::default(); requests.len()];
        Ok(Self { requests, waiting: 0, active: Vec::new(), caches: Vec::new(), logits: Vec::new(), answers })
    }

    /// All steps, always with the same generator, until nothing is left or it is aborted. `on_token` as in [`Batch::step`].
    ///
    /// # Errors
    /// `ZA_NOT_FINITE`, and a device's.
    pub(super) fn steps(
        &mut self,
        generator: &mut Generator,
        mut on_token: impl FnMut(usize, u32, f32) -> ControlFlow<Halt>,
    ) -> Result<()> {
        let mut more = true;
        while more && !generator.aborted() {
            let few = self.takes_few(generator);
            let turn = || {
                let mut more = self.turn(generator, &mut on_token)?;
                // One team for all such steps: threads that slept between two would come too late.
                while more && leads() && self.takes_few(generator) && !generator.aborted() {
                    more = self.turn(generator, &mut on_token)?;
                }
                Ok::<_, Error>(more)
            };
            more = with_team(few, turn)?;
        }
        Ok(())
    }

    /// One step, always with the same generator: a piece of the prompts, or one token of every sequence. Gives whether there is
    /// more to do. `on_token` gets the request's place, a token and its log-probability.
    ///
    /// # Errors
    /// `ZA_NOT_FINITE`, and a device's.
    pub fn step(
        &mut self,
        generator: &mut Generator,
        on_token: impl FnMut(usize, u32, f32) -> ControlFlow<Halt>,
    ) -> Result<bool> {
        with_team(self.takes_few(generator), || self.turn(generator, on_token))
    }

    fn turn(
        &mut self,
        generator: &mut Generator,
        mut on_token: impl FnMut(usize, u32, f32) -> ControlFlow<Halt>,
    ) -> Result<bool> {
        let config = generator.config.clone();
        self.begin_waiting(generator)?;
        let Self { requests, active, caches, logits, answers, .. } = self;
        if active.is_empty() {
            return Ok(false);
        }
        let ready = advance(generator, active, caches, logits)?;
        let chosen = choose(active, &ready, logits, config.vocab_size, caches)?;
        let mut finished = Vec::new();
        let mut halted = false;
        for (place, Choice { token, logp, top }) in ready.into_iter().zip(chosen) {
            let sequence = &mut active[place];
            let options = &requests[sequence.index].options;
            let stops = options.stop_token_ids.as_deref().unwrap_or(&config.eos_token_ids);
            let finish = if stops.contains(&token) {
                Some(FinishReason::StopToken(token))
            } else {
                sequence.ids.push(token);
                sequence.logps.push(logp);
                if !top.is_empty() {
                    sequence.top.push(top);
                }
                sequence.pending.push(token);
                match on_token(sequence.index, token, logp) {
                    ControlFlow::Break(Halt::Sequence) => Some(FinishReason::Callback),
                    ControlFlow::Break(Halt::Batch) => {
                        halted = true;
                        break;
                    }
                    ControlFlow::Continue(()) if sequence.ids.len() >= options.max_tokens => Some(FinishReason::Length),
                    ControlFlow::Continue(()) if caches[place].length() >= config.max_position_embeddings => {
                        Some(FinishReason::Context)
                    }
                    ControlFlow::Continue(()) => None,
                }
            };
            finished.extend(finish.map(|finish| (place, finish)));
        }
        // From the back, so that the places before stay what they are.
        for (place, finish) in finished.into_iter().rev() {
            let sequence = active.remove(place);
            let index = sequence.index;
            generator.end(caches.remove(place), &requests[index].prompt, &sequence.ids);
            answers[index] = sequence.finished(finish);
        }
        Ok(!halted && (!self.active.is_empty() || self.waiting < self.requests.len()))
    }

    /// The answers in the order of the requests; what was not at its end is aborted.
    pub fn finish(self, generator: &mut Generator) -> Vec<Generation> {
        let mut answers = self.answers;
        for (sequence, cache) in self.active.into_iter().zip(self.caches) {
            let index = sequence.index;
            generator.end(cache, &self.requests[index].prompt, &sequence.ids);
            answers[index] = sequence.finished(FinishReason::Aborted);
        }
        answers
    }

    /// Whether the next step is so few tokens that threads should be at hand.
    fn takes_few(&self, generator: &Generator) -> bool {
        let free = generator.max_active.saturating_sub(self.active.len());
        let begun = self.requests[self.waiting..].iter().take(free).map(|request| request.prompt.len());
        let pending = self.active.iter().map(|sequence| sequence.pending.len());
        generator.network.takes_threads() && pending.chain(begun).sum::<usize>() <= FEW
    }

    fn begin_waiting(&mut self, generator: &mut Generator) -> Result<()> {
        while self.active.len() < generator.max_active {
            let Some(request) = self.requests.get(self.waiting) else { break };
            let index = self.waiting;
            self.waiting += 1;
            if request.options.max_tokens == 0 {
                self.answers[index].finish = FinishReason::Length;
                continue;
            }
            let (cache, shared) = generator.begin(&request.prompt)?;
            self.active.push(Active {
                index,
                pending: request.prompt[shared..].to_vec(),
                sampler: Sampler::new(&request.options, &request.prompt, generator.config.vocab_size),
                ids: Vec::new(),
                logps: Vec::new(),
                top: Vec::new(),
            });
            self.caches.push(cache);
        }
        Ok(())
    }
}

fn with_team<R>(wanted: bool, body: impl FnOnce() -> R) -> R {
    if wanted { team(body) } else { body() }
}

/// The network's part of a step: a token of every sequence, and as much of waiting prompts as fits in a step's rows.
/// Gives the places whose next token can be chosen, and their logits in that order.
fn advance(
    generator: &mut Generator,
    active: &mut [Active],
    caches: &mut [Cache],
    logits: &mut Vec<f32>,
) -> Result<Vec<usize>> {
    let decoding = active.iter().filter(|sequence| sequence.pending.len() == 1).count();
    let mut room = generator.rows.saturating_sub(decoding);
    let mut pieces: Vec<&[u32]> = Vec::with_capacity(active.len());
    for sequence in active.iter() {
        let take = match sequence.pending.len() {
            1 => 1,
            prompt => prompt.min(room),
        };
        if sequence.pending.len() != 1 {
            room -= take;
        }
        pieces.push(&sequence.pending[..take]);
    }
    let (mut ready, mut rows, mut end) = (Vec::new(), Vec::new(), 0);
    for (place, (sequence, piece)) in active.iter().zip(&pieces).enumerate() {
        end += piece.len();
        if !piece.is_empty() && piece.len() == sequence.pending.len() {
            ready.push(place);
            rows.push(end as u32 - 1);
        }
    }
    logits.clear();
    let step = Step { pieces: &pieces, rows: &rows, targets: None, exact: false };
    generator.network.step(caches, &step, logits)?;
    let taken: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
    for (sequence, taken) in active.iter_mut().zip(taken) {
        sequence.pending.drain(..taken);
    }
    Ok(ready)
}

/// The next token of the sequences at the places `ready`, with its log-probability.
fn choose(
    active: &mut [Active],
    ready: &[usize],
    logits: &[f32],
    vocabulary: usize,
    caches: &[Cache],
) -> Result<Vec<Choice>> {
    let mut places = ready.iter().peekable();
    let samplers: Vec<&mut Sampler> = active
        .iter_mut()
        .enumerate()
        .filter(|(place, _)| places.next_if(|next| *next == place).is_some())
        .map(|(_, sequence)| &mut sequence.sampler)
        .collect();
    let mut chosen: Vec<Option<Choice>> = ready.iter().map(|_| None).collect();
    let tasks = samplers.into_iter().zip(logits.chunks_exact(vocabulary)).zip(&mut chosen);
    run(tasks, |((sampler, logits), choice)| *choice = sampler.next(logits));
    let choices = chosen.into_iter().zip(ready);
    choices
        .map(|(choice, place)| choice.ok_or_else(|| Error::NotFinite { position: caches[*place].length() }))
        .collect()
}
