// Small parts of the forward pass: its buffers, normalization, rotary embedding.
#pragma once

#include <memory>
#include <vector>

#include "simd.h"

namespace {

// Buffers that every pass allocates in the same order, kept from one to the next.
struct Workspace {
    std::vector<std::unique_ptr<char[]>> blocks;
    std::vector<int64_t> sizes;
    size_t next = 0;

    template <typename T>
    T* allocate(int64_t n) {
        if (next == blocks.size()) {
            blocks.emplace_back();
            sizes.push_back(0);
        }
        const int64_t bytes = n * sizeof(T) + 64;
        if (sizes[next] < bytes) {
            blocks[next].reset(new char[bytes]);
            sizes[next] = bytes;
        }
        return reinterpret_cast<T*>(round_up(reinterpret_cast<intptr_t>(blocks[next++].get()), 64));
    }
};

// Sequences [begin, end) of a batch, whose tokens start at `token` and whose wanted ones are [wanted, wanted_end).
struct BatchPart {
    int64_t begin, end, token, wanted, wanted_end, tokens;
};

inline void rotate(float* x, const float* rotary, int64_t width, bool interleaved) {
    const int64_t half = width / 2;
    for (int64_t i = 0; i < half; i++) {
        float& a = x[interleaved ? 2 * i : i];
        float& b = x[interleaved ? 2 * i + 1 : i + half];
        const float first = a, second = b, cos = rotary[i], sin = rotary[half + i];
        a = first * cos - second * sin;
        b = first * sin + second * cos;
    }
}

inline void rms_norm(const float* x, int64_t width, const float* weight, float eps, float* to) {
    float sum = 0;
    for (int64_t i = 0; i < width; i++) sum += x[i] * x[i];
    const float scale = 1.0f / std::sqrt(sum / width + eps);
    for (int64_t i = 0; i < width; i++) to[i] = x[i] * scale * weight[i];
}

float* row_buffer(int64_t n) {
    static thread_local std::vector<float> row;
    if (static_cast<int64_t>(row.size()) < n) row.resize(n);
    return row.data();
}

}  // namespace
