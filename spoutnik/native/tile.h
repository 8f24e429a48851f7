// The products of a tile: some rows with some blocks of packed outputs, all sums in registers.
//
// Weights are packed in blocks of LANES outputs side by side, PAIR inputs of one output together, so that a product fills
// whole vectors and never has to be summed across one: (out / LANES, in / PAIR, LANES, PAIR), out padded with zeros.
#pragma once

#include "simd.h"

// Word: what one output has side by side.
template <typename T>
struct Packing {
    static constexpr int64_t PAIR = 1;
    typedef T Word;
};
template <>
struct Packing<bf16> {
    static constexpr int64_t PAIR = 2;
    typedef bf16_pair Word;
};

// FIXED: a sum runs over the inputs one by one, whatever R and B are, so that a row's numbers do not depend on the others, to
// the last bit (the engine's reproducibility stands on it). FREE: as the compiler likes, which is faster without fused pairs.
enum class Order { FIXED, FREE };

// R rows times B blocks of outputs, inputs [first, last): added to `sum`. x[r]: a row. Weights of the next PAIR inputs lie
// `step` further on, the next block `block_step`. Each load serves several sums.
template <Order ORDER, int R, int B, typename Rows>
inline void multiply_tile(const Rows& x, int64_t first, int64_t last, const float* w, int64_t step, int64_t block_step,
                          vfloat (&sum)[R][B], const char* = nullptr) {
    for (int64_t k = first; k < last; k++) {
        vfloat weights[B];
        UNROLLED for (int b = 0; b < B; b++) weights[b] = kept(load<vfloat>(w + k * step + b * block_step));
        UNROLLED for (int r = 0; r < R; r++)
            UNROLLED for (int b = 0; b < B; b++) {
                const vfloat added = sum[r][b] + x[r][k] * weights[b];
                sum[r][b] = ORDER == Order::FIXED ? kept(added) : added;
            }
    }
}

// next: weights to prefetch meanwhile, a line for each pair of inputs; or null.
template <Order ORDER, int R, int B, typename Rows>
inline void multiply_tile(const Rows& x, int64_t first, int64_t last, const bf16* w, int64_t step, int64_t block_step,
                          vfloat (&sum)[R][B], const char* next = nullptr) {
    const bf16* from = w + first / 2 * step;
    for (int64_t k = first; k < last; k += 2, from += step) {
        if (next) __builtin_prefetch(next + (k - first) * 32, 0, 2);
#ifdef __AVX512BF16__
        __m512i weights[B];
        UNROLLED for (int b = 0; b < B; b++) weights[b] = load_pairs(from + b * block_step);
        UNROLLED for (int r = 0; r < R; r++) {
            const __m512i pair = broadcast_pair(load<int32_t>(x[r] + k));
            UNROLLED for (int b = 0; b < B; b++) sum[r][b] = dot_bf16(sum[r][b], pair, weights[b]);
        }
#else
        UNROLLED for (int b = 0; b < B; b++) {
            const vuint both = load<vuint>(from + b * block_step);
            const vfloat even = kept((vfloat)(both << 16)), odd = kept((vfloat)(both & 0xffff0000u));
            UNROLLED for (int r = 0; r < R; r++) {
                if (ORDER == Order::FREE)
                    sum[r][b] += to_float(x[r][k]) * even + to_float(x[r][k + 1]) * odd;
                else
                    sum[r][b] = kept(kept(sum[r][b] + to_float(x[r][k]) * even) + to_float(x[r][k + 1]) * odd);
            }
        }
#endif
    }
}

// Rows that lie `stride` apart.
template <typename T>
struct StridedRows {
    const T* data;
    int64_t stride;
    const T* operator[](int64_t r) const { return data + r * stride; }
};

// R rows of x, inputs [first, last) of `in`, with `out` outputs (whole blocks): sums go to finish(row, output, sums).
template <int R, typename T, typename Finish>
inline void multiply_rows(const T* x, int64_t stride, int64_t first, int64_t last, const T* w, int64_t in, int64_t out,
                          Finish finish) {
    const StridedRows<T> rows{x, stride};
    constexpr int64_t STEP = LANES * Packing<T>::PAIR;
    int64_t o = 0;
    for (; o + TILE_BLOCKS * LANES <= out; o += TILE_BLOCKS * LANES) {
        vfloat sum[R][TILE_BLOCKS] = {};
        multiply_tile<Order::FREE, R, TILE_BLOCKS>(rows, first, last, w + o * in, STEP, LANES * in, sum);
        for (int r = 0; r < R; r++)
            for (int b = 0; b < TILE_BLOCKS; b++) finish(r, o + b * LANES, sum[r][b]);
    }
    for (; o < out; o += LANES) {
        vfloat sum[R][1] = {};
        multiply_tile<Order::FREE, R, 1>(rows, first, last, w + o * in, STEP, 0, sum);
        for (int r = 0; r < R; r++) finish(r, o, sum[r][0]);
    }
}
