// Adapters (LoRA): the product of two thin matrices beside a linear map, y += B A x, for the rows that have the adapter. Plain
// twin: model/row_adapters.py. Packed by engine/quantization/packed_adapter.py, float whatever the base's weights are.
//
// A row is computed by itself, so its numbers do not depend on the others.
#pragma once

#include <algorithm>

#include "simd.h"

extern "C" {

// a: (in, low), low in whole vectors: several maps that share their input side by side. b: (blocks of LANES outputs, rank,
// LANES), scaled. starts: for each block of outputs, where in A x the `rank` numbers begin that it is made of; -1 for none.
// a null: there is no adapter. Of MLA's kv_b, one for each head, a_step and b_step floats apart (0: shared by all heads).
struct LowRank {
    const float *a, *b;
    const int64_t* starts;
    int64_t in, low, rank, a_step, b_step;
};

struct LayerAdapter {
    LowRank first, q_b, o, gate_up, down;  // beside Layer's matrices
    LowRank keys, values;                  // beside absorb_k: A is shared as the second matrix; absorb_v: as the first
};

}

namespace {

// B blocks of low = A x, all of `in`. Sums in P parts, so that the multipliers need not wait for each other.
template <int B>
__attribute__((noinline)) void multiply_a(const float* a, int64_t in, int64_t low, const float* x, float* to) {
    constexpr int P = 4;
    vfloat sum[P][B] = {};
    int64_t i = 0;
    for (; i + P <= in; i += P)
        UNROLLED for (int p = 0; p < P; p++)
            UNROLLED for (int b = 0; b < B; b++) sum[p][b] += x[i + p] * load<vfloat>(a + (i + p) * low + b * LANES);
    for (; i < in; i++)
        UNROLLED for (int b = 0; b < B; b++) sum[0][b] += x[i] * load<vfloat>(a + i * low + b * LANES);
    UNROLLED for (int b = 0; b < B; b++) store(to + b * LANES, (sum[0][b] + sum[1][b]) + (sum[2][b] + sum[3][b]));
}

// low = A x.
inline void low_rank_in(const LowRank& m, int64_t head, const float* x, float* to) {
    const float* a = m.a + head * m.a_step;
    int64_t at = 0;
    for (; at + 2 * LANES <= m.low; at += 2 * LANES) multiply_a<2>(a + at, m.in, m.low, x, to + at);
    if (at < m.low) multiply_a<1>(a + at, m.in, m.low, x, to + at);
}

// B blocks of outputs, whole ones: y += B low. low: for each block, its numbers.
template <int B>
__attribute__((noinline)) void multiply_b(const float* b, int64_t rank, const float* const (&low)[B], float* y) {
    vfloat sum[B];
    UNROLLED for (int i = 0; i < B; i++) sum[i] = load<vfloat>(y + i * LANES);
    for (int64_t k = 0; k < rank; k++)
        UNROLLED for (int i = 0; i < B; i++) sum[i] += low[i][k] * load<vfloat>(b + (i * rank + k) * LANES);
    UNROLLED for (int i = 0; i < B; i++) store(y + i * LANES, sum[i]);
}

// y += B low for outputs [first, last), of which the first begins a block and lies at y.
inline void low_rank_out(const LowRank& m, int64_t head, const float* low, float* y, int64_t first, int64_t last) {
    for (int64_t block = first / LANES, at = first; at < last; block++, at += LANES, y += LANES) {
        const int64_t* start = m.starts + block;
        const float* b = m.b + head * m.b_step + block * m.rank * LANES;
        if (at + 4 * LANES <= last && std::min({start[0], start[1], start[2], start[3]}) >= 0) {
            multiply_b<4>(b, m.rank, {low + start[0], low + start[1], low + start[2], low + start[3]}, y);
            block += 3, at += 3 * LANES, y += 3 * LANES;
        } else if (start[0] >= 0) {
            float whole[LANES] = {};
            const int64_t count = std::min(LANES, last - at);
            std::memcpy(whole, y, 4 * count);
            multiply_b<1>(b, m.rank, {low + start[0]}, whole);
            std::memcpy(y, whole, 4 * count);
        }
    }
}

}  // namespace
