// Matrices into blocks of LANES outputs for tile.h: (outputs / LANES, inputs / PAIR, LANES, PAIR), padded with zeros.
#pragma once

#include "tile.h"

// Rows [first, first + outputs) of from (., inputs) are the outputs.
template <typename T>
void pack_rows(const T* from, int64_t first, int64_t outputs, int64_t inputs, T* to) {
    const int64_t words = inputs / Packing<T>::PAIR;
    using Word = typename Packing<T>::Word;
    auto* packed = reinterpret_cast<Word*>(to);
    auto* rows = reinterpret_cast<const Word*>(from) + first * words;
    for (int64_t b = 0; b < outputs; b += LANES)
        for (int64_t o = 0; o < LANES; o++)
            for (int64_t k = 0; k < words; k++)
                packed[b * words + k * LANES + o] = b + o < outputs ? rows[(b + o) * words + k] : 0;
}

// Columns [first, first + outputs) of from (inputs, width) are the outputs.
template <typename T>
void pack_columns(const T* from, int64_t first, int64_t outputs, int64_t inputs, int64_t width, T* to) {
    constexpr int64_t P = Packing<T>::PAIR;
    for (int64_t b = 0; b < outputs; b += LANES)
        for (int64_t k = 0; k < inputs; k += P) {
            T* block = to + b * round_up(inputs, P) + k * LANES;
            const int64_t count = std::min(LANES, outputs - b);
            if (count < LANES) std::fill(block, block + LANES * P, T(0));
            for (int64_t o = 0; o < count; o++)
                for (int64_t i = 0; i < P; i++)
                    block[o * P + i] = k + i < inputs ? from[(k + i) * width + first + b + o] : T(0);
        }
}

#ifdef __AVX512BF16__
template <>
inline void pack_rows<bf16>(const bf16* from, int64_t first, int64_t outputs, int64_t inputs, bf16* to) {
    const int64_t pairs = inputs / 2;
    for (int64_t b = 0; b < outputs; b += LANES)
        for (int64_t p = 0; p < pairs; p += LANES) {
            const __mmask16 inside = first_lanes(pairs - p);
            __m512i rows[LANES];
            for (int64_t i = 0; i < LANES; i++)
                rows[i] = b + i < outputs ? load_pairs(inside, from + (first + b + i) * inputs + 2 * p) : __m512i{};
            transpose(rows);
            for (int64_t i = 0; i < std::min(LANES, pairs - p); i++)
                store_pairs(to + (b * pairs + (p + i) * LANES) * 2, rows[i]);
        }
}

template <>
inline void pack_columns<bf16>(const bf16* from, int64_t first, int64_t outputs, int64_t inputs, int64_t width, bf16* to) {
    const int64_t pairs = ceil_div(inputs, 2);
    for (int64_t b = 0; b < outputs; b += LANES) {
        const __mmask16 inside = first_lanes(outputs - b);
        for (int64_t p = 0; p < pairs; p++) {
            const bf16* row = from + 2 * p * width + first + b;
            const __mmask16 inside_second = 2 * p + 1 < inputs ? inside : 0;
            store_pairs(to + (b * pairs + p * LANES) * 2, interleave(inside, row, inside_second, row + width));
        }
    }
}
#endif
