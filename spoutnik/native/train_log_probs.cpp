// Log-probabilities of target tokens from hidden states, without keeping the logits, forward and backward. Plain twins:
// train/losses.py.
#include <type_traits>

#include "amx_product.h"
#include "train_tile.h"

namespace {

// Logits divided by the temperature, some rows at a time; the weight of the head is packed once.
template <typename T>
struct Logits {
    const T* hidden;
    const int64_t rows, width, vocabulary, stride;  // stride: from row to row of the result
    const float scale;
    const bool in_tiles;
    const int64_t step;  // rows at a time
    std::vector<T> head, copy;
    std::vector<float> result;
    const amx::Tiles tiles;

    Logits(const T* hidden, const T* weight, float temperature, int64_t rows, int64_t width, int64_t vocabulary)
        : hidden(hidden), rows(rows), width(width), vocabulary(vocabulary), stride(round_up(vocabulary, 2 * LANES)),
          scale(1.0f / temperature), in_tiles(std::is_same_v<T, bf16> && width % 32 == 0 && amx::granted()),
          step(in_tiles ? 32 : TILE), head(stride * width), copy(step * width), result(step * stride) {
        pack_rows(weight, 0, vocabulary, width, head.data());
    }

    // (step, stride), of rows from `row` on; those past the last are read as the last.
    const float* rows_from(int64_t row) {
        const T* x = hidden + row * width;
        if (row + step > rows) {
            for (int64_t r = 0; r < step; r++)
                std::copy_n(hidden + std::min(row + r, rows - 1) * width, width, copy.data() + r * width);
            x = copy.data();
        }
        multiply(x);
        for (float& z : result) z *= scale;
        return result.data();
    }

    void multiply(const T* x) {
#if SPOUTNIK_AMX
        if constexpr (std::is_same_v<T, bf16>)
            if (in_tiles) {
                const auto* packed = reinterpret_cast<const bf16_pair*>(head.data());
                for (int64_t v = 0; v < stride; v += amx::SIDE)
                    amx::multiply(x, width, packed + v * width / 2, width, result.data() + v, stride);
                return;
            }
#endif
        multiply_into(x, width, 0, width, head.data(), width, stride, result.data(), stride);
    }
};

template <typename T>
void log_probs_forward(const T* hidden, const T* weight, const int64_t* targets, float temperature, float* log_probs,
                       float* entropies, float* normalizers, int64_t rows, int64_t width, int64_t vocabulary) {
    Logits<T> logits(hidden, weight, temperature, rows, width, vocabulary);
    for (int64_t row = 0; row < rows; row += logits.step) {
        const float* z = logits.rows_from(row);
        for (int64_t r = row; r < std::min(row + logits.step, rows); r++, z += logits.stride) {
            float top = z[0], total = 0, weighted = 0;
            for (int64_t v = 1; v < vocabulary; v++) top = std::max(top, z[v]);
            for (int64_t v = 0; v < vocabulary; v++) {
                const float e = exp_nonpositive(z[v] - top);
                total += e;
                weighted += e * (z[v] - top);
            }
            const float log_total = std::log(total);
            normalizers[r] = top + log_total;
            log_probs[r] = z[targets[r]] - top - log_total;
            entropies[r] = log_total - weighted / total;
        }
    }
}

// grad (rows) of the log-probabilities to the gradient of the logits (rows, vocabulary), before the temperature.
template <typename T>
void log_probs_backward(const float* grad, const T* hidden, const T* weight, const int64_t* targets, const float* normalizers,
                        float temperature, T* logits_grad, int64_t rows, int64_t width, int64_t vocabulary) {
    Logits<T> logits(hidden, weight, temperature, rows, width, vocabulary);
    for (int64_t row = 0; row < rows; row += logits.step) {
        const float* z = logits.rows_from(row);
        for (int64_t r = row; r < std::min(row + logits.step, rows); r++, z += logits.stride) {
            const float g = grad[r] / temperature, normalizer = normalizers[r];
            T* to = logits_grad + r * vocabulary;
            for (int64_t v = 0; v < vocabulary; v++) store(to + v, -g * exp_nonpositive(std::min(z[v] - normalizer, 0.0f)));
            const float p = exp_nonpositive(std::min(z[targets[r]] - normalizer, 0.0f));
            store(to + targets[r], g * (1.0f - p));
        }
    }
}

// Of a row of logits: the largest of z * scale, and the sum of exp(z * scale - top).
struct Normalizer {
    float top, total;
    Normalizer(const float* z, int64_t count, float scale) : top(z[0]), total(0) {
        for (int64_t v = 1; v < count; v++) top = std::max(top, z[v]);
        top *= scale;
        for (int64_t v = 0; v < count; v++) total += exp_nonpositive(z[v] * scale - top);
    }
};

// Log-probabilities of targets and entropies (rows) from logits (rows, vocabulary), and the gradient of each row's
// log-probability for its logits, onehot - softmax, before the temperature.
template <typename T>
void logits_log_probs(const float* logits, const int64_t* targets, float temperature, float* log_probs, float* entropies,
                      T* slopes, int64_t rows, int64_t vocabulary) {
    const float scale = 1.0f / temperature;
    for (int64_t r = 0; r < rows; r++, logits += vocabulary, slopes += vocabulary) {
        const Normalizer all(logits, vocabulary, scale);
        const float inverse = 1.0f / all.total, log_total = std::log(all.total);
        float weighted = 0;
        for (int64_t v = 0; v < vocabulary; v++) {
            const float below = logits[v] * scale - all.top, p = inverse * exp_nonpositive(below);
            weighted += p * below;
            store(slopes + v, -scale * p);
        }
        const float target = logits[targets[r]] * scale - all.top;
        log_probs[r] = target - log_total;
        entropies[r] = log_total - weighted;
        store(slopes + targets[r], scale * (1.0f - inverse * exp_nonpositive(target)));
    }
}

// KL(base || policy) (rows) from logits of both (rows, vocabulary), and its gradient for those of the policy.
template <typename T>
void logits_divergence(const float* base, const float* policy, float* divergences, T* slopes, int64_t rows, int64_t vocabulary) {
    for (int64_t r = 0; r < rows; r++, base += vocabulary, policy += vocabulary, slopes += vocabulary) {
        const Normalizer b(base, vocabulary, 1.0f), p(policy, vocabulary, 1.0f);
        const float inverse = 1.0f / b.total, policy_inverse = 1.0f / p.total;
        float weighted = 0;
        for (int64_t v = 0; v < vocabulary; v++) {
            const float of_base = base[v] - b.top, of_policy = policy[v] - p.top;
            const float base_p = inverse * exp_nonpositive(of_base);
            weighted += base_p * (of_base - of_policy);
            store(slopes + v, policy_inverse * exp_nonpositive(of_policy) - base_p);
        }
        divergences[r] = weighted - std::log(b.total) + std::log(p.total);
    }
}

}  // namespace

