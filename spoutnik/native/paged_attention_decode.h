// Attention of a generated token over the paged cache: all heads of a group together read the cache as it lies. A head's
// numbers depend neither on what else is in the batch nor on how many heads are computed together.
#pragma once

#include <vector>

#include "paged_cache.h"

// scores (positions) = keys (positions, width; stride apart) . query (width), times scale.
template <typename T>
inline void score_keys(const T* query, const T* keys, int64_t stride, int64_t positions, int64_t width, float scale,
                       float* scores) {
    for (int64_t s = 0; s < positions; s++) {
        float sum = 0;
        for (int64_t i = 0; i < width; i++) sum += to_float(query[i]) * to_float(keys[s * stride + i]);
        scores[s] = sum * scale;
    }
}

#ifdef __AVX512BF16__
template <>
inline void score_keys<bf16>(const bf16* query, const bf16* keys, int64_t stride, int64_t positions, int64_t width, float scale,
                             float* scores) {
    for (int64_t s = 0; s < positions; s += 16) {
        vfloat sums[16] = {};
        const int count = std::min<int64_t>(16, positions - s);
        for (int64_t i = 0; i < width; i += 32) {
            const __mmask16 inside = first_lanes((width - i) / 2);
            const __m512i part = load_pairs(inside, query + i);
            for (int j = 0; j < 16; j++)
                sums[j] = dot_bf16(sums[j], part, load_pairs(inside, keys + (s + std::min(j, count - 1)) * stride + i));
        }
        store_lanes(scores + s, reduce_add(sums) * scale, first_lanes(count));
    }
}
#endif

