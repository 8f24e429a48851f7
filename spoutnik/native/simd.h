// Vectors of the machine that the library is compiled for: all intrinsics are here. A vector has LANES floats; without
// intrinsics for a processor, plain loops over the lanes do the same.
#pragma once

#include "numerics.h"
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

// Floats in a vector, and how many blocks of outputs a tile of 8 rows multiplies at once: 16 sums in flight hide the latency
// of the multipliers where 32 registers hold them, 8 where there are only 16.
#if defined(__AVX512F__)
constexpr int64_t LANES = 16, TILE_BLOCKS = 2;
#elif defined(__AVX__)
constexpr int64_t LANES = 8, TILE_BLOCKS = 1;
#else
constexpr int64_t LANES = 4, TILE_BLOCKS = 2;
#endif

typedef float vfloat __attribute__((vector_size(4 * LANES)));
typedef uint32_t vuint __attribute__((vector_size(4 * LANES)));
typedef int32_t vint __attribute__((vector_size(4 * LANES)));

// Two bfloat16 as one word, which strict aliasing forbids of a plain uint32_t.
typedef uint32_t bf16_pair __attribute__((may_alias, aligned(2)));

// An array of vectors lives in registers only where every loop over it is unrolled.
#define UNROLLED _Pragma("GCC unroll 16")

// x, a number or vector, as a new value to the compiler, which may reassociate under -ffast-math: keeps a sum in the order in
// which it is written, whatever the number of rows, and a value that is used again in its register. Costs nothing. By value,
// since an operand of `asm` that is an element of an array would keep the whole array in memory.
template <typename V>
inline __attribute__((always_inline)) V kept(V x) {
#if defined(__AVX512F__)
    asm("" : "+v"(x));
#elif defined(__x86_64__)
    asm("" : "+x"(x));
#elif defined(__aarch64__)
    asm("" : "+w"(x));
#else
    asm("" : "+m"(x));
#endif
    return x;
}

// The instruction set, for messages.
inline const char* instruction_set() {
    return ""
#if defined(__AVX512F__)
           "AVX-512"
#elif defined(__AVX2__)
           "AVX2"
#elif defined(__AVX__)
           "AVX"
#elif defined(__x86_64__)
           "SSE"
#elif defined(__ARM_NEON)
           "NEON"
#else
           "portable"
#endif
#if defined(__AVX512BF16__)
           " BF16"
#endif
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
           " VNNI"
#elif defined(__ARM_FEATURE_DOTPROD)
           " dotprod"
#endif
        ;
}

// ------------------------------------------------------------------------------------------------------- load and store

template <typename V>
inline V load(const void* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline void store(float* to, const vfloat& x) { std::memcpy(to, &x, sizeof x); }
inline void store(bf16* to, const vfloat& x) {
#ifdef __AVX512BF16__
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh((__m512)x));
#else
    for (int64_t l = 0; l < LANES; l++) store(to + l, x[l]);
#endif
}

// n floats, rounded to T.
template <typename T>
inline void store_floats(T* to, const float* from, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(to + i, load<vfloat>(from + i));
    for (; i < n; i++) store(to + i, from[i]);
}

// LANES numbers of half precision.
inline vfloat load_half(const uint8_t* from) {
#if defined(__AVX512F__)
    return (vfloat)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__)
    return (vfloat)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#elif defined(__ARM_NEON)
    return (vfloat)vcvt_f32_f16(vreinterpret_f16_u16(load<uint16x4_t>(from)));
#else
    vfloat x;
    for (int64_t l = 0; l < LANES; l++) x[l] = half_to_float(load<uint16_t>(from + 2 * l));
    return x;
#endif
}

// Prefetches weights that a core reads once, PREFETCH_DISTANCE bytes ahead: computing fills the core's window before the next
// loads are in it, and the hardware prefetcher alone is too slow for fast memory.
constexpr int64_t PREFETCH_DISTANCE = 6 << 10;
inline void prefetch_stream(const void* from, int64_t bytes) {
    for (int64_t line = 0; line < bytes; line += 64)
        __builtin_prefetch(static_cast<const char*>(from) + PREFETCH_DISTANCE + line, 0, 3);
}

// ------------------------------------------------------------------------------------------------- sums and dot products

inline float reduce_add(const vfloat& x) {
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)x);
#else
    float sum = 0;
    for (int64_t l = 0; l < LANES; l++) sum += x[l];
    return sum;
#endif
}
inline float reduce_max(const vfloat& x) {
#ifdef __AVX512F__
    return _mm512_reduce_max_ps((__m512)x);
#else
    float top = x[0];
    for (int64_t l = 1; l < LANES; l++) top = std::max(top, x[l]);
    return top;
#endif
}

// What the dot product of bytes already subtracts from unsigned 8-bit weights: where the processor multiplies signed bytes,
// 128.
#if defined(__ARM_FEATURE_DOTPROD)
constexpr int32_t DOT_OFFSET = 128;
#else
constexpr int32_t DOT_OFFSET = 0;
#endif

