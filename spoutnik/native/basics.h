// What every kernel uses: bfloat16 in memory, float in registers, products of rows with rows. Plain loops that the compiler
// vectorises for the machine it runs on; one hand-written product where the processor multiplies bfloat16 itself.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

using bf16 = uint16_t;  // the upper half of a float

// The size of a structure that structs.py mirrors and the offset of its last field, which loading compares.
#define SPOUTNIK_LAYOUT(STRUCT, LAST) extern "C" const int64_t spoutnik_layout_##STRUCT[2] = {sizeof(STRUCT), offsetof(STRUCT, LAST)};

inline float to_float(float x) { return x; }
inline float to_float(bf16 half) {
    uint32_t bits = static_cast<uint32_t>(half) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline void store(float* where, float x) { *where = x; }
inline void store(bf16* where, float x) {  // round to nearest even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    *where = static_cast<bf16>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// x, or 0 for NaN, which a conversion to an integer has no answer to. By its bits: -ffast-math takes comparisons of NaN away.
inline float or_zero(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    bits = (bits & 0x7fffffffu) > 0x7f800000u ? 0 : bits;
    std::memcpy(&x, &bits, 4);
    return x;
}

// e^x for x <= 0, to a few units in the last place: exp2 by a polynomial, so that the loop around it vectorises. Defined for
// every x, though for NaN and above 0 the result means nothing.
inline float exp_negative(float x) {
    float t = std::max(x * 1.44269504f, -126.0f);
    float whole = std::floor(t), part = t - whole;
    float p = 1.8775767e-3f;
    p = p * part + 8.9893397e-3f;
    p = p * part + 5.5826318e-2f;
    p = p * part + 2.4015361e-1f;
    p = p * part + 6.9315308e-1f;
    p = p * part + 9.9999994e-1f;
    // 2^whole: next to 1.5 * 2^23 a float's lowest bits count in ones, so the exponent needs no conversion to an integer.
    const float counted = whole + (12582912.0f + 127.0f);
    uint32_t bits;
    std::memcpy(&bits, &counted, 4);
    bits <<= 23;
    float scale;
    std::memcpy(&scale, &bits, 4);
    return p * scale;
}

inline float sigmoid(float x) {
    float e = exp_negative(-std::fabs(x));
    return (x >= 0 ? 1.0f : e) / (1.0f + e);
}

inline float dot(const float* a, const float* b, int64_t n) {
    float sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

// A register of floats, as wide as the machine has them, and how many blocks of outputs a tile of 8 rows multiplies at once:
// 16 sums in flight cover the multipliers' latency where 32 registers hold them, 8 where there are only 16.
#if defined(__AVX512F__)
constexpr int64_t LANES = 16, BLOCKS = 2;
#elif defined(__AVX__)
constexpr int64_t LANES = 8, BLOCKS = 1;
#else
constexpr int64_t LANES = 4, BLOCKS = 2;
#endif

// Weights that a core reads once, as they stream by: it asks for those AHEAD bytes further on, since work on what is there fills its
// window before the next loads are in it, and what it guesses by itself is not enough where memory is fast.
constexpr int64_t AHEAD = 6 << 10;
inline void fetch_ahead(const void* from, int64_t bytes) {
    for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(static_cast<const char*>(from) + AHEAD + line, 0, 3);
}

// A tile's sums live in registers only where every loop over them is written out.
#define UNROLLED _Pragma("GCC unroll 16")

// How weights are packed: blocks of LANES outputs side by side, PAIR inputs of one output together, so that a product fills
// whole registers and never has to be summed across one. (out / LANES, in / PAIR, LANES, PAIR), out filled up with zeros.
// Lane: what one output has side by side. Two bfloat16 are read as one word, which strict aliasing forbids of a plain uint32_t.
typedef uint32_t pair __attribute__((may_alias, aligned(2)));
template <typename T>
struct Packed {
    static constexpr int64_t PAIR = 1;
    typedef T Lane;
};
template <>
struct Packed<bf16> {
    static constexpr int64_t PAIR = 2;
    typedef pair Lane;
};

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));

// Where sums must come in one order whatever the number of rows: to the compiler, which may add as it likes, the number is a
// new one from here on. It costs nothing.
#if defined(__AVX512F__)
#define IN_ORDER(number) asm("" : "+v"(number))
#elif defined(__x86_64__)
#define IN_ORDER(number) asm("" : "+x"(number))
#elif defined(__aarch64__)
#define IN_ORDER(number) asm("" : "+w"(number))
#else
#define IN_ORDER(number) asm("" : "+m"(number))
#endif

template <typename V>
inline V load(const void* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline void store(float* to, const floats& numbers) { std::memcpy(to, &numbers, sizeof numbers); }
inline void store(bf16* to, const floats& numbers) {
#ifdef __AVX512BF16__
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh((__m512)numbers));
#else
    for (int64_t l = 0; l < LANES; l++) store(to + l, numbers[l]);
#endif
}

// Over all lanes of one register.
inline float sum_of(const floats& numbers) {
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)numbers);
#else
    float sum = 0;
    for (int64_t l = 0; l < LANES; l++) sum += numbers[l];
    return sum;
