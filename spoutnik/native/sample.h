// The choice of a token. Compiled once, for all who call it: of two copies the compiler might make code whose roundings differ.
#pragma once

#include <cstdint>

struct Settings {
    float temperature, top_p, top_k, min_p, u;
    bool truncated() const { return top_p < 1 || top_k > 0 || min_p > 0; }
};

// A token of z (n logits), and its log-probability before truncation.
int64_t choose(const Settings& s, const float* z, int64_t n, float* log_prob);
