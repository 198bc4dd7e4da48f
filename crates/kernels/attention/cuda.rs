//! Launches of `forward.cu` and `backward.cu` (bf16 in and out, f32 within, on tensor cores), of `plain.cu` (f32), and
//! ([`hopper`]) of the kernels for Hopper alone; ([`cached`]) of those over pages of keys and values.
//!
//! A [`Plan`] lists for a batch what each block works on: tiles of queries with the keys that they see, tiles of keys with
//! the queries that see them. It depends on the batch's segments alone and goes to the GPU with its tokens. Longer walks
//! come first, so that the last blocks to finish are short ones.

#[path = "cached.rs"]
mod cached;
#[path = "hopper.rs"]
mod hopper;

use std::ops::Range;

pub use cached::{CachePlan, PAGE, Piece, page_elements};
pub use hopper::HOPPER_HEAD_DIMS;

use super::Shape;
use crate::cuda::{Argument, Element, Launch, Pointer, WARP, narrow, queue};

/// Head dimensions that the bf16 kernels exist for; f32 ones take any up to 128.
pub const HEAD_DIMS: [usize; 5] = [16, 32, 64, 96, 128];
/// Queries, and keys, of a tile of the backward pass; keys of one of the forward pass.
const TILE: usize = 64;
const THREADS: u32 = 128;
/// Words of a tile and of a reader in the plan.
const TILE_WORDS: usize = 8;
const READER_WORDS: usize = 4;

/// Queries of a tile of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardTile {
    /// Less shared memory and fewer registers, and less waste on short segments.
    Rows64,
    /// Reads keys and values half as often; head dimensions from 64 on.
    Rows128,
}

/// The work of attention on one batch.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What lies in device memory for the kernels.
    pub words: Vec<u32>,
    forward_tile: ForwardTile,
    /// By the kernels for Hopper, whose tiles of both passes have 128 rows
    hopper: bool,
    /// Where the lists begin and end in `words`.
    forward: Range<usize>,
    backward: Range<usize>,
    keys: Range<usize>,
    readers: usize,
    tokens: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: u32,
    scale: f32,
}

/// A tile and how long its walk is.
struct Tile {
    words: [u32; TILE_WORDS],
    work: usize,
}

impl Plan {
    /// For `shape`; panics on sizes that do not fit together or that no kernel exists for.
    pub fn new(shape: &Shape, forward_tile: ForwardTile) -> Self {
        let rows = match forward_tile {
            ForwardTile::Rows64 => 64,
            ForwardTile::Rows128 => 128,
        };
        assert!(rows == 64 || shape.head_dim >= 64, "no kernel for head dimension {} and 128 rows", shape.head_dim);
        Self::of_tiles(shape, forward_tile, rows, TILE)
    }

    /// For tiles of `rows` queries in the forward pass, and of `backward_rows` queries, or keys, in the other.
    fn of_tiles(shape: &Shape, forward_tile: ForwardTile, rows: usize, backward_rows: usize) -> Self {
        let tokens = shape.segments.last().map_or(0, |&end| end as usize);
        shape.check(tokens * shape.row());
        assert!(shape.head_dim <= 128, "no kernel for head dimension {}", shape.head_dim);
        let mut words = Vec::new();
        let forward = append(&mut words, query_tiles(shape, rows));
        let same = rows == backward_rows;
        let backward = if same { forward.clone() } else { append(&mut words, query_tiles(shape, backward_rows)) };
        let (keys, readers) = key_tiles(shape, backward_rows);
        let keys = append(&mut words, keys);
        let first_reader = words.len();
        words.extend(readers);
        let window = shape.window.map_or(u32::MAX, |window| u32::try_from(window).unwrap_or(u32::MAX));
        Self {
            words,
            forward_tile,
            hopper: false,
            forward,
            backward,
            keys,
            readers: first_reader,
            tokens,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            window,
            scale: shape.scale,
        }
    }

