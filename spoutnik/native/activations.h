// Rows of activations as the products with packed matrices read them, and rows of their results.
#pragma once

#include "packed_matrix.h"

// Bytes of a row of activations as a product reads it: its numbers; for quantized weights int8, then for each group a scale,
// then for each group the sum that removes the offset of the weights.
inline int64_t activation_bytes(int64_t kind, int64_t in) {
    const int64_t inputs = padded_inputs(kind, in);
    return round_up(kind == FLOAT32 ? 4 * inputs : is_bfloat16(kind) ? 2 * inputs : inputs + inputs / GROUP_SIZE * 8, 64);
}

// What the sum of a group of activations is subtracted times. int8: what weights are packed above their values, as far as the
// dot product does not subtract it itself; int4: 1, which the zero of each group of weights multiplies.
inline int32_t weight_offset(int64_t kind) { return kind == INT4 ? 1 : 128 - DOT_OFFSET; }

// Group g of a row whose quantized numbers start at q.
inline void quantize_group(const float* x, int64_t count, int64_t g, int64_t inputs, int32_t offset, int8_t* q) {
    float part[GROUP_SIZE] = {};
    std::memcpy(part, x, 4 * count);
    float top = 0;
    for (float v : part) top = std::max(top, std::fabs(v));
    const float inverse = top > 0 ? 127.0f / top : 0.0f;
    int32_t sum = 0;
    for (int64_t i = 0; i < GROUP_SIZE; i++) {
        // Within the range but for NaN, infinity and numbers too small to divide by.
        const float scaled = nan_to_zero(part[i] * inverse + (part[i] < 0 ? -0.5f : 0.5f));
        const int32_t whole = static_cast<int32_t>(std::min(std::max(scaled, -127.5f), 127.5f));
        q[g * GROUP_SIZE + i] = static_cast<int8_t>(whole);
        sum += whole;
    }
    const float scale = top / 127.0f;
    const int32_t correction = -offset * sum;
    std::memcpy(q + inputs + 4 * g, &scale, 4);
    std::memcpy(q + inputs + inputs / GROUP_SIZE * 4 + 4 * g, &correction, 4);
}

// Numbers [start, start + count) of a row of `in` (start begins a group), converted for products with matrices of this kind.
inline void convert_activations(int64_t kind, const float* x, int64_t start, int64_t count, int64_t in, void* to) {
    const int64_t inputs = padded_inputs(kind, in);
    if (kind == FLOAT32) {
        std::memcpy(static_cast<float*>(to) + start, x, 4 * count);
    } else if (is_bfloat16(kind)) {
        bf16* half = static_cast<bf16*>(to);
        store_floats(half + start, x, count);
        if (start + count == in && inputs > in) half[in] = 0;
    } else {
        for (int64_t i = 0; i < count; i += GROUP_SIZE)
            quantize_group(x + i, std::min(GROUP_SIZE, count - i), (start + i) / GROUP_SIZE, inputs, weight_offset(kind),
                           static_cast<int8_t*>(to));
    }
}

inline void convert_row(int64_t kind, const float* x, int64_t in, void* to) { convert_activations(kind, x, 0, in, in, to); }

// Back to floats: what a product with such a matrix reads.
inline void restore_row(int64_t kind, const void* from, int64_t in, float* x) {
    if (kind == FLOAT32) {
        std::memcpy(x, from, 4 * in);
    } else if (is_bfloat16(kind)) {
        for (int64_t i = 0; i < in; i++) x[i] = to_float(static_cast<const bf16*>(from)[i]);
    } else {
        const int8_t* q = static_cast<const int8_t*>(from);
        const int64_t inputs = padded_inputs(kind, in);
        for (int64_t first = 0; first < in; first += GROUP_SIZE) {
            const float scale = load<float>(q + inputs + first / GROUP_SIZE * 4);
            const int64_t last = std::min(first + GROUP_SIZE, in);
            for (int64_t i = first; i < last; i++) x[i] = q[i] * scale;
        }
    }
}

// What quantize_group left behind the quantized numbers.
inline float group_scale(const int8_t* x, int64_t inputs, int64_t g) { return load<float>(x + inputs + 4 * g); }
inline int32_t group_sum(const int8_t* x, int64_t inputs, int64_t g) {
    return load<int32_t>(x + inputs + inputs / GROUP_SIZE * 4 + 4 * g);
}

// Rows in memory: row i at data + (index ? index[i] : i) * stride (bytes for activations, floats for outputs).
template <typename T>
struct RowView {
    T* data;
    int64_t stride;
    const int64_t* index = nullptr;
    T* at(int64_t i) const { return data + (index ? index[i] : i) * stride; }
    RowView from(int64_t i) const { return index ? RowView{data, stride, index + i} : RowView{data + i * stride, stride}; }
};
using Activations = RowView<const char>;
using Outputs = RowView<float>;

// B blocks of numbers, or the first `count` of them; mostly all, which the compiler then knows.
template <int B>
inline void load_blocks(const float* from, int64_t count, vfloat (&blocks)[B]) {
    if (count >= B * LANES)
        UNROLLED for (int b = 0; b < B; b++) blocks[b] = load<vfloat>(from + b * LANES);
    else
        std::memcpy(&blocks, from, 4 * count);
}
template <int B>
inline void store_blocks(const vfloat (&blocks)[B], float* to, int64_t count) {
    if (count >= B * LANES)
        UNROLLED for (int b = 0; b < B; b++) std::memcpy(to + b * LANES, &blocks[b], sizeof(vfloat));
    else
        std::memcpy(to, &blocks, 4 * count);
}
