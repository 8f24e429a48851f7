// Products of the training kernels: TILE rows at a time, which share each load of packed weights.
#pragma once

#include <vector>

#include "pack.h"

constexpr int64_t TILE = 8;

// y (TILE rows, y_stride apart) = the products of TILE rows of x with packed weights (pack.h), or y += if `add`.
template <typename T>
void multiply_into(const T* x, int64_t stride, int64_t first, int64_t last, const T* w, int64_t in, int64_t out,
                   float* y, int64_t y_stride, bool add = false) {
    multiply_rows<TILE>(x, stride, first, last, w, in, out, [=](int r, int64_t o, vfloat sums) {
        float* to = y + r * y_stride + o;
        if (add) sums += load<vfloat>(to);
        std::memcpy(to, &sums, sizeof sums);
    });
}
