// What mlx-rs links against and mlx-c has on Apple's machines only: 16-bit floats read out of an array, for which other
// compilers have no type of C to return, and the clock that seeds mlx-rs's random state.
#include <chrono>
#include <cstdint>
#include <cstring>
#include <exception>

#include "mlx/c/array.h"
#include "mlx/c/error.h"
#include "mlx/c/private/mlx.h"

namespace {

template <typename Half>
int item(std::uint16_t* bits, mlx_array array) {
  static_assert(sizeof(Half) == sizeof *bits);
  try {
    const Half value = mlx_array_get_(array).item<Half>();
    std::memcpy(bits, &value, sizeof value);
    return 0;
  } catch (const std::exception& error) {
    mlx_error(error.what());
    return 1;
  }
}

template <typename Half>
const std::uint16_t* data(mlx_array array) {
  try {
    return reinterpret_cast<const std::uint16_t*>(mlx_array_get_(array).data<Half>());
  } catch (const std::exception& error) {
    mlx_error(error.what());
    return nullptr;
  }
}

} // namespace

extern "C" {

#ifndef HAS_FLOAT16
int mlx_array_item_float16(std::uint16_t* bits, mlx_array array) { return item<mlx::core::float16_t>(bits, array); }
const std::uint16_t* mlx_array_data_float16(mlx_array array) { return data<mlx::core::float16_t>(array); }
#endif

#ifndef HAS_BFLOAT16
int mlx_array_item_bfloat16(std::uint16_t* bits, mlx_array array) { return item<mlx::core::bfloat16_t>(bits, array); }
const std::uint16_t* mlx_array_data_bfloat16(mlx_array array) { return data<mlx::core::bfloat16_t>(array); }
#endif

#ifndef __APPLE__
std::uint64_t mach_approximate_time() {
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}
#endif

} // extern "C"
