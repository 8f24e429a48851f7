// Scores and weighted sums of one token's attention, over entries as they lie in the cache.
#pragma once

#include "basics.h"

// scores (positions) = keys (positions, width; stride apart) . query (width), times scale.
template <typename T>
inline void score(const T* query, const T* keys, int64_t stride, int64_t positions, int64_t width, float scale, float* scores) {
    for (int64_t s = 0; s < positions; s++) {
        float sum = 0;
        for (int64_t i = 0; i < width; i++) sum += to_float(query[i]) * to_float(keys[s * stride + i]);
        scores[s] = sum * scale;
    }
}

#ifdef __AVX512BF16__
// The sums over each of 16 registers: pairs of registers are folded into one until a single one is left, then
// its numbers are put in order.
inline __m512 sums_of(__m512 (&a)[16]) {
    for (int i = 0; i < 8; i++) a[i] = _mm512_add_ps(_mm512_unpacklo_ps(a[i], a[i + 8]), _mm512_unpackhi_ps(a[i], a[i + 8]));
    for (int i = 0; i < 4; i++) a[i] = _mm512_add_ps(_mm512_unpacklo_ps(a[i], a[i + 4]), _mm512_unpackhi_ps(a[i], a[i + 4]));
    for (int i = 0; i < 2; i++)
        a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[i], a[i + 2], 0x44), _mm512_shuffle_f32x4(a[i], a[i + 2], 0xee));
    const __m512 all = _mm512_add_ps(_mm512_shuffle_f32x4(a[0], a[1], 0x88), _mm512_shuffle_f32x4(a[0], a[1], 0xdd));
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15), all);
}

template <>
inline void score<bf16>(const bf16* query, const bf16* keys, int64_t stride, int64_t positions, int64_t width, float scale,
                        float* scores) {
    for (int64_t s = 0; s < positions; s += 16) {
        __m512 sums[16];
        for (auto& sum : sums) sum = _mm512_setzero_ps();
        const int count = std::min<int64_t>(16, positions - s);
        for (int64_t i = 0; i < width; i += 32) {
            const __mmask16 inside = width - i >= 32 ? 0xffff : (1u << (width - i) / 2) - 1;
            const __m512bh part = (__m512bh)_mm512_maskz_loadu_epi32(inside, query + i);
            for (int j = 0; j < 16; j++)
                sums[j] = _mm512_dpbf16_ps(sums[j], part, (__m512bh)_mm512_maskz_loadu_epi32(
                    inside, keys + (s + std::min(j, count - 1)) * stride + i));
        }
        _mm512_mask_storeu_ps(scores + s, (1u << count) - 1, _mm512_mul_ps(sums_of(sums), _mm512_set1_ps(scale)));
    }
}
#endif

// W blocks of lanes of what `weigh` computes, from number i on.
template <int H, int W, typename T>
inline void weigh_blocks(const float* p, int64_t p_stride, const T* values, int64_t stride, int64_t positions, int64_t width,
                         int64_t i, float* sums) {
    floats even[H][W] = {}, odd[H][W] = {};
    const auto add = [&](int64_t s, floats (&sum)[H][W]) {
        UNROLLED for (int w = 0; w < W; w++) {
            floats value;
            for (int64_t l = 0; l < LANES; l++) value[l] = to_float(values[s * stride + i + w * LANES + l]);
            UNROLLED for (int h = 0; h < H; h++) {
                sum[h][w] += p[h * p_stride + s] * value;
                IN_ORDER(sum[h][w]);
            }
        }
    };
    int64_t s = 0;
    for (; s + 2 <= positions; s += 2) {
        add(s, even);
        add(s + 1, odd);
    }
    if (s < positions) add(s, even);
    UNROLLED for (int h = 0; h < H; h++)
        UNROLLED for (int w = 0; w < W; w++) {
            float* to = sums + h * width + i + w * LANES;
            even[h][w] += odd[h][w];
            IN_ORDER(even[h][w]);
            even[h][w] += load<floats>(to);
            std::memcpy(to, &even[h][w], sizeof(floats));
        }
}

// sums (H heads, width) += p (H, positions; p_stride apart) times values (positions, width; stride apart). Every other position
// has a sum of its own, however many heads there are: a head's numbers must not depend on who comes with it.
template <int H, typename T>
inline void weigh(const float* p, int64_t p_stride, const T* values, int64_t stride, int64_t positions, int64_t width,
                  float* sums) {
    constexpr int W = H == 1 ? 4 : H == 2 ? 2 : 1;  // blocks at a time: enough sums to hide an addition's latency
    int64_t i = 0;
    for (; i + W * LANES <= width; i += W * LANES) weigh_blocks<H, W>(p, p_stride, values, stride, positions, width, i, sums);
    if constexpr (W == 4)
        for (; i + 2 * LANES <= width; i += 2 * LANES) weigh_blocks<H, 2>(p, p_stride, values, stride, positions, width, i, sums);
    for (; i + LANES <= width; i += LANES) weigh_blocks<H, 1>(p, p_stride, values, stride, positions, width, i, sums);
    for (; i < width; i++)
        for (int h = 0; h < H; h++)
            for (int64_t s = 0; s < positions; s++) {
                sums[h * width + i] += p[h * p_stride + s] * to_float(values[s * stride + i]);
                IN_ORDER(sums[h * width + i]);
            }
}
