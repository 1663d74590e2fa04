// What the shared headers leave to the platform: bfloat, the library of mathematics, and who a thread is.
#pragma once
#include <stddef.h>
#include <stdint.h>

// The upper half of a float.  clang's __bf16 stops its NVPTX back end where half is used beside it.
struct host_bfloat {
  unsigned short bits;
  host_bfloat() = default;
  constexpr host_bfloat(float value) : bits(rounded(value)) {}
  constexpr operator float() const { return __builtin_bit_cast(float, unsigned(bits) << 16); }
  // To the nearest, ties to even; NaN stays NaN.
  static constexpr unsigned short rounded(float value) {
    unsigned word = __builtin_bit_cast(unsigned, value);
    return (word & 0x7fffffff) > 0x7f800000 ? 0x7fff : (word + 0x7fff + (word >> 16 & 1)) >> 16;
  }
};
#define HOST_BFLOAT host_bfloat

// libdevice
#define HOST_LIBM(NAME) __nv_##NAME
#define CUDA_UNARY(NAME) extern "C" float __nv_##NAME(float);
#define CUDA_BINARY(NAME) extern "C" float __nv_##NAME(float, float);
CUDA_UNARY(expf) CUDA_UNARY(exp2f) CUDA_UNARY(logf) CUDA_UNARY(log2f) CUDA_UNARY(log10f) CUDA_UNARY(sqrtf)
CUDA_UNARY(sinf) CUDA_UNARY(cosf) CUDA_UNARY(tanf) CUDA_UNARY(tanhf) CUDA_UNARY(sinhf) CUDA_UNARY(coshf)
CUDA_UNARY(atanf) CUDA_UNARY(floorf) CUDA_UNARY(ceilf) CUDA_UNARY(roundf) CUDA_UNARY(rintf) CUDA_UNARY(truncf)
CUDA_UNARY(fabsf)
CUDA_BINARY(powf) CUDA_BINARY(fminf) CUDA_BINARY(fmaxf) CUDA_BINARY(fmodf) CUDA_BINARY(copysignf)
extern "C" float __nv_fmaf(float, float, float);
#undef CUDA_UNARY
#undef CUDA_BINARY

namespace host {

struct Place {};
struct Thread {
  unsigned index, lane;
};
inline Thread self() {
  unsigned x = __nvvm_read_ptx_sreg_tid_x(), y = __nvvm_read_ptx_sreg_tid_y(), z = __nvvm_read_ptx_sreg_tid_z();
  unsigned index = x + __nvvm_read_ptx_sreg_ntid_x() * (y + __nvvm_read_ptx_sreg_ntid_y() * z);
  return {index, index % 32};
}
inline unsigned block_size() {
  return __nvvm_read_ptx_sreg_ntid_x() * __nvvm_read_ptx_sreg_ntid_y() * __nvvm_read_ptx_sreg_ntid_z();
}
inline void check_atomic(const volatile void*, unsigned) {}

}  // namespace host

#define HOST_PLACE host::Place place = {}
