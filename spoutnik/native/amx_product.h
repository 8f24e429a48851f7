// Products of bfloat16 for training in tiles (amx.h), their sums in float32.
#pragma once

#include "amx.h"

#if SPOUTNIK_AMX

namespace amx {

constexpr int64_t SIDE = 2 * ROWS;  // rows, and outputs, that four sums hold

// SIDE rows of x times SIDE outputs, packed as pack_rows leaves them (pack.h), to y; `inputs` a multiple of 32. Widths are in
// numbers.
inline void multiply(const bf16* x, int64_t x_width, const bf16_pair* packed, int64_t inputs, float* y, int64_t y_width) {
    const int64_t block = inputs / 2 * LANES;
    for_constants<4>([](auto sum) { zero<sum>(); });
    for (int64_t k = 0; k < inputs; k += 32) {
        const bf16_pair* weights = packed + k / 2 * LANES;
        load<ACTIVATIONS>(x + k, 2 * x_width);
        load<WEIGHTS>(weights, 64);
        multiply_bf16<0>();
        load<MORE_WEIGHTS>(weights + block, 64);
        multiply_bf16<1, ACTIVATIONS, MORE_WEIGHTS>();
        load<MORE_ACTIVATIONS>(x + ROWS * x_width + k, 2 * x_width);
        multiply_bf16<2, MORE_ACTIVATIONS, WEIGHTS>();
        multiply_bf16<3, MORE_ACTIVATIONS, MORE_WEIGHTS>();
    }
    store<0>(y, 4 * y_width);
    store<1>(y + LANES, 4 * y_width);
    store<2>(y + ROWS * y_width, 4 * y_width);
    store<3>(y + ROWS * y_width + LANES, 4 * y_width);
}

}  // namespace amx

#endif
