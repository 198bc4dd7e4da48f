// AdamW in its forms: weights in f32 (with a bf16 copy for the forward pass) or as bf16 and the 16 bits it lacks; moments
// in f32, in bf16, or as 8-bit codes. One pass over memory. Operations and their order are those of cpu.rs, no product and
// sum fused, so that f32 and 8-bit moments have the same bits as there.
#include "device.cuh"

/// The scalars of one update; as in cpu.rs.
struct Scalars {
  float grad_scale, decay, weight1, beta2, weight2, bias2_root, eps, step_size;
};

__device__ __forceinline__ void update(float& param, float gradient, float& m, float& v, const Scalars& s) {
  gradient = gradient * s.grad_scale;
  const float difference = gradient - m;
  const float moment = s.weight1 < 0.5f ? m + s.weight1 * difference : gradient - difference * (1.0f - s.weight1);
  const float square = v * s.beta2 + s.weight2 * gradient * gradient;
  const float denominator = sqrtf(square) / s.bias2_root + s.eps;
  param = param * s.decay - s.step_size * moment / denominator;
  m = moment;
  v = square;
}

/// A gradient that is not finite has a scale that is not finite: the update is left out.
__device__ __forceinline__ bool is_finite(float value) { return (__float_as_uint(value) & 0x7f800000u) != 0x7f800000u; }

/// Weights in f32, and a copy in bf16 where one is wanted.
struct FullWeights {
  float* params;
  bf16* copy;
  template <int N> __device__ void read(size_t at, float (&values)[N]) const { load(params + at, values); }
  template <int N> __device__ void write(size_t at, const float (&values)[N]) const {
    store(params + at, values);
    if (copy) store(copy + at, values);
  }
};

/// Weights as bf16, and what each lacks to the exact f32 (split.rs).
struct SplitWeights {
  bf16* upper;
  int16_t* rest;
  template <int N> __device__ void read(size_t at, float (&values)[N]) const {
    load(upper + at, values);
    uint32_t lower[N];
    load_bits(reinterpret_cast<const uint16_t*>(rest) + at, lower);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int32_t lacking = static_cast<int16_t>(lower[i]);
      values[i] = __uint_as_float(__float_as_uint(values[i]) + static_cast<uint32_t>(lacking));
    }
  }
  template <int N> __device__ void write(size_t at, const float (&values)[N]) const {
    uint32_t high[N], lower[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const uint32_t bits = __float_as_uint(values[i]), rounded = (bits + 0x8000u) & 0xffff0000u;
      high[i] = rounded >> 16;
      lower[i] = (bits - rounded) & 0xffffu;
    }
    store_bits(reinterpret_cast<uint16_t*>(upper) + at, high);
    store_bits(reinterpret_cast<uint16_t*>(rest) + at, lower);
  }
};

/// Moments in f32.
struct FullMoments {
  float *m, *v;
  template <int N> __device__ void read(size_t at, float (&first)[N], float (&second)[N]) const {
    load(m + at, first);
    load(v + at, second);
  }
  template <int N> __device__ void write(size_t at, const float (&first)[N], const float (&second)[N], uint32_t) const {
    store(m + at, first);
    store(v + at, second);
  }
};

/// Moments in bf16, rounded up or down by chance in proportion: to the nearest, a moment would stand still as soon as its
/// change is less than a 256th of it. Chance is a hash of the step's seed and the place.
struct Bf16Moments {
  bf16 *m, *v;
  template <int N> __device__ void read(size_t at, float (&first)[N], float (&second)[N]) const {
    load(m + at, first);
    load(v + at, second);
  }
  template <int N> __device__ void write(size_t at, const float (&first)[N], const float (&second)[N], uint32_t seed) const {
    uint32_t upper_m[N], upper_v[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const uint64_t place = at + i;
      uint32_t chance = seed ^ static_cast<uint32_t>(place) * 0x9e3779b1u ^ static_cast<uint32_t>(place >> 32) * 0x85ebca77u;
      chance = (chance ^ chance >> 16) * 0x7feb352du;
      chance = (chance ^ chance >> 15) * 0x846ca68bu;
      chance ^= chance >> 16;
      upper_m[i] = (__float_as_uint(first[i]) + (chance & 0xffffu)) >> 16;
      upper_v[i] = (__float_as_uint(second[i]) + (chance >> 16)) >> 16;
    }
    store_bits(reinterpret_cast<uint16_t*>(m) + at, upper_m);
    store_bits(reinterpret_cast<uint16_t*>(v) + at, upper_v);
  }
};

/// Neighbours that a thread updates.
constexpr int RUN = 8;

template <int N, typename G, typename Weights, typename Moments>
__device__ __forceinline__ void update_run(const Weights& weights, const G* gradients, const Moments& moments, size_t at, const Scalars& scalars,
                                           uint32_t seed) {
  float params[N], gradient[N], m[N], v[N];
  weights.read(at, params);
  load(gradients + at, gradient);
  moments.read(at, m, v);
#pragma unroll
  for (int i = 0; i < N; ++i) update(params[i], gradient[i], m[i], v[i], scalars);
  weights.write(at, params);
  moments.write(at, m, v, seed);
}

