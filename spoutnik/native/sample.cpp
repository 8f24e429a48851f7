// The choice of tokens, row by row: each a function of its logits, its settings and its random number alone. The plain twin is
// engine/sampler.py.
#include <algorithm>
#include <cmath>
#include <utility>

#include "basics.h"
#include "sample.h"
#include "team.h"

namespace {

// The tokens of one row in falling order of probability, sorted only where somebody looks: a first pass deals them into bins by
// their distance from the likeliest.
class Falling {
   public:
    // z (n) logits times `scale`, below `top` by at least 0; p their probabilities, up to a factor.
    void deal(const float* z, const float* p, int64_t n, float top, float scale) {
        this->p = p;
        which.resize(n);
        mass.assign(BINS, 0.0);
        count.assign(BINS + 1, 0);
        for (int64_t i = 0; i < n; i++)
            which[i] = static_cast<uint16_t>(std::min(or_zero((top - z[i]) * scale * FINENESS), BINS - 1.0f));
        for (int64_t i = 0; i < n; i++) {
            mass[which[i]] += p[i];
            count[which[i]]++;
        }
        sorted = -1;
    }

    // Where the first `tokens` tokens end, or those of them at least `least` likely: their mass.
    double mass_of_first(double tokens, float least) {
        double sum = 0, seen = 0;
        for (int64_t b = 0; b < BINS; b++) {
            if (!count[b]) continue;
            if (seen + count[b] <= tokens && (least <= 0 || std::exp(-(b + 1) / FINENESS) >= least)) {
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

    // The token in which the running sum passes `wanted`, and that sum with the token's own part.
    std::pair<int64_t, double> pass(double wanted) {
        double sum = 0;
        int64_t last = -1;
        for (int64_t b = 0; b < BINS; b++) {
            if (!count[b]) continue;
            if (sum + mass[b] <= wanted) {
                sum += mass[b];
                last = b;
                continue;
            }
            for (const auto& [value, token] : bin(b)) {
                sum += value;
                if (sum > wanted) return {token, sum};
            }
            last = b;
        }
        return {bin(last).back().second, sum};  // rounding left nothing at the very end
    }

   private:
    static constexpr int64_t BINS = 1024;
    static constexpr float FINENESS = 32;
    const float* p = nullptr;
    std::vector<uint16_t> which;
    std::vector<double> mass;
    std::vector<int64_t> count;
    std::vector<std::pair<float, int64_t>> tokens;
    int64_t sorted = -1;

    const std::vector<std::pair<float, int64_t>>& bin(int64_t b) {
        if (sorted == b) return tokens;
        tokens.clear();
        for (int64_t i = 0; i < static_cast<int64_t>(which.size()); i++)
            if (which[i] == b) tokens.emplace_back(p[i], i);
        std::sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) {
            return a.first != b.first ? a.first > b.first : a.second < b.second;
        });
        sorted = b;
        return tokens;
    }
};

// The first token, in the vocabulary's order, whose running sum of p passes u times the whole.
int64_t first_past(const float* p, int64_t n, float wanted, int64_t otherwise) {
    constexpr int64_t block = 32;  // whole blocks first: their sums vectorise, a running sum does not
    float before = 0;
    int64_t start = 0;
    for (; start + block < n; start += block) {
        float sum = 0;
        for (int64_t i = start; i < start + block; i++) sum += p[i];
        if (before + sum > wanted) break;
        before += sum;
    }
    int64_t chosen = start;
    while (chosen < n && (before += p[chosen]) <= wanted) chosen++;
    return chosen < n ? chosen : otherwise;  // rounding left nothing at the very end of the distribution
}

}  // namespace

int64_t choose(const Settings& s, const float* z, int64_t n, float* log_prob) {
    static thread_local std::vector<float> p;
    static thread_local Falling falling;
    p.resize(n);
    float top = z[0];
    for (int64_t i = 1; i < n; i++) top = std::max(top, z[i]);
    const float scale = s.temperature > 0 ? 1.0f / s.temperature : 1.0f;
    float total = 0;
    for (int64_t i = 0; i < n; i++) total += p[i] = exp_negative((z[i] - top) * scale);
    int64_t chosen = 0;
    if (s.temperature == 0) {
        while (chosen < n - 1 && z[chosen] != top) chosen++;
    } else if (!s.truncated()) {
        chosen = first_past(p.data(), n, s.u * total, std::max_element(z, z + n) - z);
    } else {
        falling.deal(z, p.data(), n, top, scale);
        double kept = total;
        if (s.top_k > 0 || s.min_p > 0) kept = falling.mass_of_first(s.top_k > 0 ? s.top_k : n, s.min_p);
        if (s.top_p < 1) kept = std::min(kept, falling.pass(s.top_p * kept * (1 - 1e-7)).second);
        chosen = falling.pass(std::min<double>(s.u, 1 - 1e-7) * kept).first;
    }
    *log_prob = (z[chosen] - top) * scale - std::log(total);
    return chosen;
}

// One token per row of logits (rows, vocabulary) and its log-probability before truncation. settings (5, rows): temperature (0:
// the likeliest), top_p, top_k (0: off), min_p, and a random number in [0, 1).
extern "C" void draw(const float* logits, const float* settings, int64_t* tokens, float* log_probs, int64_t rows, int64_t vocabulary,
                     int64_t threads) {
    Team team(static_cast<int>(std::min(threads, std::max<int64_t>(1, rows * vocabulary / 100000))));  // few are not worth a thread
    Threads::run(team.members, [&](int) {
        team.each(rows, 1, [&](int64_t r) {
            const Settings s{settings[r], settings[rows + r], settings[2 * rows + r], settings[3 * rows + r], settings[4 * rows + r]};
            tokens[r] = choose(s, logits + r * vocabulary, vocabulary, log_probs + r);
        });
    });
}
