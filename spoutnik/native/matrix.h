// Weights packed for inference, and their products with rows of activations, in five kinds: float32, bfloat16 (plain, or compact:
// the same numbers in 12 bits, compact.h), and groups of 32 inputs in 8 or 4 bits with a scale of half precision.
//
// A sum runs over the inputs in order, whatever the number of rows and threads: a token's numbers are the same alone and in a
// batch, to the last bit. Nothing else in this folder promises that; the engine's reproducibility rests on it.
//
// Outputs lie in panels of 4 blocks of LANES (the last panel may have fewer blocks), and a panel is one stream of memory:
//   float32   (in, block, LANES)
//   bfloat16  (in / 2, block, LANES, 2)
//   int8      (in / 32, record): (8, block, LANES, 4) bytes holding value + 128, then (block, LANES) scales
//   int4      (in / 32, record): (4, block, LANES, 4) bytes, value + 8 of input 8j + i in the low half and of 8j + 4 + i in the
//             high half, then the scales
// Outputs and inputs are filled up with zeros. The plain twin is engine/quantise.py.
#pragma once

#include <type_traits>

#include "basics.h"
#include "compact.h"
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

extern "C" {

enum Kind : int64_t { FLOAT32, BFLOAT16, INT8, INT4, COMPACT };

// Mirrored by structs.py. bias (out) or null; unit: what the scales are multiples of, so that half precision suits them.
struct Matrix {
    const void* data;
    const float* bias;
    int64_t kind, in, out;
    double unit;
};

}

constexpr int64_t PANEL_BLOCKS = 4, PANEL_OUTPUTS = PANEL_BLOCKS * LANES, GROUP = 32;

inline int64_t rounded(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Whether activations and unpacked weights are bfloat16.
inline bool halves(int64_t kind) { return kind == BFLOAT16 || kind == COMPACT; }

// Inputs as they are stored: whole pairs, whole groups.
inline int64_t stored_inputs(int64_t kind, int64_t in) { return rounded(in, kind == FLOAT32 ? 1 : halves(kind) ? 2 : GROUP); }

// Bytes of `outputs` (whole blocks) of a matrix; a compact one's exceptions come on top.
inline int64_t packed_bytes(int64_t kind, int64_t in, int64_t outputs) {
    const int64_t inputs = stored_inputs(kind, in), rest = outputs % PANEL_OUTPUTS;
    switch (kind) {
        case FLOAT32: return 4 * inputs * outputs;
        case BFLOAT16: return 2 * inputs * outputs;
        case COMPACT:
            return outputs / PANEL_OUTPUTS * compact::panel_bytes(inputs, PANEL_OUTPUTS)
                   + (rest ? compact::panel_bytes(inputs, rest) : 0);
        case INT8: return inputs / GROUP * outputs * (GROUP + 2);
        default: return inputs / GROUP * outputs * (GROUP / 2 + 2);
    }
}

inline int64_t panels_of(const Matrix& m) { return (m.out + PANEL_OUTPUTS - 1) / PANEL_OUTPUTS; }

// ---------------------------------------------------------------------------------------------------------- operands

// A row of activations as a product reads it: its numbers, and for quantised weights int8 with, per group, a scale and the sum
// that takes the weights' offset back.
inline int64_t operand_bytes(int64_t kind, int64_t in) {
    const int64_t inputs = stored_inputs(kind, in);
    return rounded(kind == FLOAT32 ? 4 * inputs : halves(kind) ? 2 * inputs : inputs + inputs / GROUP * 8, 64);
}

// What the processor's byte product already takes off the weights: where it multiplies signed bytes, int8's offset.
#if defined(__ARM_FEATURE_DOTPROD)
constexpr int32_t TAKEN_OFF = 128;
#else
constexpr int32_t TAKEN_OFF = 0;
#endif

inline int32_t offset_of(int64_t kind) { return kind == INT4 ? 8 : 128 - TAKEN_OFF; }

// One group of a row: q at its place, its scale and its sum at theirs.
inline void quantise_group(const float* x, int64_t count, int64_t g, int64_t inputs, int32_t offset, int8_t* q) {
    float part[GROUP] = {};
    std::memcpy(part, x, 4 * count);
    float top = 0;
    for (float v : part) top = std::max(top, std::fabs(v));
    const float inverse = top > 0 ? 127.0f / top : 0.0f;
    int32_t sum = 0;
    for (int64_t i = 0; i < GROUP; i++) {
        // Within the range but for NaN, infinity and numbers too small to divide by.
        const float scaled = or_zero(part[i] * inverse + (part[i] < 0 ? -0.5f : 0.5f));
        const int32_t whole = static_cast<int32_t>(std::min(std::max(scaled, -127.5f), 127.5f));
        q[g * GROUP + i] = static_cast<int8_t>(whole);
        sum += whole;
    }
    const float scale = top / 127.0f;
    const int32_t taken_back = -offset * sum;
    std::memcpy(q + inputs + 4 * g, &scale, 4);
    std::memcpy(q + inputs + inputs / GROUP * 4 + 4 * g, &taken_back, 4);
}

// Numbers [start, start + count) of a row of `in`, start at the beginning of a group, as a product with a matrix of this kind
// reads them.
inline void prepare_part(int64_t kind, const float* x, int64_t start, int64_t count, int64_t in, void* to) {
    const int64_t inputs = stored_inputs(kind, in);
    if (kind == FLOAT32) {
        std::memcpy(static_cast<float*>(to) + start, x, 4 * count);
    } else if (halves(kind)) {
        bf16* half = static_cast<bf16*>(to);
        store_all(half + start, x, count);
        if (start + count == in && inputs > in) half[in] = 0;
    } else {
        for (int64_t i = 0; i < count; i += GROUP)
            quantise_group(x + i, std::min(GROUP, count - i), (start + i) / GROUP, inputs, offset_of(kind), static_cast<int8_t*>(to));
    }
}

inline void prepare(int64_t kind, const float* x, int64_t in, void* to) { prepare_part(kind, x, 0, in, in, to); }

// ------------------------------------------------------------------------------------------------------------ products

typedef int32_t integers __attribute__((vector_size(4 * LANES)));

// LANES sums of four bytes' products: weights unsigned, x signed and the same for all.
template <bool SMALL>  // weights below 16
inline integers dot4(integers sum, integers weights, int32_t x) {
#if defined(__AVX512VNNI__)
    return (integers)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, _mm512_set1_epi32(x));
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
    return (integers)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)weights, _mm256_set1_epi32(x));
