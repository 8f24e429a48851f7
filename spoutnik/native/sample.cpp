// The choice of tokens. The plain twin is engine/sampling.py.
#include <algorithm>
#include <cmath>

#include "basics.h"

extern "C" {

// One token per row of logits (rows, vocabulary): the first whose cumulated probability exceeds u, and its log-probability.
void draw(const float* logits, const float* u, int64_t* tokens, float* log_probs, int64_t rows, int64_t vocabulary,
          float temperature) {
    std::vector<float> p(vocabulary);
    const float scale = 1.0f / temperature;
    for (int64_t row = 0; row < rows; row++) {
        const float* z = logits + row * vocabulary;
        const int64_t likeliest = std::max_element(z, z + vocabulary) - z;
        const float top = z[likeliest];
        float total = 0;
        for (int64_t i = 0; i < vocabulary; i++) total += p[i] = exp_negative((z[i] - top) * scale);
        const float wanted = u[row] * total;
        constexpr int64_t block = 32;  // whole blocks first: their sums vectorise, a running sum does not
        float before = 0;
        int64_t start = 0;
        for (; start + block < vocabulary; start += block) {
            float sum = 0;
            for (int64_t i = start; i < start + block; i++) sum += p[i];
            if (before + sum > wanted) break;
            before += sum;
        }
        int64_t chosen = start;
        while (chosen < vocabulary && (before += p[chosen]) <= wanted) chosen++;
        if (chosen == vocabulary) chosen = likeliest;  // rounding left nothing at the very end of the distribution
        tokens[row] = chosen;
        log_probs[row] = (z[chosen] - top) * scale - std::log(total);
    }
}

}
