// Attention of a chunk of a prompt over the paged cache: keys and values are packed (tile.h), CHUNK positions at a time, so
// that scores and results are products. The numbers do not depend on how a prompt was cut into chunks, nor on the batch.
#pragma once

#include <vector>

#include "packed_multiply.h"
#include "paged_cache.h"

// Packed keys and values of up to CHUNK positions.
template <typename C>
struct PackedChunk {
    std::vector<C> keys, values;  // (positions / LANES, key pairs, LANES, PAIR) and (value blocks, position pairs, LANES, PAIR)
    static constexpr int64_t P = Packing<C>::PAIR;
    int64_t key_step = 0, value_step = 0;  // numbers from one block of lanes to the next

    void pack(const CachedSequence<C>& e, int64_t start, int64_t count) {
        const int64_t width = round_up(e.key_width, P), padded = round_up(count, BLOCK_SIZE);
        key_step = width * LANES;
        value_step = CHUNK * LANES;
        keys.resize(CHUNK / LANES * key_step);
        values.resize(round_up(e.value_width, LANES) / LANES * value_step);
        for (int64_t s = 0; s < padded; s++) {
            const C* from = s < count ? e.values_of(start + s) + s % BLOCK_SIZE * e.value_step() : nullptr;
            C* value = values.data() + s / P * P * LANES + s % P;
            for (int64_t i = 0; i < e.value_width; i++) value[i / LANES * value_step + i % LANES * P] = from ? from[i] : C{};
            if (!e.latent) continue;
            C* key = keys.data() + s / LANES * key_step + s % LANES * P;
            for (int64_t i = 0; i < width; i += P)
                for (int64_t j = 0; j < P; j++) key[i * LANES + j] = from && i + j < e.key_width ? from[i + j] : C{};
        }
        if (!e.latent) copy_keys(e, start, count);
    }

    // Keys that are packed in the cache, block by block; those beyond `count` are never read.
    void copy_keys(const CachedSequence<C>& e, int64_t start, int64_t count) {
        for (int64_t s = 0; s < count; s += BLOCK_SIZE)
            std::memcpy(keys.data() + s / LANES * key_step, e.keys_of(start + s), BLOCK_SIZE * e.key_width * sizeof(C));
    }
};

#ifdef __AVX512BF16__
template <>
inline void PackedChunk<bf16>::pack(const CachedSequence<bf16>& e, int64_t start, int64_t count) {
    const int64_t width = round_up(e.key_width, 2), blocks = round_up(e.value_width, LANES) / LANES;
    key_step = width * LANES;
    value_step = CHUNK * LANES;
    keys.resize(CHUNK / LANES * key_step);
    values.resize(blocks * value_step);
    if (!e.latent) copy_keys(e, start, count);
    for (int64_t s = 0; s < count; s += BLOCK_SIZE) {
        const bf16* from = e.values_of(start + s);
        const int64_t here = std::min(BLOCK_SIZE, count - s);
        for (int64_t i = 0; e.latent && i < width; i += 32) {
            __m512i rows[16];
            for (int64_t r = 0; r < BLOCK_SIZE; r++)
                rows[r] = r < here ? load_bf16(e.key_width - i, from + r * e.width + i) : __m512i{};
            transpose(rows);
            for (int64_t p = 0; p < std::min<int64_t>(16, (width - i) / 2); p++)
                store_pairs(keys.data() + s / LANES * key_step + (i / 2 + p) * 2 * LANES, rows[p]);
        }
        for (int64_t b = 0; b < blocks; b++) {
            const __mmask16 inside = first_lanes(e.value_width - b * LANES);
            for (int64_t r = 0; r < BLOCK_SIZE; r += 2) {
                const bf16* value = from + r * e.value_step() + b * LANES;
                store_pairs(values.data() + b * value_step + (s + r) * LANES,
                            interleave(r < here ? inside : 0, value, r + 1 < here ? inside : 0, value + e.value_step()));
            }
        }
    }
}
#endif

// R rows of x (inputs) times packed outputs, blocks of which lie `block_step` apart: to[r] = the products, or += if `add`.
template <int R, typename C>
void multiply_blocks(const C* const (&x)[R], int64_t inputs, const C* w, int64_t block_step, int64_t outputs,
                     float* const (&to)[R], bool add) {
    const auto run = [&](auto count, int64_t b) {
        constexpr int B = decltype(count)::value;
        vfloat sum[R][B] = {};
        const int64_t here = outputs - b * LANES;
        if (add)
            for (int r = 0; r < R; r++) load_blocks<B>(to[r] + b * LANES, here, sum[r]);
        multiply_tile<Order::FIXED, R, B>(x, 0, inputs, w + b * block_step, LANES * Packing<C>::PAIR, block_step, sum);
        for (int r = 0; r < R; r++) store_blocks<B>(sum[r], to[r] + b * LANES, here);
    };
    const int64_t blocks = ceil_div(outputs, LANES);
    int64_t b = 0;
    for (; b + 4 <= blocks; b += 4) run(std::integral_constant<int, 4>{}, b);
    for (; b + 2 <= blocks; b += 2) run(std::integral_constant<int, 2>{}, b);
    for (; b < blocks; b++) run(std::integral_constant<int, 1>{}, b);
}