template <typename G, typename Weights, typename Moments>
__device__ void step(const Weights& weights, const G* gradients, const Moments& moments, uint64_t len, uint32_t aligned, const Scalars& scalars,
                     uint32_t seed) {
  if (!is_finite(scalars.grad_scale)) return;
  const size_t first = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) * RUN;
  if (aligned && first + RUN <= len) update_run<RUN>(weights, gradients, moments, first, scalars, seed);
  else {
    for (size_t at = first; at < len && at < first + RUN; ++at) update_run<1>(weights, gradients, moments, at, scalars, seed);
  }
}

/// Both moments as codes of fixed maps, with a scale for each block of 256 neighbours (blocks.rs). `maps` holds for the
/// signed and then the unsigned one its 256 values and the 255 middles between them.
struct CodedMoments {
  uint8_t* m_codes;
  float* m_scales;
  uint8_t* v_codes;
  float* v_scales;
  const float* maps;
};
constexpr uint32_t BLOCK = 256, MAP = 256 + 255;

__device__ __forceinline__ void load_codes(const uint8_t* codes, uint32_t count, bool aligned, uint32_t (&code)[RUN]) {
  if (aligned && count == RUN) {
    const uint2 bytes = load8(codes);
#pragma unroll
    for (int i = 0; i < RUN; ++i) code[i] = (i < 4 ? bytes.x >> 8 * i : bytes.y >> 8 * (i - 4)) & 255u;
  } else {
#pragma unroll
    for (int i = 0; i < RUN; ++i) code[i] = static_cast<uint32_t>(i) < count ? codes[i] : 0;
  }
}

__device__ __forceinline__ void store_codes(uint8_t* codes, uint32_t count, bool aligned, const uint32_t (&code)[RUN]) {
  if (aligned && count == RUN) {
    store8(codes, uint2{code[0] | code[1] << 8 | code[2] << 16 | code[3] << 24, code[4] | code[5] << 8 | code[6] << 16 | code[7] << 24});
  } else {
#pragma unroll
    for (int i = 0; i < RUN; ++i) {
      if (static_cast<uint32_t>(i) < count) codes[i] = static_cast<uint8_t>(code[i]);
    }
  }
}

/// The code of the nearest value of a map; a middle goes down. The decade and the place in it are guessed, then the
/// middles decide: seldom more than two of them are looked at.
template <bool SIGNED> __device__ uint32_t nearest(const float* map, float value) {
  const float* middles = map + 256;
  const float magnitude = fabsf(value);
  int guess = SIGNED ? 127 : 0;
  if (magnitude >= 1e-7f && magnitude <= 1.0f) {
    constexpr float DECADES = 3.32192809f; // log2 of 10
    const int decade = min(max(static_cast<int>(floorf(log2_approximate(magnitude) / DECADES + 7.0f)), 0), 6);
    const int parts = SIGNED ? 1 << decade : 2 << decade;
    const float place = magnitude * exp2_approximate(static_cast<float>(6 - decade) * DECADES);
    const int part = min(max(static_cast<int>((place - 0.1f) / 0.9f * static_cast<float>(parts)), 0), parts - 1);
    guess = SIGNED ? (value > 0.0f ? 127 + parts + part : 127 - parts - part) : parts - 1 + part;
  }
  while (guess < 255 && middles[guess] < value) ++guess;
  while (guess > 0 && !(middles[guess - 1] < value)) --guess;
  return static_cast<uint32_t>(guess);
}

template <bool SIGNED>
__device__ void encode(const float* map, const float (&values)[RUN], uint32_t count, bool aligned, uint8_t* codes, float* scale) {
  float largest = 0.0f;
#pragma unroll
  for (int i = 0; i < RUN; ++i) largest = static_cast<uint32_t>(i) < count ? fmaxf(largest, fabsf(values[i])) : largest;
  largest = warp_max(largest);
  const float inverse = largest > 0.0f ? 1.0f / largest : 0.0f;
  uint32_t code[RUN];
#pragma unroll
  for (int i = 0; i < RUN; ++i) {
    code[i] = nearest<SIGNED>(map, values[i] * inverse);
    // A second moment above 0 never becomes 0: see blocks.rs.
    if (!SIGNED && values[i] > 0.0f && code[i] == 0) code[i] = 1;
  }
  if (count > 0) store_codes(codes, count, aligned, code);
  if (lane_index() == 0) *scale = largest;
}

