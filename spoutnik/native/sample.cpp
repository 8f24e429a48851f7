// Sampling of tokens, row by row: each is a function of its logits, its settings and its random number alone. Plain twin:
// engine/sampler.py.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "sample.h"
#include "simd.h"
#include "thread_pool.h"

namespace {

// The tokens of one row in descending order of probability, sorted as far as needed: a first pass puts them into bins by their
// distance from the most likely one.
class DescendingBins {
   public:
    // z (n): logits before `scale`, the largest of them `top`. p: their probabilities, up to a factor.
    void fill(const float* z, const float* p, int64_t n, float top, float scale) {
        this->p = p;
        bin_of.resize(n);
        mass.assign(BINS, 0.0);
        count.assign(BINS + 1, 0);
        for (int64_t i = 0; i < n; i++)
            bin_of[i] = static_cast<uint16_t>(std::min(nan_to_zero((top - z[i]) * scale * BINS_PER_NAT), BINS - 1.0f));
        for (int64_t i = 0; i < n; i++) {
            mass[bin_of[i]] += p[i];
            count[bin_of[i]]++;
        }
        sorted = -1;
    }

    // The mass of the first `tokens` tokens, or of those among them whose p is at least `least`.
    double top_mass(double tokens, float least) {
        double sum = 0, seen = 0;
        for (int64_t b = 0; b < BINS; b++) {
            if (!count[b]) continue;
            if (seen + count[b] <= tokens && (least <= 0 || std::exp(-(b + 1) / BINS_PER_NAT) >= least)) {
                sum += mass[b];
                seen += count[b];
                continue;
            }
            for (const auto& [value, token] : bin(b)) {
                if (seen >= tokens || value < least) return sum;
                sum += value;
                seen++;
            }
        }
        return sum;
    }

    // The token at which the cumulative mass exceeds `target`, and that mass.
    std::pair<int64_t, double> token_at(double target) {
        double sum = 0;
        int64_t last = -1;
        for (int64_t b = 0; b < BINS; b++) {
            if (!count[b]) continue;
            if (sum + mass[b] <= target) {
                sum += mass[b];
                last = b;
                continue;
            }
            for (const auto& [value, token] : bin(b)) {
                sum += value;
                if (sum > target) return {token, sum};
            }
            last = b;
        }
        return {bin(last).back().second, sum};  // rounding: the total is below the target
    }

   private:
    static constexpr int64_t BINS = 1024;
    static constexpr float BINS_PER_NAT = 32;
    const float* p = nullptr;
    std::vector<uint16_t> bin_of;
    std::vector<double> mass;
    std::vector<int64_t> count;
    std::vector<std::pair<float, int64_t>> tokens;
    int64_t sorted = -1;

    const std::vector<std::pair<float, int64_t>>& bin(int64_t b) {
        if (sorted == b) return tokens;
        tokens.clear();
        for (int64_t i = 0; i < static_cast<int64_t>(bin_of.size()); i++)
            if (bin_of[i] == b) tokens.emplace_back(p[i], i);
        std::sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) {
            return a.first != b.first ? a.first > b.first : a.second < b.second;
        });
        sorted = b;
        return tokens;
    }
};

// The first token, in the order of the vocabulary, at which the cumulative sum of p exceeds `target`.
int64_t inverse_cdf(const float* p, int64_t n, float target, int64_t otherwise) {
    constexpr int64_t block = 32;  // whole blocks first: their sums vectorize, a running sum does not
    float before = 0;
    int64_t start = 0;
    for (; start + block < n; start += block) {
        float sum = 0;
        for (int64_t i = start; i < start + block; i++) sum += p[i];
        if (before + sum > target) break;
        before += sum;
    }
    int64_t token = start;
    while (token < n && (before += p[token]) <= target) token++;
    return token < n ? token : otherwise;  // rounding: the sum is below the target
}

}  // namespace

int64_t sample_token(const SamplingSettings& s, const float* z, int64_t n, float* log_prob) {
    static thread_local std::vector<float> p;
    static thread_local DescendingBins bins;
    p.resize(n);
    float top = z[0];
    for (int64_t i = 1; i < n; i++) top = std::max(top, z[i]);
    const float scale = s.temperature > 0 ? 1.0f / s.temperature : 1.0f;
    float total = 0;
    for (int64_t i = 0; i < n; i++) total += p[i] = exp_nonpositive((z[i] - top) * scale);
    int64_t token = 0;
    if (s.temperature == 0) {
        while (token < n - 1 && z[token] != top) token++;
    } else if (!s.truncated()) {
        token = inverse_cdf(p.data(), n, s.u * total, std::max_element(z, z + n) - z);
    } else {
        bins.fill(z, p.data(), n, top, scale);
        double mass = total;
        if (s.top_k > 0 || s.min_p > 0) mass = bins.top_mass(s.top_k > 0 ? s.top_k : n, s.min_p);
        if (s.top_p < 1) mass = std::min(mass, bins.token_at(s.top_p * mass * (1 - 1e-7)).second);
        token = bins.token_at(std::min<double>(s.u, 1 - 1e-7) * mass).first;
    }
    *log_prob = (z[token] - top) * scale - std::log(total);
    return token;
}

void spoutnik_sample(const float* logits, const float* settings, int64_t* tokens, float* log_probs, int64_t rows,
                     int64_t vocabulary, int64_t threads) {
    // Few rows are not worth a thread.
    ThreadGroup group(static_cast<int>(std::min(threads, std::max<int64_t>(1, rows * vocabulary / 100000))));
    ThreadPool::run(group.size, [&](int) {
        group.parallel_for(rows, 1, [&](int64_t r) {
            const SamplingSettings s{settings[r], settings[rows + r], settings[2 * rows + r], settings[3 * rows + r],
                                     settings[4 * rows + r]};
            tokens[r] = sample_token(s, logits + r * vocabulary, vocabulary, log_probs + r);
        });
    });
}