// Weights of 4 bits are multiplied as multiples of 16, which saves shifts, where the dot product of bytes takes such numbers
// as they are.
#if defined(__AVX512VNNI__) || (defined(__AVXVNNI__) && !defined(__AVX512F__))
constexpr bool WIDE_NIBBLES = true;
#else
constexpr bool WIDE_NIBBLES = false;
#endif

// The lower and the upper half of each byte; times 16 where WIDE_NIBBLES.
inline vint lower_nibbles(const vint& x) { return WIDE_NIBBLES ? (x << 4) & 0xf0f0f0f0 : x & 0x0f0f0f0f; }
inline vint upper_nibbles(const vint& x) { return WIDE_NIBBLES ? x & 0xf0f0f0f0 : (x >> 4) & 0x0f0f0f0f; }

// sum + LANES dot products of four bytes: weights unsigned, x signed and the same for all lanes.
template <bool SMALL>  // weights below 16
inline vint dot_int8(vint sum, vint weights, int32_t x) {
#if defined(__AVX512VNNI__)
    return (vint)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, _mm512_set1_epi32(x));
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
    return (vint)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)weights, _mm256_set1_epi32(x));
#elif defined(__AVX2__) && !defined(__AVX512F__)
    // Pairs are added in 16 bits with saturation: the weights' upper bit goes apart, so that nothing saturates.
    const __m256i w = (__m256i)weights, four = _mm256_set1_epi32(x), ones = _mm256_set1_epi16(1);
    if (SMALL) return sum + (vint)_mm256_madd_epi16(_mm256_maddubs_epi16(w, four), ones);
    const __m256i low = _mm256_maddubs_epi16(_mm256_and_si256(w, _mm256_set1_epi8(0x7f)), four);
    const __m256i high = _mm256_maddubs_epi16(_mm256_and_si256(w, _mm256_set1_epi8(-128)), four);
    return sum + (vint)_mm256_madd_epi16(low, ones) + (vint)_mm256_madd_epi16(high, ones);
#elif defined(__ARM_FEATURE_DOTPROD)
    const int8x16_t w = vreinterpretq_s8_s32((int32x4_t)weights), four = vreinterpretq_s8_s32(vdupq_n_s32(x));
    const int8x16_t flipped = SMALL ? w : veorq_s8(w, vdupq_n_s8(-128));
    return (vint)vdotq_s32((int32x4_t)sum, flipped, four);
#else
    uint8_t w[4 * LANES];
    int8_t four[4];
    std::memcpy(w, &weights, sizeof w);
    std::memcpy(four, &x, 4);
    for (int64_t l = 0; l < LANES; l++)
        for (int i = 0; i < 4; i++) sum[l] += w[4 * l + i] * four[i];
    return sum;
#endif
}

// LANES pairs of bytes, each byte as 16 bits.
inline vint load_byte_pairs(const uint8_t* from) {
#if defined(__AVX512BW__)
    return (vint)_mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__AVX2__) && !defined(__AVX512F__)
    return (vint)_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#elif defined(__ARM_NEON)
    return (vint)vreinterpretq_s32_u16(vmovl_u8(vld1_u8(from)));
#else
    vint pairs;
    for (int64_t l = 0; l < LANES; l++) pairs[l] = from[2 * l] | from[2 * l + 1] << 16;
    return pairs;
#endif
}

// sum + the lower 16 bits of each lane, a number below 256, times x, of 16 bits with its sign.
inline vint add_lower_product(vint sum, vint pairs, int32_t x) {
#if defined(__AVX512VNNI__)
    return (vint)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)pairs, _mm512_set1_epi32(x & 0xffff));
#elif defined(__AVX2__) && !defined(__AVX512F__)
    return sum + (vint)_mm256_madd_epi16((__m256i)pairs, _mm256_set1_epi32(x & 0xffff));
#elif defined(__SSE2__) && !defined(__AVX__)
    return sum + (vint)_mm_madd_epi16((__m128i)pairs, _mm_set1_epi32(x & 0xffff));
#else
    return sum + (pairs & 0xffff) * x;
#endif
}

#ifdef __AVX512BF16__
// Where the processor multiplies bfloat16: sum + the dot product of two in each lane.
inline vfloat dot_bf16(const vfloat& sum, __m512i a, __m512i b) {
    return (vfloat)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

// The first n lanes of 16.
inline __mmask16 first_lanes(int64_t n) { return n >= LANES ? 0xffff : (1u << n) - 1; }

inline __m512i load_pairs(const void* from) { return _mm512_loadu_si512(from); }
inline __m512i load_pairs(__mmask16 inside, const void* from) { return _mm512_maskz_loadu_epi32(inside, from); }
inline __m512i load_bf16(int64_t count, const bf16* from) {
    return _mm512_maskz_loadu_epi16(count >= 2 * LANES ? ~0u : (1u << count) - 1, from);
}
inline __m512i broadcast_pair(int32_t pair) { return _mm512_set1_epi32(pair); }
inline void store_pairs(void* to, __m512i pairs) { _mm512_storeu_si512(to, pairs); }
inline void store_lanes(bf16* to, const vfloat& x, __mmask16 inside) {
    _mm256_mask_storeu_epi16(to, inside, (__m256i)_mm512_cvtneps_pbh((__m512)x));
}
inline void store_lanes(float* to, const vfloat& x, __mmask16 inside) { _mm512_mask_storeu_ps(to, inside, (__m512)x); }

// Pairs of bfloat16 that lie at `first` and `second`, those of each mask.
inline __m512i interleave(__mmask16 inside_first, const bf16* first, __mmask16 inside_second, const bf16* second) {
    const __m512i even = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(inside_first, first));
    const __m512i odd = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(inside_second, second));
    return _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
}