#elif defined(__AVX2__) && !defined(__AVX512F__)
    // Pairs are added in 16 bits with saturation: the weights' upper bit goes apart, so that nothing saturates.
    const __m256i w = (__m256i)weights, four = _mm256_set1_epi32(x), ones = _mm256_set1_epi16(1);
    if (SMALL) return sum + (integers)_mm256_madd_epi16(_mm256_maddubs_epi16(w, four), ones);
    const __m256i low = _mm256_maddubs_epi16(_mm256_and_si256(w, _mm256_set1_epi8(0x7f)), four);
    const __m256i high = _mm256_maddubs_epi16(_mm256_and_si256(w, _mm256_set1_epi8(-128)), four);
    return sum + (integers)_mm256_madd_epi16(low, ones) + (integers)_mm256_madd_epi16(high, ones);
#elif defined(__ARM_FEATURE_DOTPROD)
    const int8x16_t w = vreinterpretq_s8_s32((int32x4_t)weights), four = vreinterpretq_s8_s32(vdupq_n_s32(x));
    const int8x16_t flipped = SMALL ? w : veorq_s8(w, vdupq_n_s8(-128));
    return (integers)vdotq_s32((int32x4_t)sum, flipped, four);
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

// LANES numbers of half precision.
inline floats scales_at(const uint8_t* halves) {
#if defined(__AVX512F__)
    return (floats)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves)));
#elif defined(__F16C__)
    return (floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves)));
#elif defined(__ARM_NEON)
    return (floats)vcvt_f32_f16(vreinterpret_f16_u16(load<uint16x4_t>(halves)));
#else
    floats scales;
    for (int64_t l = 0; l < LANES; l++) {  // zero or normal: that is all we write
        const uint16_t half = load<uint16_t>(halves + 2 * l);
        const uint32_t size = half & 0x7fff;
        const uint32_t bits = static_cast<uint32_t>(half & 0x8000) << 16 | (size ? (size << 13) + (112u << 23) : 0);
        float x;
        std::memcpy(&x, &bits, 4);
        scales[l] = x;
    }
    return scales;
#endif
}

// R rows times B blocks of one panel that has `blocks` of them, inputs [first, last): added to `sum`. A row's operands start at
// x[r], the panel's first of the B blocks at w.
template <int R, int B>
inline void multiply(const float* const (&x)[R], int64_t first, int64_t last, const float* w, int64_t step, int64_t block_step,
                     floats (&sum)[R][B]) {
    for (int64_t k = first; k < last; k++) {
        floats weights[B];
        for (int b = 0; b < B; b++) weights[b] = load<floats>(w + k * step + b * block_step);
        for (int r = 0; r < R; r++)
            for (int b = 0; b < B; b++) {
                sum[r][b] += x[r][k] * weights[b];
                IN_ORDER(sum[r][b]);
            }
    }
}