/// A warp updates a block, and then the next one of its turn.
template <typename G, typename Weights>
__device__ void step_coded(const Weights& weights, const G* gradients, const CodedMoments& moments, uint64_t len, uint32_t aligned,
                           const Scalars& scalars) {
  SHARED_ARRAY(float, maps, 2 * MAP);
  if (!is_finite(scalars.grad_scale)) return;
  for (uint32_t at = threadIdx.x; at < 2 * MAP; at += blockDim.x) maps[at] = moments.maps[at];
  __syncthreads();
  const uint32_t warps = blockDim.x / WARP;
  const uint64_t blocks = (len + BLOCK - 1) / BLOCK;
  for (uint64_t block = static_cast<uint64_t>(blockIdx.x) * warps + warp_index(); block < blocks; block += static_cast<uint64_t>(gridDim.x) * warps) {
    const uint64_t first = block * BLOCK + lane_index() * RUN;
    const uint32_t count = first >= len ? 0 : static_cast<uint32_t>(min(len - first, static_cast<uint64_t>(RUN)));
    uint32_t m_code[RUN], v_code[RUN];
    load_codes(moments.m_codes + first, count, aligned, m_code);
    load_codes(moments.v_codes + first, count, aligned, v_code);
    // Lane 0 alone reads the scales: it is the one that writes them.
    float m_scale = 0.0f, v_scale = 0.0f;
    if (lane_index() == 0) {
      m_scale = moments.m_scales[block];
      v_scale = moments.v_scales[block];
    }
    m_scale = __shfl_sync(ALL_LANES, m_scale, 0);
    v_scale = __shfl_sync(ALL_LANES, v_scale, 0);
    float m[RUN], v[RUN];
#pragma unroll
    for (int i = 0; i < RUN; ++i) {
      m[i] = maps[m_code[i]] * m_scale;
      v[i] = maps[MAP + v_code[i]] * v_scale;
    }
    if (aligned && count == RUN) {
      float params[RUN], gradient[RUN];
      weights.read(first, params);
      load(gradients + first, gradient);
#pragma unroll
      for (int i = 0; i < RUN; ++i) update(params[i], gradient[i], m[i], v[i], scalars);
      weights.write(first, params);
    } else {
#pragma unroll
      for (int i = 0; i < RUN; ++i) {
        if (static_cast<uint32_t>(i) >= count) continue;
        float param[1], gradient[1];
        weights.read(first + i, param);
        load(gradients + first + i, gradient);
        update(param[0], gradient[0], m[i], v[i], scalars);
        weights.write(first + i, param);
      }
    }
    encode<true>(maps, m, count, aligned, moments.m_codes + first, moments.m_scales + block);
    encode<false>(maps + MAP, v, count, aligned, moments.v_codes + first, moments.v_scales + block);
  }
}

#define SCALARS float decay, float weight1, float beta2, float weight2, float bias2_root, float eps, float step_size
#define THESE_SCALARS (Scalars{*grad_scale, decay, weight1, beta2, weight2, bias2_root, eps, step_size})


/// The kernels of one form of the weights, which are two arrays: adamw_<form>_<moments>_<gradient>.
#define FOR_FORM(form, Weights, A, B, G, suffix)                                                                                              \
  extern "C" __global__ void __launch_bounds__(256) adamw_##form##_f32_##suffix(A* a, B* b, const G* gradients, float* m, float* v,           \
                                                                                uint64_t len, uint32_t aligned, const float* grad_scale,      \
                                                                                SCALARS) {                                                    \
    step(Weights{a, b}, gradients, FullMoments{m, v}, len, aligned, THESE_SCALARS, 0);                                                        \
  }                                                                                                                                           \
  EXPORT(adamw_##form##_f32_##suffix)                                                                                                         \
  extern "C" __global__ void __launch_bounds__(256) adamw_##form##_bf16_##suffix(A* a, B* b, const G* gradients, bf16* m, bf16* v,            \
                                                                                 uint32_t seed, uint64_t len, uint32_t aligned,               \
                                                                                 const float* grad_scale, SCALARS) {                          \
    step(Weights{a, b}, gradients, Bf16Moments{m, v}, len, aligned, THESE_SCALARS, seed);                                                     \
  }                                                                                                                                           \
  EXPORT(adamw_##form##_bf16_##suffix)                                                                                                        \
  extern "C" __global__ void __launch_bounds__(256)                                                                                           \
      adamw_##form##_8bit_##suffix(A* a, B* b, const G* gradients, uint8_t* m_codes, float* m_scales, uint8_t* v_codes, float* v_scales,      \
                                   const float* maps, uint64_t len, uint32_t aligned, const float* grad_scale, SCALARS) {                     \
    step_coded(Weights{a, b}, gradients, CodedMoments{m_codes, m_scales, v_codes, v_scales, maps}, len, aligned, THESE_SCALARS);              \
  }                                                                                                                                           \
  EXPORT(adamw_##form##_8bit_##suffix)

FOR_FORM(full, FullWeights, float, bf16, float, f32)
FOR_FORM(full, FullWeights, float, bf16, bf16, bf16)
FOR_FORM(split, SplitWeights, bf16, int16_t, float, f32)
FOR_FORM(split, SplitWeights, bf16, int16_t, bf16, bf16)
