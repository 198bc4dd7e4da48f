//! Matrix products on a GPU, as plain data: a library makes them (cublasLt), in f32 sums of f32 or bf16 products.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cuda::{Arena, Device, DeviceError, Element, Pointer};

/// The type of a matrix's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    F32,
    Bf16,
}

impl Format {
    pub fn of<T: Element>() -> Self {
        if T::LETTER == 'f' { Self::F32 } else { Self::Bf16 }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// A row-major matrix in device memory; row `i` starts at `i · stride`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<T> {
    pub first: Pointer<T>,
    pub rows: usize,
    pub cols: usize,
    pub stride: usize,
}

impl<T> Mat<T> {
    /// `[rows, cols]`, rows adjacent.
    pub fn new(first: Pointer<T>, rows: usize, cols: usize) -> Self {
        Self::strided(first, rows, cols, cols)
    }

    /// `[rows, cols]`, row starts `stride` elements apart: some columns of a wider matrix.
    pub fn strided(first: Pointer<T>, rows: usize, cols: usize, stride: usize) -> Self {
        assert!(stride >= cols, "row stride {stride} below {cols} columns");
        Self { first, rows, cols, stride }
    }
}

/// A [`Mat`] of either type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub address: u64,
    pub format: Format,
    pub rows: usize,
    pub cols: usize,
    pub stride: usize,
}

impl<T: Element> From<Mat<T>> for Place {
    fn from(mat: Mat<T>) -> Self {
        let Mat { first, rows, cols, stride } = mat;
        Self { address: first.address, format: Format::of::<T>(), rows, cols, stride }
    }
}

/// `C = alpha · op(A)·op(B)`, plus a matrix that lies like C where `addend` is its address: rounded once, when C is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    pub a: Place,
    pub transpose_a: bool,
    pub b: Place,
    pub transpose_b: bool,
    pub c: Place,
    /// Bits of alpha, an f32.
    alpha: u32,
    /// C's own address, to accumulate, or another one; `None`: C may hold anything before, NaN included.
    pub addend: Option<u64>,
}

impl Product {
    fn new<C: Element, T: Element>(
        c: Mat<C>,
        (a, transpose_a): (Mat<T>, bool),
        (b, transpose_b): (Mat<T>, bool),
        alpha: f32,
    ) -> Self {
        let product = Self {
            a: a.into(),
            transpose_a,
            b: b.into(),
            transpose_b,
            c: c.into(),
            alpha: alpha.to_bits(),
            addend: None,
        };
        let [m, n, k] = product.sizes();
        let inner = if transpose_b { b.cols } else { b.rows };
        assert!(
            c.rows == m && c.cols == n && k == inner,
            "C [{}, {}] of A [{}, {}] and B [{}, {}]",
            c.rows,
            c.cols,
            a.rows,
            a.cols,
            b.rows,
            b.cols
        );
        product
    }

    /// `[m, n, k]`
    pub fn sizes(&self) -> [usize; 3] {
        let turned = |place: &Place, turn: bool| if turn { (place.cols, place.rows) } else { (place.rows, place.cols) };
        let ((m, k), (_, n)) = (turned(&self.a, self.transpose_a), turned(&self.b, self.transpose_b));
        [m, n, k]
    }

    pub fn alpha(&self) -> f32 {
        f32::from_bits(self.alpha)
    }

    /// Adds to what C holds.
    pub fn accumulated(self) -> Self {
        Self { addend: Some(self.c.address), ..self }
    }

    /// Adds a matrix that lies like C; without one C is overwritten.
    pub fn plus<C>(self, addend: Option<Pointer<C>>) -> Self {
        Self { addend: addend.map(|pointer| pointer.address), ..self }
    }
}

/// `C[m,n] = alpha·A[m,k]·B[n,k]ᵀ`
pub fn nt<C: Element, T: Element>(c: Mat<C>, a: Mat<T>, b: Mat<T>, alpha: f32) -> Product {
    Product::new(c, (a, false), (b, true), alpha)
}

/// `C[m,n] = alpha·A[m,k]·B[k,n]`
pub fn nn<C: Element, T: Element>(c: Mat<C>, a: Mat<T>, b: Mat<T>, alpha: f32) -> Product {
    Product::new(c, (a, false), (b, false), alpha)
}

/// `C[m,n] = alpha·A[k,m]ᵀ·B[k,n]`
pub fn tn<C: Element, T: Element>(c: Mat<C>, a: Mat<T>, b: Mat<T>, alpha: f32) -> Product {
    Product::new(c, (a, true), (b, false), alpha)
}

/// Products of one measurement, so that the wait for the last counts little.
const IN_A_ROW: u32 = 4;

/// The operations in a second of square products on a device, the fastest of about so many seconds; at least two
/// measurements after a first one.
///
/// # Errors
/// The device's: there must be room for three matrices.
pub fn peak<T: Element>(device: &Arc<dyn Device>, size: usize, seconds: f64) -> Result<f64, DeviceError> {
    let lay =
        |arena: &mut Arena| [arena.part("a", size * size), arena.part("b", size * size), arena.part("c", size * size)];
    let (_memory, [a, b, c]) = Arena::reserve(device, "The measurement of products", lay)?;
    // Products of zeros take less power and go faster.
    let factor: Vec<T> = (0..size * size).map(|index| T::from_f32((index % 17) as f32 - 8.0)).collect();
    device.upload(&factor, a)?;
    device.upload(&factor, b)?;
    let product = nt(Mat::new(c, size, size), Mat::new(a, size, size), Mat::new(b, size, size), 1.0);
    let mut first = [T::default()];
    let (mut fastest, begin, mut runs) = (Duration::MAX, Instant::now(), 0);
    while runs < 3 || begin.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        for _ in 0..IN_A_ROW {
            device.multiply(&product)?;
        }
        device.download(c, &mut first)?;
        // The first run wakes the card, and chooses how to multiply.
        if runs > 0 {
            fastest = fastest.min(start.elapsed());
        }
        runs += 1;
    }
    Ok(f64::from(2 * IN_A_ROW) * (size as f64).powi(3) / fastest.as_secs_f64())
}
