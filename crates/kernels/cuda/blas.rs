//! Matrix products by cublasLt: descriptors and algorithm once for each shape. **Not yet run on a GPU.**
//!
//! cublasLt's matrices are column-major, so that the row-major product `C = A·B` is asked for as `Cᵀ = Bᵀ·Aᵀ`: the operands
//! change places, and each keeps its own transposition.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::from_ref;
use std::sync::Arc;

use cudarc::cublaslt::{result, sys};
use cudarc::driver::{CudaStream, result as driver};

use super::driver::{done, failed};
use super::{DeviceError, opened};
use crate::gemm::cuda::{Format, Place, Product};

/// Scratch that algorithms may use: what NVIDIA recommends for Hopper.
const WORKSPACE: usize = 32 << 20;

/// What an algorithm is chosen by: sizes, strides, types, and how addresses are aligned.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    /// `[m, n, k]`
    sizes: [usize; 3],
    transposed: [bool; 2],
    strides: [usize; 3],
    formats: [Format; 3],
    alignments: [u32; 4],
}

/// Largest power of two up to 256 that divides the address.
fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(8)
}

impl Shape {
    fn of(product: &Product) -> Self {
        let Product { a, b, c, .. } = product;
        let addend = product.addend.unwrap_or(c.address);
        Self {
            sizes: product.sizes(),
            transposed: [product.transpose_a, product.transpose_b],
            strides: [a.stride, b.stride, c.stride],
            formats: [a.format, b.format, c.format],
            alignments: [a.address, b.address, addend, c.address].map(alignment),
        }
    }
}

/// Shapes that are kept at most: batches of text have ever new numbers of rows, and a run would gather them without end.
const MOST_SHAPES: usize = 1024;

/// Descriptors of cublasLt, destroyed with their owner.
macro_rules! owned {
    ($($name:ident: $type:ident by $destroy:ident),*) => { $(
        struct $name(sys::$type);

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: made by cublasLt, and nobody else has it; what is queued has read it.
                let _ = unsafe { result::$destroy(self.0) };
            }
        }
    )* };
}
owned!(
    Description: cublasLtMatmulDesc_t by destroy_matmul_desc,
    Layout: cublasLtMatrixLayout_t by destroy_matrix_layout,
    Preference: cublasLtMatmulPreference_t by destroy_matmul_pref
);