// next: where weights lie that come to the caches meanwhile, a line for each pair of inputs; or null.
template <int R, int B>
inline void multiply(const bf16* const (&x)[R], int64_t first, int64_t last, const bf16* w, int64_t step, int64_t block_step,
                     floats (&sum)[R][B], const char* next = nullptr) {
    const bf16* from = w + first / 2 * step;
    for (int64_t k = first; k < last; k += 2, from += step) {
        if (next) __builtin_prefetch(next + (k - first) * 32, 0, 2);
#ifdef __AVX512BF16__
        __m512bh weights[B];
        for (int b = 0; b < B; b++) weights[b] = (__m512bh)_mm512_loadu_si512(from + b * block_step);
        for (int r = 0; r < R; r++) {
            int32_t two;
            std::memcpy(&two, x[r] + k, 4);
            const __m512bh pair = (__m512bh)_mm512_set1_epi32(two);
            for (int b = 0; b < B; b++) sum[r][b] = (floats)_mm512_dpbf16_ps((__m512)sum[r][b], pair, weights[b]);
        }
#else
        for (int b = 0; b < B; b++) {
            const words both = load<words>(from + b * block_step);
            const floats even = (floats)(both << 16), odd = (floats)(both & 0xffff0000u);
            for (int r = 0; r < R; r++) {
                sum[r][b] += to_float(x[r][k]) * even;
                IN_ORDER(sum[r][b]);
                sum[r][b] += to_float(x[r][k + 1]) * odd;
                IN_ORDER(sum[r][b]);
            }
        }
#endif
    }
}

// The same in groups: x int8 with its scales and sums behind `inputs` of them. new_here: nobody has just read the panel.
template <int R, int B, bool FOUR>
inline void multiply_groups(const int8_t* const (&x)[R], int64_t inputs, int64_t first, int64_t last, const uint8_t* w, float unit,
                            bool new_here, floats (&sum)[R][B]) {
    constexpr int64_t per_output = FOUR ? GROUP / 2 : GROUP, record = B * LANES * (per_output + 2), step = B * LANES * 4;
    for (int64_t g = first / GROUP; g < last / GROUP; g++) {
        const uint8_t* from = w + g * record;
        if (new_here) fetch_ahead(from, record);
        integers whole[R][B];
        for (int r = 0; r < R; r++) {
            const int32_t start = load<int32_t>(x[r] + inputs + inputs / GROUP * 4 + 4 * g);
            for (auto& v : whole[r]) v = integers{} + start;
        }
        const auto add = [&](int64_t four, const integers (&weights)[B]) {
            for (int r = 0; r < R; r++) {
                int32_t bytes;
                std::memcpy(&bytes, x[r] + g * GROUP + four * 4, 4);
                for (int b = 0; b < B; b++) whole[r][b] = dot4<FOUR>(whole[r][b], weights[b], bytes);
            }
        };
#pragma GCC unroll 1  // written out, it would need more registers than there are
        for (int64_t j = 0; j < per_output / 4; j++) {
            integers weights[B];
            for (int b = 0; b < B; b++) weights[b] = load<integers>(from + j * step + b * LANES * 4);
            if (FOUR) {
                integers half[B];
                for (int b = 0; b < B; b++) half[b] = weights[b] & 0x0f0f0f0f;
                add(2 * j, half);
                for (int b = 0; b < B; b++) half[b] = (weights[b] >> 4) & 0x0f0f0f0f;
                add(2 * j + 1, half);
            } else {
                add(j, weights);
            }
        }
        const uint8_t* halves = from + B * LANES * per_output;
        for (int b = 0; b < B; b++) {
            const floats scales = scales_at(halves + 2 * b * LANES);
            for (int r = 0; r < R; r++) {
                float x_scale = load<float>(x[r] + inputs + 4 * g) * unit;
                IN_ORDER(x_scale);
                floats scale = scales * x_scale;
                IN_ORDER(scale);
                sum[r][b] += __builtin_convertvector(whole[r][b], floats) * scale;
                IN_ORDER(sum[r][b]);
            }
        }
    }
}

