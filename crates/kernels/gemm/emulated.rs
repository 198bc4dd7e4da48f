//! Products as a device makes them (cublasLt on a card, this library's own on the emulation) against the CPU's.

use std::sync::Arc;

use crate::emulator::whole;
use crate::{Tested, close, random, same, widen};
use zephyr_kernels::cuda::{Arena, Bf16, Device, Pointer};
use zephyr_kernels::gemm::cuda::{self, Mat, Product};
use zephyr_kernels::gemm::{self, MatMut};

/// `[m, n, k]`: one row, one element, an adapter's rank, widths that are no whole number of 16 bytes, and whole tiles.
const SIZES: [[usize; 3]; 8] =
    [[1, 64, 37], [1, 1, 1], [5, 3, 37], [33, 37, 3], [64, 72, 128], [130, 101, 300], [7, 1000, 16], [256, 128, 64]];

/// f32 sums of up to 300 products in another order, of which tensor cores cut off what the last place does not hold. What C's
/// own type rounds comes on top (`close`).
const TOLERANCE: f64 = 2e-5;

/// Elements before the first column of a matrix that is part of a wider one, and behind its last.
const AROUND: [usize; 2] = [8, 3];
/// What they hold.
const UNTOUCHED: f32 = 7.0;

#[derive(Clone, Copy, Debug)]
enum Orientation {
    Nt,
    Nn,
    Tn,
}
use Orientation::{Nn, Nt, Tn};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Added {
    Nothing,
    /// To what C holds
    Itself,
    /// Another matrix, to a C that holds NaN
    Other,
}

/// A matrix in memory, alone or as columns of a wider one.
#[derive(Clone, Copy)]
struct Place {
    rows: usize,
    cols: usize,
    before: usize,
    stride: usize,
}

impl Place {
    fn new([rows, cols]: [usize; 2], strided: bool) -> Self {
        let [before, behind] = if strided { AROUND } else { [0, 0] };
        Self { rows, cols, before, stride: before + cols + behind }
    }

    fn len(&self) -> usize {
        self.rows * self.stride
    }

    fn on<T>(&self, first: Pointer<T>) -> Mat<T> {
        Mat::strided(first.offset(self.before), self.rows, self.cols, self.stride)
    }

    /// The whole memory around these elements.
    fn spread<T: Tested>(&self, values: &[T]) -> Vec<T> {
        let mut whole = vec![T::from_f32(UNTOUCHED); self.len()];
        for (row, values) in whole.chunks_exact_mut(self.stride).zip(values.chunks_exact(self.cols)) {
            row[self.before..][..self.cols].copy_from_slice(values);
        }
        whole
    }

    /// The elements, if nothing around them was written.
    fn gathered<T: Tested>(&self, whole: &[T]) -> Result<Vec<T>, String> {
        let mut values = Vec::new();
        for row in whole.chunks_exact(self.stride) {
            let (before, rest) = row.split_at(self.before);
            let (own, behind) = rest.split_at(self.cols);
            if before.iter().chain(behind).any(|value| value.to_f32() != UNTOUCHED) {
                return Err("something was written beside the columns of C".into());
            }
            values.extend_from_slice(own);
        }
        Ok(values)
    }
}

fn product<C: Tested, T: Tested>(o: Orientation, c: Mat<C>, a: Mat<T>, b: Mat<T>, alpha: f32) -> Product {
    match o {
        Nt => cuda::nt(c, a, b, alpha),
        Nn => cuda::nn(c, a, b, alpha),
        Tn => cuda::tn(c, a, b, alpha),
    }
}