    /// As [`super::forward`]; `words` are the plan's in device memory.
    pub fn forward<T: Element>(
        &self,
        words: Pointer<u32>,
        qkv: Pointer<T>,
        out: Pointer<T>,
        lse: Pointer<f32>,
    ) -> Launch {
        if self.hopper {
            return self.forward_on_hopper(words, qkv, out, lse);
        }
        let (rows, of_bf16) = match (self.forward_tile, self.head_dim) {
            (ForwardTile::Rows64, 16) => (64, "attention_forward_16_64"),
            (ForwardTile::Rows64, 32) => (64, "attention_forward_32_64"),
            (ForwardTile::Rows64, 64) => (64, "attention_forward_64_64"),
            (ForwardTile::Rows64, 96) => (64, "attention_forward_96_64"),
            (ForwardTile::Rows64, _) => (64, "attention_forward_128_64"),
            (ForwardTile::Rows128, 64) => (128, "attention_forward_64_128"),
            (ForwardTile::Rows128, 96) => (128, "attention_forward_96_128"),
            (ForwardTile::Rows128, _) => (128, "attention_forward_128_128"),
        };
        let shared = self.shared::<T>((rows + 2 * TILE) * self.head_dim, 0);
        let [tokens, heads, kv_heads] = self.sizes();
        let launch = queue!(
            T::kernel("attention_forward_f32", of_bf16), grid(self.heads, &self.forward), THREADS, shared;
            qkv, words.offset(self.forward.start), out, lse, tokens, heads, kv_heads, self.window, self.scale
        );
        self.with_dim::<T>(launch)
    }

    /// As [`super::backward`], to be launched in this order. `row_sums` `[H, T]` is scratch.
    pub fn backward<T: Element>(
        &self,
        words: Pointer<u32>,
        d_out: Pointer<T>,
        qkv: Pointer<T>,
        out: Pointer<T>,
        lse: Pointer<f32>,
        row_sums: Pointer<f32>,
        d_qkv: Pointer<T>,
    ) -> [Launch; 3] {
        if self.hopper {
            return self.backward_on_hopper(words, d_out, qkv, out, lse, row_sums, d_qkv);
        }
        let of_bf16 = match self.head_dim {
            16 => ["attention_row_sums_16", "attention_key_gradients_16", "attention_query_gradients_16"],
            32 => ["attention_row_sums_32", "attention_key_gradients_32", "attention_query_gradients_32"],
            64 => ["attention_row_sums_64", "attention_key_gradients_64", "attention_query_gradients_64"],
            96 => ["attention_row_sums_96", "attention_key_gradients_96", "attention_query_gradients_96"],
            _ => ["attention_row_sums_128", "attention_key_gradients_128", "attention_query_gradients_128"],
        };
        let of_f32 = ["attention_row_sums_f32", "attention_key_gradients_f32", "attention_query_gradients_f32"];
        let name = |index: usize| T::kernel(of_f32[index], of_bf16[index]);
        // Five tiles; the keys' kernel has its queries' log-sum-exps and row sums beside them.
        let (five, states) = (5 * TILE * self.head_dim, 2 * TILE);
        let [tokens, heads, kv_heads] = self.sizes();
        let (tiles, keys, readers) =
            (words.offset(self.backward.start), words.offset(self.keys.start), words.offset(self.readers));
        let launches = [
            queue!(name(0), [tokens, 1, 1], heads.min(8) * WARP, 0; d_out, out, row_sums, tokens, heads),
            queue!(
                name(1), grid(self.kv_heads, &self.keys), THREADS, self.shared::<T>(five, states);
                qkv, d_out, lse, row_sums, keys, readers, d_qkv, tokens, heads, kv_heads, self.window, self.scale
            ),
            queue!(
                name(2), grid(self.heads, &self.backward), THREADS, self.shared::<T>(five, 0);
                qkv, d_out, lse, row_sums, tiles, d_qkv, tokens, heads, kv_heads, self.window, self.scale
            ),
        ];
        launches.map(|launch| self.with_dim::<T>(launch))
    }

