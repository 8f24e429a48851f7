// DeepSeekMoE's choice of experts for one token, from its scores: V3's rule (biased scores, a group counts with its two best)
// and V2's (no bias, a group counts with its best). Plain twin: Router in model/moe.py.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

struct Routing {
    int64_t experts, chosen, n_group, topk_group, two_best, normalize;
    float scale;
};

// The first of the largest of n numbers, in two reductions that vectorize.
inline int64_t first_largest(const float* value, int64_t n) {
    float top = value[0];
    for (int64_t i = 1; i < n; i++) top = std::max(top, value[i]);
    int32_t at = n - 1;
    for (int32_t i = 0; i < static_cast<int32_t>(n); i++) at = std::min(at, value[i] == top ? i : static_cast<int32_t>(n) - 1);
    return at;
}

// The chosen experts, best first, and their weights, from scores and bias (experts; no bias: null).
inline void choose_experts(const Routing& r, const float* scores, const float* bias, int64_t* experts, float* weights) {
    static thread_local std::vector<float> value, best, group_score;
    value.assign(scores, scores + r.experts);
    if (bias)
        for (int64_t e = 0; e < r.experts; e++) value[e] += bias[e];
    if (r.n_group > 1) {
        const int64_t size = r.experts / r.n_group;
        group_score.resize(r.n_group);
        for (int64_t g = 0; g < r.n_group; g++) {
            float first = -1e30f, second = -1e30f;
            for (int64_t e = g * size; e < (g + 1) * size; e++) {
                second = std::max(second, std::min(first, value[e]));
                first = std::max(first, value[e]);
            }
            group_score[g] = r.two_best ? first + second : first;
        }
        best.assign(r.experts, -1e30f);  // experts of the other groups are out, whatever their bias
        for (int64_t i = 0; i < r.topk_group; i++) {
            const int64_t g = first_largest(group_score.data(), r.n_group);
            std::copy_n(value.data() + g * size, size, best.data() + g * size);
            group_score[g] = -3e30f;
        }
        value.swap(best);
    }
    float total = 0;
    for (int64_t k = 0; k < r.chosen; k++) {
        const int64_t e = first_largest(value.data(), r.experts);
        experts[k] = e;
        total += weights[k] = scores[e];
        value[e] = -2e30f;
    }
    for (int64_t k = 0; k < r.chosen; k++) weights[k] *= r.scale / (r.normalize ? total + 1e-20f : 1.0f);
}