// A panel's exceptions that lie in its inputs from `first` on, in order.
inline const compact::Exception* exceptions_of(const Matrix& m, int64_t p, int64_t first) {
    const int64_t parts = compact::parts_of(stored_inputs(m.kind, m.in));
    const char* behind = static_cast<const char*>(m.data) + packed_bytes(m.kind, m.in, rounded(m.out, LANES));
    const auto* starts = reinterpret_cast<const int64_t*>(behind);
    return reinterpret_cast<const compact::Exception*>(starts + panels_of(m) * parts + 1) + starts[p * parts + first / compact::PART];
}

// The same of inputs [first, last) of a compact panel; first is a multiple of compact::PART. Some records at a time are unpacked to
// `plain` and multiplied: so the processor does one while it waits for the next ones. keep: `plain` holds all of them in the end.
template <int R, int B>
inline void multiply_compact(const Matrix& m, int64_t p, const bf16* const (&x)[R], int64_t first, int64_t last, const char* panel,
                             bf16* plain, bool keep, floats (&sum)[R][B]) {
    constexpr int64_t outputs = B * LANES, inputs = compact::RECORD / LANES;  // of B records
    const auto* table = reinterpret_cast<const uint8_t*>(panel);
    const uint8_t* record = table + compact::TABLE_BYTES + first * outputs / compact::RECORD * compact::RECORD_BYTES;
    const compact::Exception *exception = exceptions_of(m, p, first), *end = exceptions_of(m, p + 1, 0);
    for (int64_t k = first; k < last; k += inputs, record += B * compact::RECORD_BYTES) {
        const int64_t here = std::min(inputs, last - k);
        compact::unpack(table, record, here == inputs ? B : compact::records_of(here, outputs), plain);
        for (; exception < end && exception->place < (k + inputs) * outputs; exception++)
            plain[exception->place - k * outputs] = exception->value;
        multiply<R, B>(x, k, k + here, plain - k * outputs, outputs * 2, LANES * 2, sum);
        if (keep) plain += inputs * outputs;
    }
}

// Where rows are: row i at data + (index ? index[i] : i) * stride (bytes for operands, floats for results).
template <typename T>
struct Rows {
    T* data;
    int64_t stride;
    const int64_t* index = nullptr;
    T* at(int64_t i) const { return data + (index ? index[i] : i) * stride; }
    Rows from(int64_t i) const { return index ? Rows{data, stride, index + i} : Rows{data + i * stride, stride}; }
};
using Operands = Rows<const char>;
using Results = Rows<float>;

// B blocks of numbers, of which `count` count; all of them mostly, which the compiler then knows.
template <int B>
inline void read_blocks(const float* from, int64_t count, floats (&blocks)[B]) {
    if (count >= B * LANES)
        UNROLLED for (int b = 0; b < B; b++) blocks[b] = load<floats>(from + b * LANES);
    else
        std::memcpy(&blocks, from, 4 * count);
}
template <int B>
inline void write_blocks(const floats (&blocks)[B], float* to, int64_t count) {
    if (count >= B * LANES)
        UNROLLED for (int b = 0; b < B; b++) std::memcpy(to + b * LANES, &blocks[b], sizeof(floats));
    else
        std::memcpy(to, &blocks, 4 * count);
}

// R rows from `row` on, the B blocks of panel p, which lies at `panel`, inputs [first, last). unpacked: where a compact panel's
// weights go, all of them where there are more rows; null: they are there, and `panel` where input 0 would be. next: as above.
template <int R, int B>
inline void tile(const Matrix& m, const char* panel, int64_t p, const Operands& x, const Results& y, bool add, int64_t row,
                 int64_t first, int64_t last, bf16* unpacked, bool more, const char* next) {
    const int64_t start = p * PANEL_OUTPUTS, inputs = stored_inputs(m.kind, m.in);
    const int64_t here = m.out - start;  // outputs of ours
    floats sum[R][B] = {};
    float* to[R];
    UNROLLED for (int r = 0; r < R; r++) {
        to[r] = y.at(row + r) + start;
        if (add || first) read_blocks<B>(to[r], here, sum[r]);
        if (m.bias && !first) {
            floats bias[B] = {};
            read_blocks<B>(m.bias + start, here, bias);
            for (int b = 0; b < B; b++) sum[r][b] += bias[b];
        }
    }
    const auto rows = [&](auto& from) {
        for (int r = 0; r < R; r++) from[r] = reinterpret_cast<std::remove_reference_t<decltype(from[0])>>(x.at(row + r));
    };
    if (m.kind == FLOAT32) {
        const float* from[R];
        rows(from);
        multiply<R, B>(from, first, last, reinterpret_cast<const float*>(panel), B * LANES, LANES, sum);
    } else if (halves(m.kind)) {
        const bf16* from[R];
        rows(from);
        if (unpacked) multiply_compact<R, B>(m, p, from, first, last, panel, unpacked, more, sum);
        else multiply<R, B>(from, first, last, reinterpret_cast<const bf16*>(panel), B * LANES * 2, LANES * 2, sum, next);
    } else {
        const int8_t* from[R];
        rows(from);
        const uint8_t* bytes = reinterpret_cast<const uint8_t*>(panel);
        if (m.kind == INT8) multiply_groups<R, B, false>(from, inputs, first, last, bytes, m.unit, row == 0, sum);
        else multiply_groups<R, B, true>(from, inputs, first, last, bytes, m.unit, row == 0, sum);
    }
    UNROLLED for (int r = 0; r < R; r++) write_blocks<B>(sum[r], to[r], here);
}

