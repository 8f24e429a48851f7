// DeepSeekMoE's choice of experts for one token, from its scores: V3's rule (biased scores, groups worth their two best) and
// V2's (no bias, groups worth their best). The plain twin is Router in model/moe.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

struct Routing {
    int64_t experts, chosen, n_group, topk_group, two_best, normalise;
    float scale;
};

// scores and bias (experts; no bias: null) to the chosen experts, best first, and their weights.
inline void choose_experts(const Routing& r, const float* scores, const float* bias, int64_t* experts, float* weights) {
    static thread_local std::vector<float> value, best;
    static thread_local std::vector<int64_t> order;
    value.assign(scores, scores + r.experts);
    if (bias)
        for (int64_t e = 0; e < r.experts; e++) value[e] += bias[e];
    if (r.n_group > 1) {
        const int64_t size = r.experts / r.n_group;
        best.resize(r.n_group);
        for (int64_t g = 0; g < r.n_group; g++) {
            float first = -INFINITY, second = -INFINITY;
            for (int64_t e = g * size; e < (g + 1) * size; e++) {
                if (value[e] > first) { second = first; first = value[e]; }
                else if (value[e] > second) second = value[e];
            }
            best[g] = r.two_best ? first + second : first;
        }
        order.resize(r.n_group);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return best[a] > best[b]; });
        for (int64_t i = r.topk_group; i < r.n_group; i++)
            std::fill(value.begin() + order[i] * size, value.begin() + (order[i] + 1) * size, -1e30f);
    }
    float total = 0;
    for (int64_t k = 0; k < r.chosen; k++) {
        const int64_t e = std::max_element(value.begin(), value.end()) - value.begin();
        experts[k] = e;
        total += weights[k] = scores[e];
        value[e] = -2e30f;
    }
    for (int64_t k = 0; k < r.chosen; k++) weights[k] *= r.scale / (r.normalise ? total + 1e-20f : 1.0f);
}
