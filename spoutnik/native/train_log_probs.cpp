// Log-probabilities of target tokens from hidden states, without keeping the logits, forward and backward. Plain twins:
// train/losses.py.
#include "train_tile.h"

namespace {

// Logits divided by the temperature, TILE rows at a time; the weight of the head is packed once.
template <typename T>
struct Logits {
    const T* hidden;
    const int64_t rows, width, vocabulary, stride;  // stride: from row to row of a tile
    const float scale;
    std::vector<T> head, copy;
    std::vector<float> tile;

    Logits(const T* hidden, const T* weight, float temperature, int64_t rows, int64_t width, int64_t vocabulary)
        : hidden(hidden), rows(rows), width(width), vocabulary(vocabulary), stride(round_up(vocabulary, LANES)),
          scale(1.0f / temperature), head(stride * width), copy(TILE * width), tile(TILE * stride) {
        pack_rows(weight, 0, vocabulary, width, head.data());
    }

    // (TILE, stride), of rows from `row` on; those past the last are read as the last.
    const float* rows_from(int64_t row) {
        const T* x = hidden + row * width;
        if (row + TILE > rows) {
            for (int64_t r = 0; r < TILE; r++)
                std::copy_n(hidden + std::min(row + r, rows - 1) * width, width, copy.data() + r * width);
            x = copy.data();
        }
        multiply_into(x, width, 0, width, head.data(), width, stride, tile.data(), stride);
        for (float& z : tile) z *= scale;
        return tile.data();
    }
};

template <typename T>
void log_probs_forward(const T* hidden, const T* weight, const int64_t* targets, float temperature, float* log_probs,
                       float* entropies, float* normalizers, int64_t rows, int64_t width, int64_t vocabulary) {
    Logits<T> logits(hidden, weight, temperature, rows, width, vocabulary);
    for (int64_t row = 0; row < rows; row += TILE) {
        const float* z = logits.rows_from(row);
        for (int64_t r = row; r < std::min(row + TILE, rows); r++, z += logits.stride) {
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
    for (int64_t row = 0; row < rows; row += TILE) {
        const float* z = logits.rows_from(row);
        for (int64_t r = row; r < std::min(row + TILE, rows); r++, z += logits.stride) {
            const float g = grad[r] / temperature, normalizer = normalizers[r];
            T* to = logits_grad + r * vocabulary;
            for (int64_t v = 0; v < vocabulary; v++) store(to + v, -g * exp_nonpositive(std::min(z[v] - normalizer, 0.0f)));
            const float p = exp_nonpositive(std::min(z[targets[r]] - normalizer, 0.0f));
            store(to + targets[r], g * (1.0f - p));
        }
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
    }

EXPORT_FOR(float, float32)
EXPORT_FOR(bf16, bfloat16)
