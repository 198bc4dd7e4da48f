//! The network of a generator on a device: steps over tokens whose keys and values stay in device memory, in pages that are
//! taken as a sequence grows and given to the next one when it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zephyr_kernels::attention::cuda::{CachePlan, PAGE, Piece, page_elements};
use zephyr_kernels::attention::{CacheShape, CacheType};
use zephyr_kernels::cuda::{Arena, Device, DeviceError, Element, Pointer, Reserved};
use zephyr_kernels::head;

use super::workspace::Attention;
use super::{Decoder, Drawn, Planned, Sizes, Workspace};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::generate::{Cache, Network, Step, cache_name};
use crate::train::{Batch, Recompute};

/// Rows whose logits exist at one time.
const HEAD_CHUNK: usize = 128;

/// Pages of all sequences of a room. They stay in its memory until it is dropped.
#[derive(Debug)]
struct Pages {
    device: Arc<dyn Device>,
    /// Bytes of one
    bytes: usize,
    free: Vec<u64>,
    made: usize,
    memory: Vec<Reserved>,
}

impl Pages {
    /// So many pages, of which the memory is made where none are free.
    fn take(&mut self, count: usize) -> std::result::Result<Vec<u64>, DeviceError> {
        if let Some(missing) = count.checked_sub(self.free.len()).filter(|&missing| missing > 0) {
            // A few at a time, unless these few are all that there is room for.
            self.grow(missing.max(self.made / 4)).or_else(|_| self.grow(missing))?;
        }
        Ok(self.free.split_off(self.free.len() - count))
    }

    fn grow(&mut self, count: usize) -> std::result::Result<(), DeviceError> {
        let lay = |arena: &mut Arena| -> Vec<u64> {
            (0..count).map(|_| arena.part::<u8>("page", self.bytes).address).collect()
        };
        let (memory, pages) = Arena::reserve(&self.device, "Keys and values", lay)?;
        self.memory.push(memory);
        self.free.extend(pages);
        self.made += count;
        Ok(())
    }
}

fn lock(pages: &Mutex<Pages>) -> MutexGuard<'_, Pages> {
    pages.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keys and values of one sequence in device memory.
pub struct PagedCache {
    pages: Vec<u64>,
    length: usize,
    all: Arc<Mutex<Pages>>,
}

impl PagedCache {
    /// Forgets what lies behind the first `length` positions.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
        let unused = self.pages.split_off(self.length.div_ceil(PAGE));
        lock(&self.all).free.extend(unused);
    }

    /// Positions that are there.
    pub fn length(&self) -> usize {
        self.length
    }
}

impl Drop for PagedCache {
    fn drop(&mut self) {
        self.truncate(0);
    }
}

/// What steps of a model need besides its weights: pages, a workspace, and what attention leaves of each stretch of keys.
#[derive(Debug)]
pub struct Room<T: Element> {
    pages: Arc<Mutex<Pages>>,
    workspace: Option<(Reserved, Workspace<T>)>,
    parts: Option<Parts>,
    stats: head::Stats,
    shortage: fn(),
}

#[derive(Debug)]
struct Parts {
    rows: usize,
    parts: Pointer<f32>,
    lse: Pointer<f32>,
    memory: Reserved,
}

impl<T: Element> Room<T> {
    /// An empty one for a model; its memory is taken as it is needed. Where there is none left, `shortage` may make others give
    /// theirs back.
    pub fn new(decoder: &Decoder<T>, shortage: fn()) -> Self {
        let Config { layers, kv_heads, head_dim, .. } = decoder.config;
        let bytes = page_elements(layers, kv_heads, head_dim) * size_of::<T>();
        let device = decoder.device.clone();
        let pages = Pages { device, bytes, free: Vec::new(), made: 0, memory: Vec::new() };
        let (pages, stats) = (Arc::new(Mutex::new(pages)), head::Stats::default());
        Self { pages, workspace: None, parts: None, stats, shortage }
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> usize {
        let pages: usize = lock(&self.pages).memory.iter().map(Reserved::bytes).sum();
        let parts = self.parts.as_ref().map_or(0, |parts| parts.memory.bytes());
        pages + parts + self.workspace.as_ref().map_or(0, |(memory, _)| memory.bytes())
    }

    /// Pages for every position of the step.
    fn make_pages(&self, caches: &mut [&mut PagedCache], pieces: &[&[u32]]) -> Result<()> {
        let missing = |cache: &PagedCache, piece: &[u32]| {
            (cache.length + piece.len()).div_ceil(PAGE).saturating_sub(cache.pages.len())
        };
        let wanted: Vec<usize> = caches.iter().zip(pieces).map(|(cache, piece)| missing(cache, piece)).collect();
        let tokens = caches.iter().zip(pieces).map(|(cache, piece)| cache.length + piece.len()).sum();
        let taken = self.insist(|| lock(&self.pages).take(wanted.iter().sum()));
        let mut taken = taken.map_err(|error| match error {
            DeviceError::OutOfMemory { asked_and_free: Some([bytes, free]), .. } => {
                Error::CacheMemory { sequences: caches.len(), tokens, bytes, free }
            }
            other => other.into(),
        })?;
        for (cache, wanted) in caches.iter_mut().zip(wanted) {
            cache.pages.extend(taken.split_off(taken.len() - wanted));
        }
        Ok(())
    }

    fn make_parts(
        &mut self,
        device: &Arc<dyn Device>,
        config: &Config,
        rows: usize,
    ) -> Result<(Pointer<f32>, Pointer<f32>)> {
        if self.parts.as_ref().is_none_or(|parts| parts.rows < rows) {
            self.parts = None;
            let rows = rows.next_power_of_two();
            let lay = |arena: &mut Arena| {
                (arena.part("parts", rows * config.heads * config.head_dim), arena.part("lse", rows * config.heads))
            };
            let (memory, (parts, lse)) =
                self.insist(|| Arena::reserve(device, "Attention over keys and values", lay))?;
            self.parts = Some(Parts { rows, parts, lse, memory });
        }
        Ok(self.parts.as_ref().map_or((Pointer::NULL, Pointer::NULL), |parts| (parts.parts, parts.lse)))
    }

    fn make_workspace(&mut self, decoder: &Decoder<T>, wanted: &Sizes) -> Result<()> {
        let Some(sizes) = wanted.beyond(self.workspace.as_ref().map(|(_, workspace)| &workspace.sizes)) else {
            return Ok(());
        };
        self.workspace = None;
        let lay = |arena: &mut Arena| Workspace::lay(arena, &decoder.config, decoder.adapter.as_ref(), &sizes);
        self.workspace = Some(self.insist(|| Arena::reserve(&decoder.device, "The workspace of a step", lay))?);
        Ok(())
    }

    /// Takes memory; where there is none, once more when others had the chance to give theirs back.
    fn insist<R>(&self, take: impl Fn() -> std::result::Result<R, DeviceError>) -> std::result::Result<R, DeviceError> {
        match take() {
            Err(DeviceError::OutOfMemory { .. }) => {
                (self.shortage)();
                take()
            }
            taken => taken,
        }
    }
}

/// A model on a device as a generator drives it, with its adapter if it has one.
pub struct Cached<'a, T: Element> {
    pub decoder: &'a Decoder<T>,
    pub room: &'a mut Room<T>,
}