/// A product that is ready to be asked for.
struct Ready {
    description: Description,
    /// Of the first operand (our B), of the second (our A), and of C
    layouts: [Layout; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// A handle of cublasLt on a stream, its workspace, and the shapes that were met.
pub(super) struct Blas {
    stream: Arc<CudaStream>,
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    ready: HashMap<Shape, Ready>,
}

// SAFETY: cublasLt's handle may be used from any thread, and everything here is behind one lock.
unsafe impl Send for Blas {}

/// cublasLt's refusal of `what`.
fn refused(what: impl Into<String>, result::CublasError(cause): result::CublasError) -> DeviceError {
    match cause {
        sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => {
            DeviceError::OutOfMemory { what: what.into(), asked_and_free: None }
        }
        cause => failed(what, cause),
    }
}

fn lt<T>(what: &str, outcome: Result<T, result::CublasError>) -> Result<T, DeviceError> {
    outcome.map_err(|error| refused(what, error))
}

fn layout(place: &Place) -> Result<Layout, DeviceError> {
    let format = match place.format {
        Format::F32 => sys::cudaDataType::CUDA_R_32F,
        Format::Bf16 => sys::cudaDataType::CUDA_R_16BF,
    };
    // Row-major [rows, cols] is column-major [cols, rows].
    let (rows, cols, stride) = (place.cols as u64, place.rows as u64, place.stride as i64);
    lt("cublasLtMatrixLayoutCreate", result::create_matrix_layout(format, rows, cols, stride)).map(Layout)
}

impl Blas {
    /// # Errors
    /// [`DeviceError::Library`] where cublasLt is not there, [`DeviceError::LibraryOld`] where it is another one than this build
    /// needs; no memory for its workspace.
    pub fn new(stream: Arc<CudaStream>) -> Result<Self, DeviceError> {
        // SAFETY: it loads the library, whose initialiser is NVIDIA's.
        if !unsafe { sys::is_culib_present() } {
            let cause = "libcublasLt.so was not found".to_owned();
            return Err(DeviceError::Library { name: "cublasLt", cause });
        }
        opened::check_cublaslt()?;
        let handle = lt("cublasLtCreate", result::create_handle())?;
        // Now, so that the handle is given back where there is no memory for the rest.
        let mut blas = Self { stream, handle, workspace: 0, ready: HashMap::new() };
        // SAFETY: freed by `drop`.
        blas.workspace = done("cublasLt's workspace", unsafe { driver::malloc_sync(WORKSPACE) })?;
        Ok(blas)
    }

    /// Queues a product.
    pub fn multiply(&mut self, product: &Product) -> Result<(), DeviceError> {
        let [m, n, _] = product.sizes();
        if m == 0 || n == 0 {
            return Ok(());
        }
        let shape = Shape::of(product);
        if !self.ready.contains_key(&shape) {
            let ready = self.prepare(product, &shape)?;
            if self.ready.len() == MOST_SHAPES {
                self.ready.clear();
            }
            self.ready.insert(shape, ready);
        }
        let Ready { description, layouts: [first, second, c], algorithm } = &self.ready[&shape];
        let (alpha, beta) = (product.alpha(), if product.addend.is_some() { 1.0f32 } else { 0.0 });
        let addend = product.addend.unwrap_or(product.c.address);
        // SAFETY: the descriptors are of this product's shape; the addresses are those of arenas that outlive the stream's work.
        let outcome = unsafe {
            result::matmul(
                self.handle,
                description.0,
                from_ref(&alpha).cast(),
                from_ref(&beta).cast(),
                product.b.address as *const c_void,
                first.0,
                product.a.address as *const c_void,
                second.0,
                addend as *const c_void,
                c.0,
                product.c.address as *mut c_void,
                c.0,
                algorithm,
                self.workspace as *mut c_void,
                WORKSPACE,
                self.stream.cu_stream().cast(),
            )
        };
        outcome.map_err(|error| refused(format!("cublasLtMatmul of {:?}", shape.sizes), error))
    }

    fn prepare(&self, product: &Product, shape: &Shape) -> Result<Ready, DeviceError> {
        let created =
            result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType::CUDA_R_32F);
        let description = Description(lt("cublasLtMatmulDescCreate", created)?);
        let layouts = [layout(&product.b)?, layout(&product.a)?, layout(&product.c)?];
        use sys::cublasLtMatmulDescAttributes_t::{CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB};
        for (attribute, transposed) in
            [(CUBLASLT_MATMUL_DESC_TRANSA, product.transpose_b), (CUBLASLT_MATMUL_DESC_TRANSB, product.transpose_a)]
        {
            let operation = u32::from(transposed);
            // SAFETY: the attribute is of 32 bits.
            let outcome = unsafe {
                let bytes = from_ref(&operation).cast();
                result::set_matmul_desc_attribute(description.0, attribute, bytes, size_of::<u32>())
            };
            lt("cublasLtMatmulDescSetAttribute", outcome)?;
        }
        let algorithm = self.algorithm(&description, &layouts, shape)?;
        Ok(Ready { description, layouts, algorithm })
    }

    fn algorithm(
        &self,
        description: &Description,
        layouts: &[Layout; 3],
        shape: &Shape,
    ) -> Result<sys::cublasLtMatmulAlgo_t, DeviceError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Wish;
        let preference = Preference(lt("cublasLtMatmulPreferenceCreate", result::create_matmul_pref())?);
        let set = |wish, bytes: *const c_void, size| {
            // SAFETY: the attribute is as large as told.
            let outcome = unsafe { result::set_matmul_pref_attribute(preference.0, wish, bytes, size) };
            lt("cublasLtMatmulPreferenceSetAttribute", outcome)
        };
        set(Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, from_ref(&WORKSPACE).cast(), size_of::<usize>())?;
        // Parts of a long sum are added as f32, so that C is rounded once, as [`Product`] says.
        let reduction = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        let [a, b, addend, c] = shape.alignments;
        for (wish, value) in [
            (Wish::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reduction),
            (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b),
            (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a),
            (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, addend),
            (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c),
        ] {
            set(wish, from_ref(&value).cast(), size_of::<u32>())?;
        }
        let [first, second, c] = layouts;
        // SAFETY: the descriptors were just made.
        let found = unsafe {
            let (handle, description, preference) = (self.handle, description.0, preference.0);
            result::get_matmul_algo_heuristic(handle, description, first.0, second.0, c.0, c.0, preference)
        };
        let chosen =
            found.map_err(|error| refused(format!("cublasLtMatmulAlgoGetHeuristic of {:?}", shape.sizes), error))?;
        Ok(chosen.algo)
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        let _ = self.stream.context().bind_to_thread();
        let _ = self.stream.synchronize();
        self.ready.clear();
        // SAFETY: of `new`, and nothing that is queued uses them.
        unsafe {
            let _ = driver::free_sync(self.workspace);
            let _ = result::destroy_handle(self.handle);
        }
    }
}