    /// Bytes of so many bf16 and f32; the f32 kernels share nothing.
    fn shared<T: Element>(&self, halves: usize, floats: usize) -> u32 {
        let bytes = halves * 2 + floats * size_of::<f32>();
        if size_of::<T>() == 2 { bytes as u32 } else { 0 }
    }

    /// A bf16 kernel is one of a head dimension; an f32 kernel is told it.
    fn with_dim<T: Element>(&self, mut launch: Launch) -> Launch {
        if size_of::<T>() == 2 {
            assert!(HEAD_DIMS.contains(&self.head_dim), "no bf16 kernel for head dimension {}", self.head_dim);
        } else {
            launch.arguments.push(Argument::from(narrow("elements", self.head_dim)));
        }
        launch
    }

    fn sizes(&self) -> [u32; 3] {
        [narrow("tokens", self.tokens), narrow("heads", self.heads), narrow("heads", self.kv_heads)]
    }
}

/// Heads side by side, so that those who share keys run at one time.
fn grid(heads: usize, tiles: &Range<usize>) -> [u32; 3] {
    [narrow("heads", heads), narrow("tiles", tiles.len() / TILE_WORDS), 1]
}

/// The tiles, longest walk first.
fn append(words: &mut Vec<u32>, mut tiles: Vec<Tile>) -> Range<usize> {
    tiles.sort_by_key(|tile| std::cmp::Reverse(tile.work));
    let start = words.len();
    words.extend(tiles.iter().flat_map(|tile| tile.words));
    start..words.len()
}

/// Tiles of queries (`Queries` in plan.cuh).
fn query_tiles(shape: &Shape, rows: usize) -> Vec<Tile> {
    let window = shape.window.unwrap_or(usize::MAX);
    let mut tiles = Vec::new();
    for document in shape.documents() {
        let stem = shape.segments[document.start];
        for segment in document {
            let (start, end) = (shape.segments[segment], shape.segments[segment + 1]);
            let prefix = shape.prefix(segment) as u32;
            for row in (start..end).step_by(rows) {
                let count = (end - row).min(rows as u32);
                let position = prefix + row - start;
                let work = (position + count) as usize - (position as usize + 1).saturating_sub(window);
                tiles.push(Tile { words: [row, count, position, prefix, stem, start, 0, 0], work });
            }
        }
    }
    tiles
}

/// Tiles of keys (`Keys` in plan.cuh) and the words of those who see them (`Reader`).
fn key_tiles(shape: &Shape, rows: usize) -> (Vec<Tile>, Vec<u32>) {
    let window = shape.window.unwrap_or(usize::MAX) as u64;
    let (mut tiles, mut readers) = (Vec::new(), Vec::new());
    for document in shape.documents() {
        for segment in document.clone() {
            let (start, end) = (shape.segments[segment], shape.segments[segment + 1]);
            let prefix = shape.prefix(segment) as u32;
            for row in (start..end).step_by(rows) {
                let count = (end - row).min(rows as u32);
                let position = prefix + row - start;
                // The first position that sees none of these keys any more.
                let last = u64::from(position + count - 1).saturating_add(window);
                let first_reader = readers.len() / READER_WORDS;
                let mut work = 0;
                let mut reader = |row: u32, rows: u32, at: u32, keys: u32| {
                    let rows = u64::from(rows).min(last.saturating_sub(u64::from(at))) as u32;
                    if rows > 0 {
                        readers.extend([row, rows, at, keys]);
                        work += rows as usize;
                    }
                };
                reader(row, end - row, position, count);
                // Those who continue the first segment of the document see its first rows.
                let continued = if segment == document.start { segment + 1..document.end } else { 0..0 };
                for other in continued {
                    let (start, end) = (shape.segments[other], shape.segments[other + 1]);
                    let prefix = shape.prefix(other) as u32;
                    if position < prefix {
                        reader(start, end - start, prefix, count.min(prefix - position));
                    }
                }
                let number = readers.len() / READER_WORDS - first_reader;
                let words = [row, count, position, first_reader as u32, number as u32, 0, 0, 0];
                tiles.push(Tile { words, work });
            }
        }
    }
    (tiles, readers)
}
