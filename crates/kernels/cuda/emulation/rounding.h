// How bf16 and tensor cores round.
#pragma once

#include <cmath>
#include <cstdint>

namespace emulation {

inline float widen(uint16_t bits) { return __builtin_bit_cast(float, uint32_t{bits} << 16); }

/// The f32 at or next to `value` on the side of zero.
inline float towards_zero(double value) {
  const float nearest = static_cast<float>(value);
  return std::fabs(static_cast<double>(nearest)) > std::fabs(value) ? std::nextafterf(nearest, 0.0f) : nearest;
}

} // namespace emulation