/// One product, twice with the same bits; A and C are columns of wider matrices where `strided`, as an adapter's are.
fn compare<C: Tested, T: Tested>(
    device: &Arc<dyn Device>,
    o: Orientation,
    [m, n, k]: [usize; 3],
    added: Added,
    strided: bool,
) -> Result<(), String> {
    let (shape_a, shape_b) = match o {
        Nt => ([m, k], [n, k]),
        Nn => ([m, k], [k, n]),
        Tn => ([k, m], [k, n]),
    };
    let alpha = if strided { 0.5 } else { 1.0 };
    let (c_at, a_at, b_at) = (Place::new([m, n], strided), Place::new(shape_a, strided), Place::new(shape_b, false));
    let ((a, a32), (b, b32)) = (random::<T>(m * k, 1, 1.0), random::<T>(k * n, 2, 1.0));
    let (addend, addend32) = random::<C>(m * n, 3, 2.0);
    let beta = if added == Added::Nothing { 0.0 } else { 1.0 };
    let mut expected = addend32;
    let c = MatMut::new(&mut expected, m, n);
    let (a_cpu, b_cpu) = (gemm::Mat::new(&a32, shape_a[0], shape_a[1]), gemm::Mat::new(&b32, shape_b[0], shape_b[1]));
    match o {
        Nt => gemm::nt(c, a_cpu, b_cpu, alpha, beta),
        Nn => gemm::nn(c, a_cpu, b_cpu, alpha, beta),
        Tn => gemm::tn(c, a_cpu, b_cpu, alpha, beta),
    }

    let told = |error: zephyr_kernels::cuda::DeviceError| error.to_string();
    let lay = |arena: &mut Arena| {
        let (a, b) = (arena.part::<T>("a", a_at.len()), arena.part::<T>("b", b_at.len()));
        (a, b, arena.part::<C>("c", c_at.len()), arena.part::<C>("addend", c_at.len()))
    };
    let (_memory, (a_there, b_there, c_there, addend_there)) =
        Arena::reserve(device, "A product", lay).map_err(told)?;
    device.upload(&a_at.spread(&a), a_there).map_err(told)?;
    device.upload(&b_at.spread(&b), b_there).map_err(told)?;
    device.upload(&c_at.spread(&addend), addend_there).map_err(told)?;
    let plain = product(o, c_at.on(c_there), a_at.on(a_there), b_at.on(b_there), alpha);
    let asked = match added {
        Added::Nothing => plain,
        Added::Itself => plain.accumulated(),
        Added::Other => plain.plus(Some(c_at.on(addend_there).first)),
    };
    // What is not added may be anything.
    let held = if added == Added::Itself { addend } else { vec![C::from_f32(f32::NAN); m * n] };
    let run = || {
        device.upload(&c_at.spread(&held), c_there).map_err(told)?;
        device.multiply(&asked).map_err(told)?;
        let mut whole = vec![C::default(); c_at.len()];
        device.download(c_there, &mut whole).map_err(told)?;
        c_at.gathered(&whole)
    };
    let found = run()?;
    close("c", &found, &expected, TOLERANCE)?;
    same("c, the second time", &widen(&run()?), &widen(&found))
}

fn prove(proof: impl Fn(&Arc<dyn Device>) -> Result<(), String>) {
    let Some(device) = whole() else { return };
    proof(&device).unwrap_or_else(|fault| panic!("{fault}"));
}

fn every_product<C: Tested, T: Tested>() {
    prove(|device| {
        for o in [Nt, Nn, Tn] {
            for sizes in SIZES {
                for added in [Added::Nothing, Added::Itself, Added::Other] {
                    for strided in [false, true] {
                        compare::<C, T>(device, o, sizes, added, strided)
                            .map_err(|fault| format!("{o:?} {sizes:?} {added:?}, strided {strided}: {fault}"))?;
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn products_of_f32_are_the_cpus() {
    every_product::<f32, f32>();
}

#[test]
fn products_of_bf16_are_the_cpus() {
    every_product::<Bf16, Bf16>();
}

/// Logits, and what a bf16 model adds to in f32.
#[test]
fn products_of_bf16_in_f32_are_the_cpus() {
    every_product::<f32, Bf16>();
}

/// More than what is kept of products that were met: the ones that come again are chosen for again.
#[test]
fn products_of_ever_new_shapes_are_the_cpus() {
    prove(|device| {
        for m in (1..=1100).chain(1..=3) {
            compare::<f32, Bf16>(device, Nt, [m, 8, 16], Added::Nothing, false)
                .map_err(|fault| format!("{m} rows: {fault}"))?;
        }
        Ok(())
    });
}
