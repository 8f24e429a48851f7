// Attention over a cache in blocks of 16 positions.
//
// A latent cache (MLA) holds a row of numbers for each position, which is key and value of all heads. Else a block holds, group of
// heads after group, the keys in the form of packed weights, so that a query's scores are a product with them, then the values, a
// row for each position: what one group reads lies together.
//
// Two ways to the same sums. A generated token reads the cache as it lies, all heads of a group together. A chunk of a prompt
// first brings keys and values into the form of packed weights, 256 positions at a time, so that scores and results are
// products. Neither depends on what else is in the batch, nor the second on how a prompt was cut into chunks.
#pragma once

#include "attention.h"
#include "matrix.h"
#include "transpose.h"

constexpr int64_t BLOCK = 16, CHUNK = 256;

// Where a position's numbers are in its block, of `width` for each position: MLA, or group g of grouped-query attention.
template <typename C>
struct Places {
    static constexpr int64_t P = Packed<C>::PAIR;
    int64_t width, key_width, value_width, group;
    bool latent;
    int64_t keys() const { return latent ? 0 : group * BLOCK * (key_width + value_width); }
    int64_t values() const { return latent ? 0 : keys() + BLOCK * key_width; }
    int64_t value_step() const { return latent ? width : value_width; }

    // Of packed keys, number i (a multiple of P) of the position with number s in the block.
    int64_t key(int64_t s, int64_t i) const { return keys() + s / LANES * LANES * key_width + i * LANES + s % LANES * P; }
};

// A sequence's entries, as one group of heads reads them.
template <typename C>
struct Entries : Places<C> {
    const C* data;
    const int64_t* table;
    Entries(const Places<C>& places, const C* data, const int64_t* table) : Places<C>(places), data(data), table(table) {}
    const C* block(int64_t position) const { return data + table[position / BLOCK] * BLOCK * this->width; }
    const C* keys_of(int64_t position) const { return block(position) + this->keys(); }
    const C* values_of(int64_t position) const { return block(position) + this->values(); }
};

// Keys and values (groups, their width) of one new position to its place in a block.
template <typename C>
inline void store_entry(C* block, Places<C> places, int64_t s, const float* key, const float* value, int64_t groups) {
    constexpr int64_t P = Packed<C>::PAIR, width = 64;
    for (places.group = 0; places.group < groups; places.group++, key += places.key_width, value += places.value_width) {
        for (int64_t first = 0; first < places.key_width; first += width) {
            C some[width];
            const int64_t count = std::min(width, places.key_width - first);
            store_all(some, key + first, count);
            for (int64_t i = 0; i < count; i += P) std::memcpy(block + places.key(s, first + i), some + i, P * sizeof(C));
        }
        store_all(block + places.values() + s * places.value_width, value, places.value_width);
    }
}

// Scores of R heads with the keys of B blocks, `block_step` apart: rows of `scores`, CHUNK apart.
template <int R, int B, typename C>
inline void packed_scores(const C* q, int64_t q_step, const C* keys, int64_t block_step, int64_t width, float scale, float* scores) {
    const C* x[R];
    for (int r = 0; r < R; r++) x[r] = q + r * q_step;
    for (int64_t s = 0; s < BLOCK; s += LANES) {
        floats sum[R][B] = {};
        multiply<R, B>(x, 0, width, keys + s * width, LANES * Packed<C>::PAIR, block_step, sum);
        for (int r = 0; r < R; r++)
            for (int b = 0; b < B; b++) store(scores + r * CHUNK + b * BLOCK + s, sum[r][b] * scale);
    }
}

// The entries of a block, on their way to the caches: its first reader brings them for all groups of heads.
template <typename C>
inline void fetch(const C* block, int64_t width) {
    for (const char* line = reinterpret_cast<const char*>(block); line < reinterpret_cast<const char*>(block + BLOCK * width); line += 64)
        __builtin_prefetch(line, 0, 2);
}

// work(count, first) over some heads at a time.
template <typename Work>
inline void for_heads(int64_t heads, Work work) {
    int64_t h = 0;
    const auto some = [&](auto count) {
        for (; h + count <= heads; h += count) work(count, h);
    };
    if (LANES == 16) some(std::integral_constant<int, 6>{});  // there are registers for their sums
    some(std::integral_constant<int, 4>{});
    some(std::integral_constant<int, 2>{});
    some(std::integral_constant<int, 1>{});
}

