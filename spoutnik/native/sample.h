// Sampling of one token. Compiled once, in sample.cpp: two copies might be compiled to different roundings.
#pragma once

#include <cstdint>

struct SamplingSettings {
    float temperature, top_p, top_k, min_p, u;
    bool truncated() const { return top_p < 1 || top_k > 0 || min_p > 0; }
};

// A token of z (n logits), and its log-probability before truncation.
int64_t sample_token(const SamplingSettings& s, const float* z, int64_t n, float* log_prob);

// A token for each row of logits (rows, vocabulary) and its log-probability before truncation. settings (5, rows):
// temperature (0: the most likely token), top_p, top_k (0: off), min_p, and a random number in [0, 1).
extern "C" void spoutnik_sample(const float* logits, const float* settings, int64_t* tokens, float* log_probs, int64_t rows,
                                int64_t vocabulary, int64_t threads);