// Exported once for each type of activations.
#define EXPORT_FOR(T, SUFFIX)                                                                                                  \
    extern "C" void spoutnik_log_probs_forward_##SUFFIX(const T* hidden, const T* weight, const int64_t* targets,              \
                                                        float temperature, float* log_probs, float* entropies,                 \
                                                        float* normalizers, int64_t rows, int64_t width, int64_t vocabulary) { \
        log_probs_forward(hidden, weight, targets, temperature, log_probs, entropies, normalizers, rows, width, vocabulary);   \
    }                                                                                                                          \
    extern "C" void spoutnik_log_probs_backward_##SUFFIX(const float* grad, const T* hidden, const T* weight,                  \
                                                         const int64_t* targets, const float* normalizers, float temperature,  \
                                                         T* logits_grad, int64_t rows, int64_t width, int64_t vocabulary) {    \
        log_probs_backward(grad, hidden, weight, targets, normalizers, temperature, logits_grad, rows, width, vocabulary);     \
    }                                                                                                                          \
    extern "C" void spoutnik_logits_log_probs_##SUFFIX(const float* logits, const int64_t* targets, float temperature,         \
                                                       float* log_probs, float* entropies, T* slopes, int64_t rows,            \
                                                       int64_t vocabulary) {                                                   \
        logits_log_probs(logits, targets, temperature, log_probs, entropies, slopes, rows, vocabulary);                        \
    }                                                                                                                          \
    extern "C" void spoutnik_logits_divergence_##SUFFIX(const float* base, const float* policy, float* divergences, T* slopes, \
                                                        int64_t rows, int64_t vocabulary) {                                    \
        logits_divergence(base, policy, divergences, slopes, rows, vocabulary);                                                \
    }

EXPORT_FOR(float, float32)
EXPORT_FOR(bf16, bfloat16)