impl<T: Element> Network for Cached<'_, T> {
    fn config(&self) -> &Config {
        &self.decoder.config
    }

    fn cache(&self, kind: Option<CacheType>, _: bool) -> Result<Cache> {
        if let Some(kind) = kind.filter(|&kind| (kind, T::LETTER) != (CacheType::F32, 'f')) {
            return Err(Error::GenerateOption {
                field: "kvCache",
                value: format!("{:?} on a device", cache_name(kind)),
                remedy: "Leave it out: a device keeps keys and values in the type that it computes in. The CPU has all types.",
            });
        }
        Ok(Cache::Device(PagedCache { pages: Vec::new(), length: 0, all: self.room.pages.clone() }))
    }

    fn step(&mut self, caches: &mut [Cache], step: &Step, out: &mut Vec<f32>) -> Result<()> {
        let Self { decoder, room } = self;
        let mut own: Vec<&mut PagedCache> = caches.iter_mut().map(of_device).collect();
        room.make_pages(&mut own, step.pieces)?;
        let (ids, mut positions, mut segments) = (step.pieces.concat(), Vec::new(), vec![0]);
        let mut pieces = Vec::new();
        for (cache, piece) in own.iter().zip(step.pieces) {
            positions.extend((cache.length..cache.length + piece.len()).map(|position| position as u32));
            segments.push(positions.len() as u32);
            pieces.push(Piece { tokens: piece.len(), position: cache.length, pages: &cache.pages });
        }
        let batch = Batch { ids: &ids, positions: &positions, segments: &segments, prefixes: &[] };
        batch.check(&decoder.config, decoder.config.max_position_embeddings)?;
        let Config { heads, kv_heads, head_dim, sliding_window: window, .. } = decoder.config;
        let shape = CacheShape { heads, kv_heads, head_dim, window, scale: (head_dim as f32).sqrt().recip() };
        let plan = CachePlan::new(&pieces, &shape);
        let (parts, lse) = room.make_parts(&decoder.device, &decoder.config, plan.parts)?;
        let planned = Planned { batch, attention: Attention::Cached { plan, parts, lse } };
        room.make_workspace(decoder, &planned.sizes(step.rows.len(), HEAD_CHUNK, false, Recompute::default()))?;
        let Some((_, workspace)) = &room.workspace else { unreachable!("made above") };

        let nobody = vec![0; step.rows.len()];
        let loaded = decoder.load(workspace, planned, step.rows, step.targets.unwrap_or(&nobody), Drawn::default())?;
        decoder.forward(&loaded, workspace, false, true)?;
        match step.targets {
            Some(_) => {
                decoder.statistics(&loaded, workspace)?.wait(&mut room.stats)?;
                out.extend_from_slice(&room.stats.logp);
            }
            None => out.extend(decoder.all_logits(&loaded, workspace)?),
        }
        for (cache, piece) in own.iter_mut().zip(step.pieces) {
            cache.length += piece.len();
        }
        Ok(())
    }

    fn takes_threads(&self) -> bool {
        false
    }
}

fn of_device(cache: &mut Cache) -> &mut PagedCache {
    match cache {
        Cache::Device(cache) => cache,
        Cache::Host(_) => unreachable!("a cache of another network"),
    }
}