// tile(R, first) over n rows, R at a time.
template <typename Tile>
void for_tiles(int64_t n, Tile tile) {
    int64_t r = 0;
    for (; r + TILE_ROWS <= n; r += TILE_ROWS) tile(std::integral_constant<int, TILE_ROWS>{}, r);
    for (; r + 2 <= n && TILE_ROWS > 2; r += 2) tile(std::integral_constant<int, 2>{}, r);
    for (; r < n; r++) tile(std::integral_constant<int, 1>{}, r);
}

// `tokens` tokens of a prompt, the first at `position`, for the heads of one group. q (tokens, heads, key_width): a token's
// heads lie `q_step` apart and tokens `q_token`; out likewise (value_width apart, out_token).
template <typename C>
void prefill_attention(const CachedSequence<C>& e, const C* q, int64_t q_step, int64_t q_token, int64_t heads, int64_t tokens,
                       int64_t position, float scale, float* out, int64_t out_token) {
    constexpr int64_t ROWS = 24;  // rows whose scores are held at a time
    static thread_local PackedChunk<C> packed;
    static thread_local std::vector<float> scores, tops, totals;
    static thread_local std::vector<C> weights;
    const int64_t rows = tokens * heads, value = e.value_width;
    scores.resize(ROWS * CHUNK);
    weights.resize(ROWS * CHUNK);
    tops.assign(rows, -1e30f);
    totals.assign(rows, 0.0f);
    const auto query = [&](int64_t row) { return q + row / heads * q_token + row % heads * q_step; };
    const auto result = [&](int64_t row) { return out + row / heads * out_token + row % heads * value; };
    for (int64_t row = 0; row < rows; row++) std::fill_n(result(row), value, 0.0f);
    for (int64_t start = 0; start < position + tokens; start += CHUNK) {
        packed.pack(e, start, std::min(CHUNK, position + tokens - start));
        const int64_t first = std::max<int64_t>(0, start - position) * heads;  // tokens before this chunk do not see it
        for (int64_t row = first; row < rows; row += ROWS) {
            const int64_t count = std::min(ROWS, rows - row);
            const auto visible = [&](int64_t r) { return std::min(CHUNK, position + (row + r) / heads + 1 - start); };
            const int64_t most = visible(count - 1), padded = round_up(most, BLOCK_SIZE);
            for_tiles(count, [&](auto n, int64_t r0) {
                constexpr int R = decltype(n)::value;
                const C* x[R];
                float* to[R];
                for (int r = 0; r < R; r++) {
                    x[r] = query(row + r0 + r);
                    to[r] = scores.data() + (r0 + r) * CHUNK;
                }
                multiply_blocks<R, C>(x, round_up(e.key_width, Packing<C>::PAIR), packed.keys.data(), packed.key_step,
                                      padded, to, false);
            });
            for (int64_t r = 0; r < count; r++) {
                const int64_t seen = visible(r);
                float* s = scores.data() + r * CHUNK;
                C* p = weights.data() + r * CHUNK;
                std::fill(s + seen, s + padded, -1e30f);
                vfloat largest = load<vfloat>(s);  // lane by lane: how many blocks follow must not change a sum
                for (int64_t i = LANES; i < padded; i += LANES) {
                    const vfloat other = load<vfloat>(s + i);
                    largest = other > largest ? other : largest;
                }
                const float top = std::max(tops[row + r], reduce_max(largest) * scale);
                const float shrink = exp_nonpositive(tops[row + r] - top);
                vfloat sums = {};
                for (int64_t i = 0; i < padded; i += LANES) {
                    vfloat part;
                    for (int64_t l = 0; l < LANES; l++) part[l] = exp_nonpositive(std::max(s[i + l] * scale - top, -1e4f));
                    if (i + LANES > seen)
                        for (int64_t l = 0; l < LANES; l++) part[l] = i + l < seen ? part[l] : 0.0f;
                    sums += part;
                    store(p + i, part);
                }
                totals[row + r] = totals[row + r] * shrink + reduce_add(sums);
                tops[row + r] = top;
                if (start)
                    for (int64_t i = 0; i < value; i++) result(row + r)[i] *= shrink;
            }
            for_tiles(count, [&](auto n, int64_t r0) {
                constexpr int R = decltype(n)::value;
                const C* x[R];
                float* to[R];
                for (int r = 0; r < R; r++) {
                    x[r] = weights.data() + (r0 + r) * CHUNK;
                    to[r] = result(row + r0 + r);
                }
                multiply_blocks<R, C>(x, padded, packed.values.data(), packed.value_step, value, to, true);
            });
        }
    }
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < value; i++) result(row)[i] /= totals[row];
}
