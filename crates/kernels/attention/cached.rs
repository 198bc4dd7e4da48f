//! Launches of `cached.cu`: attention of new tokens over keys and values that lie in pages.

use std::ops::Range;

use super::{HEAD_DIMS, THREADS, TILE, TILE_WORDS};
use crate::attention::{CacheShape, check_heads};
use crate::cuda::{Argument, Element, Launch, Pointer, WARP, kernel, narrow, queue};

/// Positions of a sequence that a page holds: a tile of keys.
pub const PAGE: usize = 64;
/// Keys of a stretch, for each tile of tokens that a sequence has in the step: one token and a prompt alike have work for
/// the whole card, and no choice depends on it.
const STRETCH: usize = 256;
const TOKEN_WORDS: usize = 8;

/// Elements of a page: of every layer the keys, then the values, of [`PAGE`] positions.
pub fn page_elements(layers: usize, kv_heads: usize, head_dim: usize) -> usize {
    layers * 2 * kv_heads * PAGE * head_dim
}

/// One sequence's new tokens.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    pub tokens: usize,
    /// Positions that are in its pages already
    pub position: usize,
    /// Addresses of its pages, enough for all positions
    pub pages: &'a [u64],
}

/// The work of attention on the new tokens of some sequences, which lie one behind the other.
#[derive(Clone, Debug)]
pub struct CachePlan {
    /// What lies in device memory for the kernels.
    pub words: Vec<u32>,
    /// Rows `[H, D]` of what the stretches give, and `[H]` of their log-sum-exps
    pub parts: usize,
    /// Where the lists begin and end in `words`; that of the tokens is the first.
    tiles: Range<usize>,
    pages: usize,
    tokens: usize,
    share: usize,
    shape: CacheShape,
}

impl CachePlan {
    /// Panics on sizes that do not fit together or that no kernel exists for.
    pub fn new(pieces: &[Piece], shape: &CacheShape) -> Self {
        check_heads(shape.heads, shape.kv_heads, shape.head_dim, shape.window);
        assert!(shape.head_dim <= 128, "no kernel for head dimension {}", shape.head_dim);
        let group = shape.heads / shape.kv_heads;
        let share = (1..=group.min(TILE)).rev().find(|share| group.is_multiple_of(*share)).unwrap_or(1);
        let rows = TILE / share;
        let (mut tokens, mut tiles, mut pages) = (Vec::new(), Vec::new(), Vec::new());
        let (mut row, mut part) = (0, 0);
        for piece in pieces {
            let positions = piece.position + piece.tokens;
            assert!(piece.pages.len() * PAGE >= positions, "{} pages for {positions} positions", piece.pages.len());
            let first_page = pages.len();
            pages.extend(piece.pages.iter().map(|&address| [address as u32, (address >> 32) as u32]));
            let stretch = STRETCH * piece.tokens.div_ceil(rows);
            for first in (0..piece.tokens).step_by(rows) {
                let count = rows.min(piece.tokens - first);
                let position = piece.position + first;
                let end = position + count;
                let seen = shape.window.map_or(0, |window| (position + 1).saturating_sub(window));
                let begin = seen / PAGE * PAGE;
                let stretches = (end - begin).div_ceil(stretch);
                for number in 0..stretches {
                    let begin = begin + number * stretch;
                    let words = [
                        row + first,
                        count,
                        position,
                        first_page,
                        begin,
                        end.min(begin + stretch),
                        part + number * count,
                        0,
                    ];
                    tiles.push(words.map(|word| narrow("of a step", word)));
                }
                for token in 0..count {
                    let at = position + token;
                    let [low, high] = pages[first_page + at / PAGE];
                    let [slot, part, stride, parts] =
                        [at % PAGE, part + token, count, stretches].map(|word| narrow("of a step", word));
                    tokens.push([low, high, slot, part, stride, parts, 0, 0]);
                }
                part += stretches * count;
            }
            row += piece.tokens;
        }
        // Longer walks first, so that the last blocks to finish are short ones.
        tiles.sort_by_key(|&[.., begin, end, _, _]: &[u32; TILE_WORDS]| std::cmp::Reverse(end - begin));
        let first_tile = tokens.len() * TOKEN_WORDS;
        let first_page = first_tile + tiles.len() * TILE_WORDS;
        let words = [tokens.concat(), tiles.concat(), pages.concat()].concat();
        Self { words, parts: part, tiles: first_tile..first_page, pages: first_page, tokens: row, share, shape: *shape }
    }