// W blocks of LANES numbers of add_weighted, from number i on.
template <int H, int W, typename T>
inline void add_weighted_blocks(const float* p, int64_t p_stride, const T* values, int64_t stride, int64_t positions,
                                int64_t width, int64_t i, float* sums) {
    vfloat even[H][W] = {}, odd[H][W] = {};
    const auto add = [&](int64_t s, vfloat (&sum)[H][W]) {
        UNROLLED for (int w = 0; w < W; w++) {
            vfloat value;
            for (int64_t l = 0; l < LANES; l++) value[l] = to_float(values[s * stride + i + w * LANES + l]);
            UNROLLED for (int h = 0; h < H; h++) sum[h][w] = kept(sum[h][w] + p[h * p_stride + s] * value);
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
            const vfloat both = kept(even[h][w] + odd[h][w]) + load<vfloat>(to);
            std::memcpy(to, &both, sizeof both);
        }
}

// sums (H heads, width) += p (H, positions; p_stride apart) times values (positions, width; stride apart). Even and odd
// positions have sums of their own for any H, so that a head's numbers do not depend on the other heads.
template <int H, typename T>
inline void add_weighted(const float* p, int64_t p_stride, const T* values, int64_t stride, int64_t positions, int64_t width,
                         float* sums) {
    constexpr int W = H == 1 ? 4 : H == 2 ? 2 : 1;  // blocks at a time: enough sums to hide the latency of an addition
    int64_t i = 0;
    for (; i + W * LANES <= width; i += W * LANES)
        add_weighted_blocks<H, W>(p, p_stride, values, stride, positions, width, i, sums);
    if constexpr (W == 4)
        for (; i + 2 * LANES <= width; i += 2 * LANES)
            add_weighted_blocks<H, 2>(p, p_stride, values, stride, positions, width, i, sums);
    for (; i + LANES <= width; i += LANES) add_weighted_blocks<H, 1>(p, p_stride, values, stride, positions, width, i, sums);
    for (; i < width; i++)
        for (int h = 0; h < H; h++)
            for (int64_t s = 0; s < positions; s++)
                sums[h * width + i] = kept(sums[h * width + i] + p[h * p_stride + s] * to_float(values[s * stride + i]));
}

// Scores of R heads with the keys of B blocks, `block_step` apart: rows of `scores`, CHUNK apart.
template <int R, int B, typename C>
inline void score_packed(const C* q, int64_t q_step, const C* keys, int64_t block_step, int64_t width, float scale,
                         float* scores) {
    const C* x[R];
    for (int r = 0; r < R; r++) x[r] = q + r * q_step;
    for (int64_t s = 0; s < BLOCK_SIZE; s += LANES) {
        vfloat sum[R][B] = {};
        multiply_tile<Order::FIXED, R, B>(x, 0, width, keys + s * width, LANES * Packing<C>::PAIR, block_step, sum);
        for (int r = 0; r < R; r++)
            for (int b = 0; b < B; b++) store(scores + r * CHUNK + b * BLOCK_SIZE + s, sum[r][b] * scale);
    }
}

// work(count, first) over the heads, several at a time.
template <typename Work>
inline void for_heads(int64_t heads, Work work) {
    int64_t h = 0;
    const auto run = [&](auto count) {
        for (; h + count <= heads; h += count) work(count, h);
    };
    if (LANES == 16) run(std::integral_constant<int, 6>{});  // there are registers for their sums
    run(std::integral_constant<int, 4>{});
    run(std::integral_constant<int, 2>{});
    run(std::integral_constant<int, 1>{});
}

// A token that attends to `length` positions: q (heads, key_width), rows `q_step` apart, to out (heads, value_width).
template <typename C>
void decode_attention(const CachedSequence<C>& e, const C* q, int64_t q_step, int64_t heads, int64_t length, float scale,
                      float* out) {
    static thread_local std::vector<float> scores, tops, totals;
    scores.resize(heads * CHUNK);
    tops.assign(heads, -1e30f);
    totals.assign(heads, 0.0f);
    std::fill(out, out + heads * e.value_width, 0.0f);
    const bool first = e.keys() == 0;
    if (first) prefetch_block(e.block(0), e.width);
    for (int64_t start = 0; start < length; start += CHUNK) {
        const int64_t count = std::min(CHUNK, length - start);
        for (int64_t s = 0, blocks; s < count; s += blocks * BLOCK_SIZE) {
            blocks = s + BLOCK_SIZE < count ? 2 : 1;  // more sums at a time hide a product's latency
            for (int64_t b = blocks; first && b < 2 * blocks && start + s + b * BLOCK_SIZE < length; b++)
                prefetch_block(e.block(start + s + b * BLOCK_SIZE), e.width);
            if (e.latent) {
                for (int64_t h = 0; h < heads; h++)
                    for (int64_t b = s; b < std::min(count, s + blocks * BLOCK_SIZE); b += BLOCK_SIZE)
                        score_keys(q + h * q_step, e.keys_of(start + b), e.width, std::min(BLOCK_SIZE, count - b),
                                   e.key_width, scale, scores.data() + h * CHUNK + b);
                continue;
            }
            const C* keys = e.keys_of(start + s);
            const int64_t step = blocks == 2 ? e.keys_of(start + s + BLOCK_SIZE) - keys : 0;
            for_heads(heads, [&](auto n, int64_t h) {
                constexpr int R = decltype(n)::value;
                const auto compute = blocks == 2 ? score_packed<R, 2, C> : score_packed<R, 1, C>;
                compute(q + h * q_step, q_step, keys, step, e.key_width, scale, scores.data() + h * CHUNK + s);
            });
        }
        for (int64_t h = 0; h < heads; h++) {
            float* p = scores.data() + h * CHUNK;
            float top = tops[h], total = 0;
            for (int64_t s = 0; s < count; s++) top = std::max(top, p[s]);
            const float shrink = exp_nonpositive(tops[h] - top);
            for (int64_t s = 0; s < count; s++) total += p[s] = exp_nonpositive(p[s] - top);
            totals[h] = totals[h] * shrink + total;
            tops[h] = top;
            if (start)
                for (int64_t i = 0; i < e.value_width; i++) out[h * e.value_width + i] *= shrink;
        }
        for (int64_t s = 0; s < count; s += BLOCK_SIZE) {
            const C* values = e.values_of(start + s);
            for_heads(heads, [&](auto n, int64_t h) {
                add_weighted<decltype(n)::value>(scores.data() + h * CHUNK + s, CHUNK, values, e.value_step(),
                                                 std::min(BLOCK_SIZE, count - s), e.value_width, out + h * e.value_width);
            });
        }
    }
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < e.value_width; i++) out[h * e.value_width + i] /= totals[h];
}

