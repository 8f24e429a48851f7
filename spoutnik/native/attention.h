// Attention of one new token per row over its cache.
#pragma once

#include "basics.h"

// q (rows, heads, key_width) to out (rows, heads, value_width), float. cache: row_stride numbers per row, width per position.
// Heads share keys and values group by group: keys of group g start at g * key_width of a position's entry, values at
// value_offset + g * value_width. MLA is one group whose values lie inside its keys (value_offset 0).
template <typename T>
void attend(const float* q, const T* cache, const int64_t* lengths, float* out, int64_t rows, int64_t heads, int64_t groups,
            int64_t key_width, int64_t value_width, int64_t value_offset, int64_t width, int64_t row_stride, float scale) {
    const int64_t shared = heads / groups;
    std::vector<float> line(std::max(key_width, value_width)), scores;
    for (int64_t row = 0; row < rows; row++) {
        const int64_t length = lengths[row] + 1;  // those held and the new one
        const T* entries = cache + row * row_stride;
        scores.resize(shared * length);
        for (int64_t g = 0; g < groups; g++) {
            const float* queries = q + (row * heads + g * shared) * key_width;
            for (int64_t s = 0; s < length; s++) {
                const T* key = entries + s * width + g * key_width;
                for (int64_t i = 0; i < key_width; i++) line[i] = to_float(key[i]);
                for (int64_t h = 0; h < shared; h++)
                    scores[h * length + s] = dot(queries + h * key_width, line.data(), key_width) * scale;
            }
            for (int64_t h = 0; h < shared; h++) {
                float* p = scores.data() + h * length;
                float top = p[0], total = 0;
                for (int64_t s = 1; s < length; s++) top = std::max(top, p[s]);
                for (int64_t s = 0; s < length; s++) total += p[s] = exp_negative(p[s] - top);
                for (int64_t s = 0; s < length; s++) p[s] /= total;
            }
            float* sums = out + (row * heads + g * shared) * value_width;
            std::fill(sums, sums + shared * value_width, 0.0f);
            for (int64_t s = 0; s < length; s++) {
                const T* value = entries + s * width + value_offset + g * value_width;
                for (int64_t i = 0; i < value_width; i++) line[i] = to_float(value[i]);
                for (int64_t h = 0; h < shared; h++) {
                    const float p = scores[h * length + s];
                    for (int64_t i = 0; i < value_width; i++) sums[h * value_width + i] += p * line[i];
                }
            }
        }
    }
}
