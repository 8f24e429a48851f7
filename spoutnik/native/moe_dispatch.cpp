// Routing and dispatch of the mixture of experts: the choice of experts, the row of each choice in its expert's block, rows
// summed back into tokens, and the gradients of both. Bound by memory; torch's own operations need several passes each. Plain
// twins: model/moe.py.
#include <vector>

#include "moe_routing.h"
#include "simd.h"

namespace {

template <typename T>
void combine(const T* rows, const int64_t* slots, const float* weights, T* out, int64_t tokens, int64_t chosen, int64_t width) {
    std::vector<float> sum(width);
    for (int64_t t = 0; t < tokens; t++) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (int64_t k = 0; k < chosen; k++) {
            const T* row = rows + slots[t * chosen + k] * width;
            const float weight = weights[t * chosen + k];
            for (int64_t i = 0; i < width; i++) sum[i] += weight * to_float(row[i]);
        }
        store_floats(out + t * width, sum.data(), width);
    }
}

template <typename T>
void combine_backward(const T* grad, const T* rows, const int64_t* slots, const float* weights, T* rows_grad,
                      float* weights_grad, int64_t tokens, int64_t chosen, int64_t width, int64_t all_rows) {
    std::memset(rows_grad, 0, all_rows * width * sizeof(T));  // padding rows have no gradient
    std::vector<float> upstream(width);
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t i = 0; i < width; i++) upstream[i] = to_float(grad[t * width + i]);
        for (int64_t k = 0; k < chosen; k++) {
            const int64_t slot = slots[t * chosen + k];
            const float weight = weights[t * chosen + k];
            const T* row = rows + slot * width;
            T* to = rows_grad + slot * width;
            float product = 0;
            for (int64_t i = 0; i < width; i++) {
                product += upstream[i] * to_float(row[i]);
                store(to + i, weight * upstream[i]);
            }
            weights_grad[t * chosen + k] = product;
        }
    }
}

template <typename T>
void gather_sum(const T* rows, const int64_t* slots, T* out, int64_t tokens, int64_t chosen, int64_t width) {
    std::vector<float> sum(width);
    for (int64_t t = 0; t < tokens; t++) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (int64_t k = 0; k < chosen; k++) {
            const T* row = rows + slots[t * chosen + k] * width;
            for (int64_t i = 0; i < width; i++) sum[i] += to_float(row[i]);
        }
        store_floats(out + t * width, sum.data(), width);
    }
}

}  // namespace

extern "C" {

// Whether all of n numbers lie in [0, limit): checked before any of them is used as an index.
int64_t spoutnik_is_within(const int64_t* numbers, int64_t n, int64_t limit) {
    int64_t outside = 0;
    for (int64_t i = 0; i < n; i++) outside |= (numbers[i] < 0) | (numbers[i] >= limit);
    return !outside;
}

// Whether n numbers, none negative, add up to `total`.
int64_t spoutnik_adds_up_to(const int64_t* numbers, int64_t n, int64_t total) {
    for (int64_t i = 0; i < n; total -= numbers[i++])
        if (numbers[i] < 0 || numbers[i] > total) return 0;
    return total == 0;
}

// experts (choices): the expert of each choice, `chosen` to a token. counts (n_experts): rows of each expert's block, rounded
// up to `multiple`; tokens (choices + n_experts * (multiple - 1)): the token of each row, token 0 in padding; slots
// (choices): the row of each choice. Returns the number of rows.
int64_t spoutnik_layout(const int64_t* experts, int64_t choices, int64_t chosen, int64_t n_experts, int64_t multiple,
                        int64_t* counts, int64_t* tokens, int64_t* slots) {
    std::vector<int64_t> next(n_experts, 0);
    std::fill(counts, counts + n_experts, 0);
    for (int64_t i = 0; i < choices; i++) counts[experts[i]]++;
    int64_t rows = 0;
    for (int64_t e = 0; e < n_experts; e++) {
        next[e] = rows;
        const int64_t whole = round_up(counts[e], multiple);
        std::fill(tokens + rows + counts[e], tokens + rows + whole, 0);
        rows += counts[e] = whole;
    }
    for (int64_t i = 0; i < choices; i++) {
        const int64_t row = next[experts[i]]++;
        slots[i] = row;
        tokens[row] = i / chosen;
    }
    return rows;
}

#define EXPORT_FOR(T, SUFFIX)                                                                                                  \
    void spoutnik_combine_##SUFFIX(const T* rows, const int64_t* slots, const float* weights, T* out, int64_t tokens,          \
                                   int64_t chosen, int64_t width) {                                                            \
        combine(rows, slots, weights, out, tokens, chosen, width);                                                             \
    }                                                                                                                          \
    void spoutnik_combine_backward_##SUFFIX(const T* grad, const T* rows, const int64_t* slots, const float* weights,          \
                                            T* rows_grad, float* weights_grad, int64_t tokens, int64_t chosen, int64_t width,  \
                                            int64_t all_rows) {                                                                \
        combine_backward(grad, rows, slots, weights, rows_grad, weights_grad, tokens, chosen, width, all_rows);                \
    }                                                                                                                          \
    void spoutnik_gather_sum_##SUFFIX(const T* rows, const int64_t* slots, T* out, int64_t tokens, int64_t chosen,             \
                                      int64_t width) {                                                                         \
        gather_sum(rows, slots, out, tokens, chosen, width);                                                                   \
    }

EXPORT_FOR(float, float32)
EXPORT_FOR(bf16, bfloat16)

// Experts and weights of `tokens` rows of scores.
void spoutnik_choose_experts(const float* scores, const float* bias, int64_t* experts, float* weights, int64_t tokens,
                             int64_t n_experts, int64_t chosen, int64_t n_group, int64_t topk_group, int64_t two_best,
                             int64_t normalize, float scale) {
    const Routing routing{n_experts, chosen, n_group, topk_group, two_best, normalize, scale};
    for (int64_t t = 0; t < tokens; t++)
        choose_experts(routing, scores + t * n_experts, bias, experts + t * chosen, weights + t * chosen);
}

}  // extern "C"