// One token that sees `length` positions: q (heads, key_width), as wide in memory as `q_step`, to out (heads, value_width).
template <typename C>
void attend_token(const Entries<C>& e, const C* q, int64_t q_step, int64_t heads, int64_t length, float scale, float* out) {
    static thread_local std::vector<float> scores, tops, totals;
    scores.resize(heads * CHUNK);
    tops.assign(heads, -1e30f);
    totals.assign(heads, 0.0f);
    std::fill(out, out + heads * e.value_width, 0.0f);
    const bool first = e.keys() == 0;
    if (first) fetch(e.block(0), e.width);
    for (int64_t start = 0; start < length; start += CHUNK) {
        const int64_t count = std::min(CHUNK, length - start);
        for (int64_t s = 0, blocks; s < count; s += blocks * BLOCK) {
            blocks = s + BLOCK < count ? 2 : 1;  // more sums at a time hide a product's latency
            for (int64_t b = blocks; first && b < 2 * blocks && start + s + b * BLOCK < length; b++)
                fetch(e.block(start + s + b * BLOCK), e.width);
            if (e.latent) {
                for (int64_t h = 0; h < heads; h++)
                    for (int64_t b = s; b < std::min(count, s + blocks * BLOCK); b += BLOCK)
                        score(q + h * q_step, e.keys_of(start + b), e.width, std::min(BLOCK, count - b), e.key_width, scale,
                              scores.data() + h * CHUNK + b);
                continue;
            }
            const C* keys = e.keys_of(start + s);
            const int64_t step = blocks == 2 ? e.keys_of(start + s + BLOCK) - keys : 0;
            for_heads(heads, [&](auto some, int64_t h) {
                constexpr int R = decltype(some)::value;
                const auto make = blocks == 2 ? packed_scores<R, 2, C> : packed_scores<R, 1, C>;
                make(q + h * q_step, q_step, keys, step, e.key_width, scale, scores.data() + h * CHUNK + s);
            });
        }
        for (int64_t h = 0; h < heads; h++) {
            float* p = scores.data() + h * CHUNK;
            float top = tops[h], total = 0;
            for (int64_t s = 0; s < count; s++) top = std::max(top, p[s]);
            const float shrink = exp_negative(tops[h] - top);
            for (int64_t s = 0; s < count; s++) total += p[s] = exp_negative(p[s] - top);
            totals[h] = totals[h] * shrink + total;
            tops[h] = top;
            if (start)
                for (int64_t i = 0; i < e.value_width; i++) out[h * e.value_width + i] *= shrink;
        }
        for (int64_t s = 0; s < count; s += BLOCK) {
            const C* values = e.values_of(start + s);
            for_heads(heads, [&](auto some, int64_t h) {
                weigh<decltype(some)::value>(scores.data() + h * CHUNK + s, CHUNK, values, e.value_step(), std::min(BLOCK, count - s),
                                             e.value_width, out + h * e.value_width);
            });
        }
    }
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < e.value_width; i++) out[h * e.value_width + i] /= totals[h];
}

// Keys and values of up to CHUNK positions in the form of packed weights.
template <typename C>
struct PackedChunk {
    std::vector<C> keys, values;  // (positions / LANES, key pairs, LANES, PAIR) and (value blocks, position pairs, LANES, PAIR)
    static constexpr int64_t P = Packed<C>::PAIR;
    int64_t key_step = 0, value_step = 0;  // numbers from one block of lanes to the next

    void pack(const Entries<C>& e, int64_t start, int64_t count) {
        const int64_t width = rounded(e.key_width, P), filled = rounded(count, BLOCK);
        key_step = width * LANES;
        value_step = CHUNK * LANES;
        keys.resize(CHUNK / LANES * key_step);
        values.resize(rounded(e.value_width, LANES) / LANES * value_step);
        for (int64_t s = 0; s < filled; s++) {
            const C* from = s < count ? e.values_of(start + s) + s % BLOCK * e.value_step() : nullptr;
            C* value = values.data() + s / P * P * LANES + s % P;
            for (int64_t i = 0; i < e.value_width; i++) value[i / LANES * value_step + i % LANES * P] = from ? from[i] : C{};
            if (!e.latent) continue;
            C* key = keys.data() + s / LANES * key_step + s % LANES * P;
            for (int64_t i = 0; i < width; i += P)
                for (int64_t j = 0; j < P; j++) key[i * LANES + j] = from && i + j < e.key_width ? from[i + j] : C{};
        }
        if (!e.latent) copy_keys(e, start, count);
    }

