// Conversions that the compiler calls where the processor has no instruction for them.  They belong to compiler-rt, which
// a clang can come without (Debian: libclang-rt-19-dev); a library's own comes first.
#include <cstdint>
#include <cstring>

extern "C" __attribute__((weak)) __bf16 __truncsfbf2(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  // To the nearest, ties to even; a NaN stays one.
  const uint32_t rounded = is_nan ? bits | 0x00400000u : bits + 0x7fffu + (bits >> 16 & 1u);
  const uint16_t half = static_cast<uint16_t>(rounded >> 16);
  __bf16 result;
  std::memcpy(&result, &half, sizeof result);
  return result;
}