#endif
}
inline float largest_of(const floats& numbers) {
#ifdef __AVX512F__
    return _mm512_reduce_max_ps((__m512)numbers);
#else
    float top = numbers[0];
    for (int64_t l = 1; l < LANES; l++) top = std::max(top, numbers[l]);
    return top;
#endif
}

template <typename T>
inline void store_all(T* to, const float* from, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(to + i, load<floats>(from + i));
    for (; i < n; i++) store(to + i, from[i]);
}

// R rows of x, `stride` apart, against B neighbouring blocks of outputs, `step` apart. Each load serves several sums.
template <int R, int B>
inline void block_product(const float* x, int64_t stride, int64_t in, const float* w, int64_t step, floats (&sum)[R][B]) {
    for (auto& row : sum)
        for (auto& s : row) s = floats{};
    for (int64_t k = 0; k < in; k++)
        for (int b = 0; b < B; b++) {
            const floats weights = load<floats>(w + b * step + k * LANES);
            for (int r = 0; r < R; r++) sum[r][b] += x[r * stride + k] * weights;
        }
}

template <int R, int B>
inline void block_product(const bf16* x, int64_t stride, int64_t in, const bf16* w, int64_t step, floats (&sum)[R][B]) {
    for (auto& row : sum)
        for (auto& s : row) s = floats{};
    for (int64_t k = 0; k < in; k += 2) {
#ifdef __AVX512BF16__  // the processor multiplies pairs itself
        __m512bh weights[B];
        for (int b = 0; b < B; b++) weights[b] = (__m512bh)_mm512_loadu_si512(w + b * step + k * LANES);
        for (int r = 0; r < R; r++) {
            int32_t two;
            std::memcpy(&two, x + r * stride + k, 4);
            const __m512bh pair = (__m512bh)_mm512_set1_epi32(two);
            for (int b = 0; b < B; b++) sum[r][b] = (floats)_mm512_dpbf16_ps((__m512)sum[r][b], pair, weights[b]);
        }
#else
        for (int b = 0; b < B; b++) {
            const words both = load<words>(w + b * step + k * LANES);
            const floats even = (floats)(both << 16), odd = (floats)(both & 0xffff0000u);
            for (int r = 0; r < R; r++)
                sum[r][b] += to_float(x[r * stride + k]) * even + to_float(x[r * stride + k + 1]) * odd;
        }
#endif
    }
}

// R rows of x, inputs [first, last) of `in`, against `out` outputs (in whole blocks): sums go to finish(row, output, sums).
template <int R, typename T, typename Finish>
inline void tile_product(const T* x, int64_t stride, int64_t first, int64_t last, const T* w, int64_t in, int64_t out,
                         Finish finish) {
    int64_t o = 0;
    for (; o + BLOCKS * LANES <= out; o += BLOCKS * LANES) {
        floats sum[R][BLOCKS];
        block_product<R, BLOCKS>(x + first, stride, last - first, w + o * in + first * LANES, LANES * in, sum);
        for (int r = 0; r < R; r++)
            for (int b = 0; b < BLOCKS; b++) finish(r, o + b * LANES, sum[r][b]);
    }
    for (; o < out; o += LANES) {
        floats sum[R][1];
        block_product<R, 1>(x + first, stride, last - first, w + o * in + first * LANES, 0, sum);
        for (int r = 0; r < R; r++) finish(r, o, sum[r][0]);
    }
}
