//! Matrix products on a GPU, as plain data: a library makes them (cublasLt), in f32 sums of f32 or bf16 products.

use crate::cuda::{Element, Pointer};

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