    /// Puts keys and values of `qkv` `[tokens, (H + 2·KV)·D]`, which are turned already, into the pages. `words` are the
    /// plan's in device memory.
    pub fn append<T: Element>(&self, words: Pointer<u32>, layer: usize, qkv: Pointer<T>) -> Launch {
        let [heads, kv_heads, dim] = self.sizes();
        let pack = if dim.is_multiple_of(T::PACK) { T::PACK } else { 1 };
        let threads = (2 * kv_heads * (dim / pack)).next_multiple_of(WARP).clamp(WARP, 256);
        let grid = [narrow("tokens", self.tokens), 1, 1];
        queue!(kernel!(T, "cache_append"), grid, threads, 0; qkv, words, heads, kv_heads, narrow("layers", layer), dim)
    }

    /// As [`crate::attention::cached`], whose results lie in `parts` `[parts, H, D]`, with log-sum-exps `[parts, H]`.
    pub fn attend<T: Element>(
        &self,
        words: Pointer<u32>,
        layer: usize,
        qkv: Pointer<T>,
        parts: Pointer<f32>,
        lse: Pointer<f32>,
    ) -> Launch {
        let CacheShape { head_dim, window, scale, .. } = self.shape;
        let [heads, kv_heads, dim] = self.sizes();
        let of_bf16 = match head_dim {
            16 => "attention_cached_16",
            32 => "attention_cached_32",
            64 => "attention_cached_64",
            96 => "attention_cached_96",
            _ => "attention_cached_128",
        };
        let bf16 = size_of::<T>() == 2;
        let shared = if bf16 { 3 * TILE * head_dim * size_of::<T>() } else { 0 };
        let window = window.map_or(u32::MAX, |window| u32::try_from(window).unwrap_or(u32::MAX));
        let share = narrow("heads", self.share);
        let grid = [heads / share, narrow("tiles", self.tiles.len() / TILE_WORDS), 1];
        let (tiles, pages) = (words.offset(self.tiles.start), words.offset(self.pages));
        let mut launch = queue!(
            T::kernel("attention_cached_f32", of_bf16), grid, THREADS, shared as u32;
            qkv, tiles, pages, parts, lse, heads, kv_heads, share, narrow("layers", layer), window, scale
        );
        if bf16 {
            assert!(HEAD_DIMS.contains(&head_dim), "no bf16 kernel for head dimension {head_dim}");
        } else {
            launch.arguments.push(Argument::from(dim));
        }
        launch
    }

    /// Adds the parts of every token up: `out` `[tokens, H·D]`.
    pub fn combine<T: Element>(
        &self,
        words: Pointer<u32>,
        parts: Pointer<f32>,
        lse: Pointer<f32>,
        out: Pointer<T>,
    ) -> Launch {
        let [heads, _, dim] = self.sizes();
        let grid = [narrow("tokens", self.tokens), 1, 1];
        queue!(kernel!(T, "attention_combine"), grid, heads.min(8) * WARP, 0; parts, lse, words, out, heads, dim)
    }

    fn sizes(&self) -> [u32; 3] {
        let CacheShape { heads, kv_heads, head_dim, .. } = self.shape;
        [narrow("heads", heads), narrow("heads", kv_heads), narrow("elements", head_dim)]
    }
}