// The sums over each of 16 vectors: pairs of vectors are added until a single one is left, then its lanes are put in order.
inline vfloat reduce_add(vfloat (&sums)[16]) {
    __m512 a[16];
    for (int i = 0; i < 16; i++) a[i] = (__m512)sums[i];
    for (int i = 0; i < 8; i++) a[i] = _mm512_add_ps(_mm512_unpacklo_ps(a[i], a[i + 8]), _mm512_unpackhi_ps(a[i], a[i + 8]));
    for (int i = 0; i < 4; i++) a[i] = _mm512_add_ps(_mm512_unpacklo_ps(a[i], a[i + 4]), _mm512_unpackhi_ps(a[i], a[i + 4]));
    for (int i = 0; i < 2; i++)
        a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[i], a[i + 2], 0x44), _mm512_shuffle_f32x4(a[i], a[i + 2], 0xee));
    const __m512 all = _mm512_add_ps(_mm512_shuffle_f32x4(a[0], a[1], 0x88), _mm512_shuffle_f32x4(a[0], a[1], 0xdd));
    return (vfloat)_mm512_permutexvar_ps(_mm512_setr_epi32(0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15), all);
}

// 16 rows of 16 words, transposed in registers.
inline void transpose(__m512i (&r)[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}
#endif

// ----------------------------------------------------------------------------------------------------- lookups in 16 bytes

// vbytes: a vector of bytes in which table lookups and joins work within each 16 bytes. SPOUTNIK_LOOKUP: whether it exists.
#if defined(__AVX512BW__)
#define SPOUTNIK_LOOKUP 1
using vbytes = __m512i;
inline vbytes load_bytes(const uint8_t* from) { return _mm512_loadu_si512(from); }
inline void store_bytes(bf16* to, vbytes x) { _mm512_storeu_si512(to, x); }
inline vbytes broadcast_table(const uint8_t* from) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline vbytes lookup(vbytes table, vbytes codes) { return _mm512_shuffle_epi8(table, codes); }
inline vbytes low_nibbles(vbytes codes) { return _mm512_and_si512(codes, _mm512_set1_epi8(15)); }
inline vbytes high_nibbles(vbytes codes) { return _mm512_and_si512(_mm512_srli_epi16(codes, 4), _mm512_set1_epi8(15)); }
inline vbytes interleave_low(vbytes low, vbytes high) { return _mm512_unpacklo_epi8(low, high); }
inline vbytes interleave_high(vbytes low, vbytes high) { return _mm512_unpackhi_epi8(low, high); }
#elif defined(__AVX2__)
#define SPOUTNIK_LOOKUP 1
using vbytes = __m256i;
inline vbytes load_bytes(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
inline void store_bytes(bf16* to, vbytes x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x); }
inline vbytes broadcast_table(const uint8_t* from) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline vbytes lookup(vbytes table, vbytes codes) { return _mm256_shuffle_epi8(table, codes); }
inline vbytes low_nibbles(vbytes codes) { return _mm256_and_si256(codes, _mm256_set1_epi8(15)); }
inline vbytes high_nibbles(vbytes codes) { return _mm256_and_si256(_mm256_srli_epi16(codes, 4), _mm256_set1_epi8(15)); }
inline vbytes interleave_low(vbytes low, vbytes high) { return _mm256_unpacklo_epi8(low, high); }
inline vbytes interleave_high(vbytes low, vbytes high) { return _mm256_unpackhi_epi8(low, high); }
#elif defined(__ARM_NEON) && defined(__aarch64__)
#define SPOUTNIK_LOOKUP 1
using vbytes = uint8x16_t;
inline vbytes load_bytes(const uint8_t* from) { return vld1q_u8(from); }
inline void store_bytes(bf16* to, vbytes x) { vst1q_u8(reinterpret_cast<uint8_t*>(to), x); }
inline vbytes broadcast_table(const uint8_t* from) { return vld1q_u8(from); }
inline vbytes lookup(vbytes table, vbytes codes) { return vqtbl1q_u8(table, codes); }
inline vbytes low_nibbles(vbytes codes) { return vandq_u8(codes, vdupq_n_u8(15)); }
inline vbytes high_nibbles(vbytes codes) { return vshrq_n_u8(codes, 4); }
inline vbytes interleave_low(vbytes low, vbytes high) { return vzip1q_u8(low, high); }
inline vbytes interleave_high(vbytes low, vbytes high) { return vzip2q_u8(low, high); }
#else
#define SPOUTNIK_LOOKUP 0
#endif