    // Packed ones, a block at a time; what lies beyond `count` is never looked at.
    void copy_keys(const Entries<C>& e, int64_t start, int64_t count) {
        for (int64_t s = 0; s < count; s += BLOCK)
            std::memcpy(keys.data() + s / LANES * key_step, e.keys_of(start + s), BLOCK * e.key_width * sizeof(C));
    }
};

#ifdef __AVX512BF16__
template <>
inline void PackedChunk<bf16>::pack(const Entries<bf16>& e, int64_t start, int64_t count) {
    const int64_t width = rounded(e.key_width, 2), blocks = rounded(e.value_width, LANES) / LANES;
    key_step = width * LANES;
    value_step = CHUNK * LANES;
    keys.resize(CHUNK / LANES * key_step);
    values.resize(blocks * value_step);
    if (!e.latent) copy_keys(e, start, count);
    for (int64_t s = 0; s < count; s += BLOCK) {
        const bf16* from = e.values_of(start + s);
        const int64_t here = std::min(BLOCK, count - s);
        for (int64_t i = 0; e.latent && i < width; i += 32) {
            const __mmask32 inside = e.key_width - i >= 32 ? ~0u : (1u << (e.key_width - i)) - 1;
            __m512i rows[16];
            for (int64_t r = 0; r < BLOCK; r++)
                rows[r] = r < here ? _mm512_maskz_loadu_epi16(inside, from + r * e.width + i) : _mm512_setzero_si512();
            transpose(rows);
            for (int64_t p = 0; p < std::min<int64_t>(16, (width - i) / 2); p++)
                _mm512_storeu_si512(keys.data() + s / LANES * key_step + (i / 2 + p) * 2 * LANES, rows[p]);
        }
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t lanes = e.value_width - b * LANES;
            const __mmask16 inside = lanes >= LANES ? 0xffff : (1u << lanes) - 1;
            for (int64_t r = 0; r < BLOCK; r += 2) {
                const bf16* value = from + r * e.value_step() + b * LANES;
                const __m512i even = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(r < here ? inside : 0, value));
                const __m512i odd = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(r + 1 < here ? inside : 0, value + e.value_step()));
                _mm512_storeu_si512(values.data() + b * value_step + (s + r) * LANES,
                                    _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
            }
        }
    }
}
#endif

// Rows of one tile against `blocks` blocks of lanes, `block_step` apart, `inputs` deep: sums start from `from` (or zero) and go to
// `to`, rows `stride` apart; `outputs` of the last block count.
template <int R, typename C>
void tile_of(const C* const (&x)[R], int64_t inputs, const C* w, int64_t block_step, int64_t outputs, float* const (&to)[R], bool add) {
    const auto some = [&](auto count, int64_t b) {
        constexpr int B = decltype(count)::value;
        floats sum[R][B] = {};
        const int64_t here = outputs - b * LANES;
        if (add)
            for (int r = 0; r < R; r++) read_blocks<B>(to[r] + b * LANES, here, sum[r]);
        multiply<R, B>(x, 0, inputs, w + b * block_step, LANES * Packed<C>::PAIR, block_step, sum);
        for (int r = 0; r < R; r++) write_blocks<B>(sum[r], to[r] + b * LANES, here);
    };
    const int64_t blocks = (outputs + LANES - 1) / LANES;
    int64_t b = 0;
    for (; b + 4 <= blocks; b += 4) some(std::integral_constant<int, 4>{}, b);
    for (; b + 2 <= blocks; b += 2) some(std::integral_constant<int, 2>{}, b);
    for (; b < blocks; b++) some(std::integral_constant<int, 1>{}, b);
}

// for_rows<R>(first) over n rows in tiles.
template <typename Tile>
void in_tiles(int64_t n, Tile tile) {
    int64_t r = 0;
    for (; r + MOST_ROWS <= n; r += MOST_ROWS) tile(std::integral_constant<int, MOST_ROWS>{}, r);
    for (; r + 2 <= n && MOST_ROWS > 2; r += 2) tile(std::integral_constant<int, 2>{}, r);
    for (; r < n; r++) tile(std::integral_constant<int, 1>{}, r);
}

