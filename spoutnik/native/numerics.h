// Scalars: bfloat16, rounding up, and the functions that -ffast-math or vectorization need in a form of their own.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

using bf16 = uint16_t;  // the upper half of a float

// The size of a structure that structs.py mirrors and the offset of its last field, which loading compares.
#define SPOUTNIK_LAYOUT(STRUCT, LAST) \
    extern "C" const int64_t spoutnik_layout_##STRUCT[2] = {sizeof(STRUCT), offsetof(STRUCT, LAST)};

inline int64_t ceil_div(int64_t n, int64_t divisor) { return (n + divisor - 1) / divisor; }
inline int64_t round_up(int64_t n, int64_t multiple) { return ceil_div(n, multiple) * multiple; }

// The same bits read as another type of the same size.
template <typename To, typename From>
inline To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return bit_cast<float>(static_cast<uint32_t>(x) << 16); }

inline void store(float* to, float x) { *to = x; }
inline void store(bf16* to, float x) {  // round to nearest even
    const uint32_t bits = bit_cast<uint32_t>(x);
    *to = static_cast<bf16>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Half precision (IEEE binary16) of zero or a normal number, the only ones that are written.
inline float half_to_float(uint16_t half) {
    const uint32_t magnitude = half & 0x7fff;
    return bit_cast<float>(static_cast<uint32_t>(half & 0x8000) << 16 | (magnitude ? (magnitude << 13) + (112u << 23) : 0));
}
inline uint16_t float_to_half(float x) {  // nearest; what is too small for a normal half becomes zero
    const uint32_t bits = bit_cast<uint32_t>(x);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = (bits & 0x7fffffff) + 0xfff + (bits >> 13 & 1);
    return magnitude < (113u << 23) ? sign : sign | ((magnitude - (112u << 23)) >> 13);
}

// x, or 0 for NaN, whose conversion to an integer is undefined. By its bits: -ffast-math removes comparisons with NaN.
inline float nan_to_zero(float x) {
    const uint32_t bits = bit_cast<uint32_t>(x);
    return bit_cast<float>((bits & 0x7fffffffu) > 0x7f800000u ? 0 : bits);
}

// e^x for x <= 0, to a few units in the last place: exp2 by a polynomial, so that the loop around it vectorizes. Defined for
// every x, though for NaN and above 0 the result means nothing.
inline float exp_nonpositive(float x) {
    float t = std::max(x * 1.44269504f, -126.0f);
    float whole = std::floor(t), part = t - whole;
    float p = 1.8775767e-3f;
    p = p * part + 8.9893397e-3f;
    p = p * part + 5.5826318e-2f;
    p = p * part + 2.4015361e-1f;
    p = p * part + 6.9315308e-1f;
    p = p * part + 9.9999994e-1f;
    // 2^whole: next to 1.5 * 2^23 the lowest bits of a float count in ones, so the exponent needs no conversion to an integer.
    return p * bit_cast<float>(bit_cast<uint32_t>(whole + (12582912.0f + 127.0f)) << 23);
}

inline float sigmoid(float x) {
    float e = exp_nonpositive(-std::fabs(x));
    return (x >= 0 ? 1.0f : e) / (1.0f + e);
}
