// Adapters (LoRA): the product of two thin matrices beside a linear map, y += B A x, for the rows that have the adapter. Plain
// twin: model/row_adapters.py. Packed by engine/runners/packed_adapter.py, as float beside float weights, else as bfloat16.
//
// A row's sums run in one order, whatever rows are computed with it.
#pragma once

#include <algorithm>

#include "simd.h"

extern "C" {

// a: (in, low), low in whole vectors: several maps that share their input side by side. b: (blocks of LANES outputs, rank,
// LANES), scaled. Both bfloat16 if `half`. starts: for each block of outputs, where in A x the `rank` numbers begin that it is
// made of; -1 for none. a null: there is no adapter. Of MLA's kv_b, one for each head, a_step and b_step numbers apart (0:
// shared by all heads).
struct LowRank {
    const void *a, *b;
    const int64_t* starts;
    int64_t in, low, rank, a_step, b_step, half;
};

struct LayerAdapter {
    LowRank first, q_b, o, gate_up, down;  // beside Layer's matrices
    LowRank keys, values;                  // beside absorb_k: A is shared as the second matrix; absorb_v: as the first
};

}

namespace {

constexpr int64_t LOW_RANK_ROWS = 4;  // of one adapter, multiplied at once

inline vfloat load_floats(const float* from) { return load<vfloat>(from); }
inline vfloat load_floats(const bf16* from) {
    typedef uint16_t vhalf __attribute__((vector_size(2 * LANES)));
    return (vfloat)(__builtin_convertvector(load<vhalf>(from), vuint) << 16);
}

// B blocks of A x of R rows, all of `in`.
template <int R, int B, typename T>
__attribute__((noinline)) void multiply_a(const T* a, int64_t in, int64_t low, const float* const* x, float* const* to,
                                          int64_t at) {
    vfloat sum[R][B] = {};
    for (int64_t i = 0; i < in; i++) {
        vfloat weights[B];
        UNROLLED for (int b = 0; b < B; b++) weights[b] = kept(load_floats(a + i * low + at + b * LANES));
        UNROLLED for (int r = 0; r < R; r++)
            UNROLLED for (int b = 0; b < B; b++) {
                sum[r][b] = kept(sum[r][b] + x[r][i] * weights[b]);
            }
    }
    UNROLLED for (int r = 0; r < R; r++)
        UNROLLED for (int b = 0; b < B; b++) store(to[r] + at + b * LANES, sum[r][b]);
}

template <int R, typename T>
inline void multiply_a_rows(const LowRank& m, const T* a, const float* const* x, float* const* to) {
    int64_t at = 0;
    for (; at + 2 * LANES <= m.low; at += 2 * LANES) multiply_a<R, 2>(a, m.in, m.low, x, to, at);
    if (at < m.low) multiply_a<R, 1>(a, m.in, m.low, x, to, at);
}

// A x of up to LOW_RANK_ROWS rows.
template <typename T>
inline void low_rank_in(const LowRank& m, int64_t head, const float* const* x, float* const* to, int64_t rows) {
    const T* a = static_cast<const T*>(m.a) + head * m.a_step;
    if (rows == 4) multiply_a_rows<4>(m, a, x, to);
    else if (rows == 3) multiply_a_rows<3>(m, a, x, to);
    else if (rows == 2) multiply_a_rows<2>(m, a, x, to);
    else multiply_a_rows<1>(m, a, x, to);
}
inline void low_rank_in(const LowRank& m, int64_t head, const float* const* x, float* const* to, int64_t rows) {
    m.half ? low_rank_in<bf16>(m, head, x, to, rows) : low_rank_in<float>(m, head, x, to, rows);
}

// B blocks of outputs of R rows, whole blocks: y += B low. starts: where in each row's low a block's numbers begin.
template <int R, int B, typename T>
__attribute__((noinline)) void multiply_b(const T* b, int64_t rank, const int64_t* starts, const float* const* low,
                                          float* const* y, int64_t at) {
    vfloat sum[R][B];
    const float* from[R][B];
    UNROLLED for (int r = 0; r < R; r++)
        UNROLLED for (int i = 0; i < B; i++) {
            sum[r][i] = load<vfloat>(y[r] + at + i * LANES);
            from[r][i] = low[r] + starts[i];
        }
    for (int64_t k = 0; k < rank; k++) {
        vfloat weights[B];
        UNROLLED for (int i = 0; i < B; i++) weights[i] = kept(load_floats(b + (i * rank + k) * LANES));
        UNROLLED for (int r = 0; r < R; r++)
            UNROLLED for (int i = 0; i < B; i++) {
                sum[r][i] = kept(sum[r][i] + from[r][i][k] * weights[i]);
            }
    }
    UNROLLED for (int r = 0; r < R; r++)
        UNROLLED for (int i = 0; i < B; i++) store(y[r] + at + i * LANES, sum[r][i]);
}

// y += B low for outputs [first, last) of some rows; y: where output `first`, which begins a block, lies.
template <typename T>
inline void low_rank_out(const LowRank& m, int64_t head, const float* const* low, float* const* y, int64_t rows, int64_t first,
                         int64_t last) {
    for (int64_t block = first / LANES, at = 0; first + at < last; block++, at += LANES) {
        const int64_t *start = m.starts + block, left = last - first - at;
        const T* b = static_cast<const T*>(m.b) + head * m.b_step + block * m.rank * LANES;
        if (left >= 4 * LANES && std::min({start[0], start[1], start[2], start[3]}) >= 0) {
            int64_t r = 0;
            for (; r + 2 <= rows; r += 2) multiply_b<2, 4>(b, m.rank, start, low + r, y + r, at);
            if (r < rows) multiply_b<1, 4>(b, m.rank, start, low + r, y + r, at);
            block += 3, at += 3 * LANES;
        } else if (start[0] >= 0) {
            for (int64_t r = 0; r < rows; r++) {
                float whole[LANES] = {}, *to[] = {whole};
                const int64_t bytes = 4 * std::min(LANES, left);
                std::memcpy(whole, y[r] + at, bytes);
                multiply_b<1, 1>(b, m.rank, start, low + r, to, 0);
                std::memcpy(y[r] + at, whole, bytes);
            }
        }
    }
}
inline void low_rank_out(const LowRank& m, int64_t head, const float* const* low, float* const* y, int64_t rows, int64_t first,
                         int64_t last) {
    m.half ? low_rank_out<bf16>(m, head, low, y, rows, first, last) : low_rank_out<float>(m, head, low, y, rows, first, last);
}

// Of the B that outputs [first, last) need.
inline void prefetch_low_rank(const LowRank& m, int64_t head, int64_t first, int64_t last) {
    const int64_t size = m.half ? 2 : 4;
    const char* from = static_cast<const char*>(m.b) + (head * m.b_step + first * m.rank) * size;
    for (int64_t byte = 0; byte < (last - first) * m.rank * size; byte += 64) __builtin_prefetch(from + byte, 0, 3);
}

}  // namespace
