//! The logistic function and its logarithm, in the forms that neither overflow nor cancel.
//!
//! Every preference loss is built on these four; f64, finite for every finite argument.

/// `log(1 + e^x)`: `−log σ(−x)`.
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `log σ(x)`.
pub fn log_sigmoid(x: f64) -> f64 {
    -softplus(-x)
}

/// `σ(x) = 1 / (1 + e^−x)`. `1 − σ(x)` loses its digits for large x: write `sigmoid(−x)`.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// `σ'(x) = σ(x) σ(−x)`.
pub fn sigmoid_slope(x: f64) -> f64 {
    sigmoid(x) * sigmoid(-x)
}
