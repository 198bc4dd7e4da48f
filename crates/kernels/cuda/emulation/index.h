#pragma once

#include <cstdint>

namespace emulation {

/// What CUDA calls uint3 and dim3.
struct Index {
  uint32_t x, y, z;
};

} // namespace emulation
