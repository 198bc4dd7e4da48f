use std::sync::LazyLock;

use super::{BLOCK, NESTED, Nf4, QUANTILES};
use crate::parallel;

/// Between neighbouring quantiles; a value on the border takes the lower one.
static BORDERS: LazyLock<[f32; 15]> =
    LazyLock::new(|| std::array::from_fn(|code| (QUANTILES[code] + QUANTILES[code + 1]) / 2.0));

pub(super) fn quantise(values: &[f32], packed: &mut [u8], absmax: &mut [f32]) {
    let blocks = parallel::rows_per_task(absmax.len(), BLOCK);
    let tasks = values.chunks(blocks * BLOCK).zip(packed.chunks_mut(blocks * BLOCK / 2)).zip(absmax.chunks_mut(blocks));
    parallel::run(tasks, |((values, packed), absmax)| {
        for ((values, packed), absmax) in values.chunks(BLOCK).zip(packed.chunks_mut(BLOCK / 2)).zip(absmax.iter_mut())
        {
            *absmax = values.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
            let most = absmax.max(1e-38);
            // A whole block is multiplied by the inverse, a last part of one divided: bitsandbytes' two ways.
            let (inverse, whole) = (1.0 / most, values.len() == BLOCK);
            let code = |value: f32| {
                let scaled = if whole { value * inverse } else { value / most }.clamp(-1.0, 1.0);
                BORDERS.iter().map(|&border| u8::from(scaled > border)).sum::<u8>()
            };
            for (pair, byte) in values.chunks(2).zip(packed) {
                *byte = code(pair[0]) << 4 | pair.get(1).map_or(code(0.0), |&second| code(second));
            }
        }
    });
}

/// bitsandbytes takes the entry nearest to the nearest of 65 536 points in [−1, 1], not to the value itself.
const POINTS: f32 = 65_535.0;

pub(super) fn quantise_absmax(absmax: &[f32], offset: f32) -> (Vec<u8>, Vec<f32>) {
    let map = dynamic_map();
    let borders: [f32; 255] = std::array::from_fn(|code| (map[code] + map[code + 1]) * 0.5);
    let mut codes = Vec::with_capacity(absmax.len());
    let mut scales = Vec::with_capacity(absmax.len().div_ceil(NESTED));
    for block in absmax.chunks(NESTED) {
        let most = block.iter().fold(0.0, |most: f32, value| most.max((value - offset).abs()));
        scales.push(most);
        if most == 0.0 {
            codes.resize(codes.len() + block.len(), 0);
            continue;
        }
        let inverse = 1.0 / most;
        for value in block {
            let scaled = ((value - offset) * inverse).clamp(-1.0, 1.0);
            let point = ((scaled + 1.0) * 0.5).mul_add(POINTS, 0.5).floor();
            let point = (point + point) / POINTS - 1.0;
            codes.push(borders.partition_point(|&border| border < point) as u8);
        }
    }
    (codes, scales)
}

pub(super) fn dequantise(nf4: &Nf4, start: usize, out: &mut [f32]) {
    let map = dynamic_map();
    let (mut at, end) = (start, start + out.len());
    let mut rest = out;
    while at < end {
        let block = at / BLOCK;
        let count = ((block + 1) * BLOCK).min(end) - at;
        let absmax = map[nf4.absmax[block] as usize] * nf4.nested_absmax[block / NESTED] + nf4.offset;
        let values = QUANTILES.map(|quantile| quantile * absmax);
        let (part, after) = rest.split_at_mut(count);
        if at.is_multiple_of(2) && count.is_multiple_of(2) {
            for (pair, &byte) in part.as_chunks_mut::<2>().0.iter_mut().zip(&nf4.packed[at / 2..]) {
                *pair = [values[(byte >> 4) as usize], values[(byte & 15) as usize]];
            }
        } else {
            for (offset, value) in part.iter_mut().enumerate() {
                let byte = nf4.packed[(at + offset) / 2];
                let code = if (at + offset).is_multiple_of(2) { byte >> 4 } else { byte & 15 };
                *value = values[code as usize];
            }
        }
        rest = after;
        at += count;
    }
}

/// `create_dynamic_map` of bitsandbytes: for every exponent 10⁻⁶ … 1 the middles of equal parts of [0.1, 1], twice as
/// many each time, with both signs; 0 and 1.
pub(super) fn dynamic_map() -> &'static [f32; 256] {
    static MAP: LazyLock<[f32; 256]> = LazyLock::new(|| {
        let mut values = vec![0.0, 1.0];
        for exponent in 0..7 {
            let parts = 1usize << exponent;
            let border = |index: usize| linspace(index, parts + 1);
            let scale = 10f64.powi(exponent - 6) as f32;
            for part in 0..parts {
                let middle = (border(part) + border(part + 1)) / 2.0;
                values.extend([scale * middle, -(scale * middle)]);
            }
        }
        values.sort_by(f32::total_cmp);
        values.try_into().expect("256 values")
    });
    &MAP
}

/// `torch.linspace(0.1, 1, steps)` in f32: from whichever end is nearer, fused as its compiler does.
fn linspace(index: usize, steps: usize) -> f32 {
    let step = (1.0f32 - 0.1f32) / (steps - 1) as f32;
    let (low, high) = (index as f32, (steps - index - 1) as f32);
    if index < steps / 2 { step.mul_add(low, 0.1) } else { (-step).mul_add(high, 1.0) }
}