// `tokens` tokens of a prompt, the first at `position`, for the heads of one group. q (tokens, heads, key_width): a token's heads
// lie `q_step` apart and tokens `q_token`; out likewise (value_width apart, out_token).
template <typename C>
void attend_chunk(const Entries<C>& e, const C* q, int64_t q_step, int64_t q_token, int64_t heads, int64_t tokens, int64_t position,
                  float scale, float* out, int64_t out_token) {
    constexpr int64_t SOME = 24;  // rows whose scores are held at a time
    static thread_local PackedChunk<C> packed;
    static thread_local std::vector<float> scores, tops, totals;
    static thread_local std::vector<C> weights;
    const int64_t rows = tokens * heads, value = e.value_width;
    scores.resize(SOME * CHUNK);
    weights.resize(SOME * CHUNK);
    tops.assign(rows, -1e30f);
    totals.assign(rows, 0.0f);
    const auto query = [&](int64_t row) { return q + row / heads * q_token + row % heads * q_step; };
    const auto result = [&](int64_t row) { return out + row / heads * out_token + row % heads * value; };
    for (int64_t row = 0; row < rows; row++) std::fill_n(result(row), value, 0.0f);
    for (int64_t start = 0; start < position + tokens; start += CHUNK) {
        packed.pack(e, start, std::min(CHUNK, position + tokens - start));
        const int64_t first = std::max<int64_t>(0, start - position) * heads;  // tokens before this chunk do not see it
        for (int64_t row = first; row < rows; row += SOME) {
            const int64_t some = std::min(SOME, rows - row);
            const auto visible = [&](int64_t r) { return std::min(CHUNK, position + (row + r) / heads + 1 - start); };
            const int64_t most = visible(some - 1), filled = rounded(most, BLOCK);
            in_tiles(some, [&](auto count, int64_t r0) {
                constexpr int R = decltype(count)::value;
                const C* x[R];
                float* to[R];
                for (int r = 0; r < R; r++) {
                    x[r] = query(row + r0 + r);
                    to[r] = scores.data() + (r0 + r) * CHUNK;
                }
                tile_of<R, C>(x, rounded(e.key_width, Packed<C>::PAIR), packed.keys.data(), packed.key_step, filled, to, false);
            });
            for (int64_t r = 0; r < some; r++) {
                const int64_t seen = visible(r);
                float* s = scores.data() + r * CHUNK;
                C* p = weights.data() + r * CHUNK;
                std::fill(s + seen, s + filled, -1e30f);
                floats largest = load<floats>(s);  // in lanes: how many blocks follow must not change a sum
                for (int64_t i = LANES; i < filled; i += LANES) {
                    const floats other = load<floats>(s + i);
                    largest = other > largest ? other : largest;
                }
                const float top = std::max(tops[row + r], largest_of(largest) * scale);
                const float shrink = exp_negative(tops[row + r] - top);
                floats sums = {};
                for (int64_t i = 0; i < filled; i += LANES) {
                    floats part;
                    for (int64_t l = 0; l < LANES; l++) part[l] = exp_negative(std::max(s[i + l] * scale - top, -1e4f));
                    if (i + LANES > seen)
                        for (int64_t l = 0; l < LANES; l++) part[l] = i + l < seen ? part[l] : 0.0f;
                    sums += part;
                    store(p + i, part);
                }
                totals[row + r] = totals[row + r] * shrink + sum_of(sums);
                tops[row + r] = top;
                if (start)
                    for (int64_t i = 0; i < value; i++) result(row + r)[i] *= shrink;
            }
            in_tiles(some, [&](auto count, int64_t r0) {
                constexpr int R = decltype(count)::value;
                const C* x[R];
                float* to[R];
                for (int r = 0; r < R; r++) {
                    x[r] = weights.data() + (r0 + r) * CHUNK;
                    to[r] = result(row + r0 + r);
                }
                tile_of<R, C>(x, filled, packed.values.data(), packed.value_step, value, to, true);
            });
        }
    }
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < value; i++) result(row)[i] /= totals[row];
}