// The rows of a tile: as many sums as the registers hold.
#if defined(__AVX512F__)
constexpr int64_t MOST_ROWS = 6, MOST_GROUP_ROWS = 3;
#else
constexpr int64_t MOST_ROWS = 2, MOST_GROUP_ROWS = 1;
#endif

template <int B>
inline void tiles(const Matrix& m, const char* panel, int64_t p, const Operands& x, const Results& y, bool add, int64_t rows,
                  int64_t first, int64_t last, bf16* unpacked) {
    // bfloat16: while rows go by, what follows in memory comes to the caches, some of it with each tile but the first. (With
    // quantised weights nothing was gained.)
    const char *next = panel + packed_bytes(m.kind, last, B * LANES), *end = next + packed_bytes(m.kind, last - first, B * LANES);
    int64_t r = 0;
    const auto some = [&](auto count) {
        constexpr int R = decltype(count)::value;
        for (; r + R <= rows; r += R) {
            tile<R, B>(m, panel, p, x, y, add, r, first, last, unpacked, r + R < rows, r && next < end ? next : nullptr);
            if (r) next += (last - first) * 32;
            if (unpacked) panel = reinterpret_cast<const char*>(unpacked - first * B * LANES);
            unpacked = nullptr;
        }
    };
    if (m.kind == FLOAT32 || halves(m.kind)) {
        some(std::integral_constant<int, MOST_ROWS>{});
        if (MOST_ROWS > 4) some(std::integral_constant<int, 4>{});
        if (MOST_ROWS > 3) some(std::integral_constant<int, 3>{});
        some(std::integral_constant<int, 2>{});
    } else {
        some(std::integral_constant<int, MOST_GROUP_ROWS>{});
        if (MOST_GROUP_ROWS > 2) some(std::integral_constant<int, 2>{});
    }
    some(std::integral_constant<int, 1>{});
}

// y (rows, the outputs of panel p) = x times the panel, or y += where `add`; plus the bias. Inputs pass a part at a time that
// stays in the second-level cache while all rows go by.
inline void multiply_panel(const Matrix& m, int64_t p, const Operands& x, const Results& y, bool add, int64_t rows) {
    constexpr int64_t part_bytes = 256 << 10, most_unpacked = part_bytes / 2 / PANEL_OUTPUTS / compact::PART * compact::PART;
    const int64_t blocks = std::min(PANEL_BLOCKS, (m.out - p * PANEL_OUTPUTS + LANES - 1) / LANES);
    const int64_t inputs = stored_inputs(m.kind, m.in);
    const int64_t part = m.kind == COMPACT ? most_unpacked : part_bytes / packed_bytes(m.kind, GROUP, PANEL_OUTPUTS) * GROUP;
    const char* panel = static_cast<const char*>(m.data) + packed_bytes(m.kind, m.in, p * PANEL_OUTPUTS);
    alignas(64) static thread_local bf16 room[most_unpacked * PANEL_OUTPUTS + compact::RECORD];
    bf16* unpacked = m.kind == COMPACT ? room : nullptr;
    for (int64_t first = 0; first < inputs; first += part) {
        const int64_t last = std::min(first + part, inputs);
        if (blocks == 4) tiles<4>(m, panel, p, x, y, add, rows, first, last, unpacked);
        else if (blocks == 3) tiles<3>(m, panel, p, x, y, add, rows, first, last, unpacked);
        else if (blocks == 2) tiles<2>(m, panel, p, x, y, add, rows, first, last, unpacked);
        else tiles<1>(m, panel, p, x, y, add, rows, first, last, unpacked);
    }
}
