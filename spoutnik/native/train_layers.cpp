// RMSNorm and SwiGLU for training, forward and backward, one pass over memory each. Plain twins: model/layers.py.
//
// T is the type of activations (float or bfloat16). Sums and everything inside a kernel are float.
#include "simd.h"

namespace {

template <typename T>
void norm_forward(const T* x, int64_t stride, const float* weight, T* y, float* scales, int64_t rows, int64_t width,
                  float eps) {
    for (int64_t r = 0; r < rows; r++) {
        const T* row = x + r * stride;
        float sum = 0;
        for (int64_t i = 0; i < width; i++) sum += to_float(row[i]) * to_float(row[i]);
        const float scale = scales[r] = 1.0f / std::sqrt(sum / width + eps);
        for (int64_t i = 0; i < width; i++) store(y + r * width + i, to_float(row[i]) * scale * weight[i]);
    }
}

// weight_grad (width) is added to.
template <typename T>
void norm_backward(const T* grad, const T* x, int64_t stride, const float* weight, const float* scales, T* x_grad,
                   float* weight_grad, int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; r++) {
        const T *row = x + r * stride, *g = grad + r * width;
        const float scale = scales[r];
        float along = 0;
        for (int64_t i = 0; i < width; i++) {
            const float slope = to_float(g[i]) * to_float(row[i]) * scale;
            along += slope * weight[i];
            weight_grad[i] += slope;
        }
        along *= scale / width;
        for (int64_t i = 0; i < width; i++)
            store(x_grad + r * width + i, scale * (to_float(g[i]) * weight[i] - to_float(row[i]) * along));
    }
}

// x (rows, 2 width): gate, then up. y (rows, width).
template <typename T>
void swiglu_forward(const T* x, T* y, int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; r++) {
        const T *gate = x + r * 2 * width, *up = gate + width;
        for (int64_t i = 0; i < width; i++) {
            const float g = to_float(gate[i]);
            store(y + r * width + i, g * sigmoid(g) * to_float(up[i]));
        }
    }
}

template <typename T>
void swiglu_backward(const T* grad, const T* x, T* x_grad, int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; r++) {
        const T *gate = x + r * 2 * width, *up = gate + width;
        T *gate_grad = x_grad + r * 2 * width, *up_grad = gate_grad + width;
        for (int64_t i = 0; i < width; i++) {
            const float g = to_float(gate[i]), s = sigmoid(g), d = to_float(grad[r * width + i]);
            store(up_grad + i, d * g * s);
            store(gate_grad + i, d * to_float(up[i]) * s * (1.0f + g * (1.0f - s)));
        }
    }
}

}  // namespace

// Exported once for each type of activations.
#define EXPORT_FOR(T, SUFFIX)                                                                                                  \
    extern "C" void spoutnik_norm_forward_##SUFFIX(const T* x, int64_t stride, const float* weight, T* y, float* scales,       \
                                                   int64_t rows, int64_t width, float eps) {                                   \
        norm_forward(x, stride, weight, y, scales, rows, width, eps);                                                          \
    }                                                                                                                          \
    extern "C" void spoutnik_norm_backward_##SUFFIX(const T* grad, const T* x, int64_t stride, const float* weight,            \
                                                    const float* scales, T* x_grad, float* weight_grad, int64_t rows,          \
                                                    int64_t width) {                                                           \
        norm_backward(grad, x, stride, weight, scales, x_grad, weight_grad, rows, width);                                      \
    }                                                                                                                          \
    extern "C" void spoutnik_swiglu_forward_##SUFFIX(const T* x, T* y, int64_t rows, int64_t width) {                          \
        swiglu_forward(x, y, rows, width);                                                                                     \
    }                                                                                                                          \
    extern "C" void spoutnik_swiglu_backward_##SUFFIX(const T* grad, const T* x, T* x_grad, int64_t rows, int64_t width) {     \
        swiglu_backward(grad, x, x_grad, rows, width);                                                                         \
    }

EXPORT_FOR(float, float32)
EXPORT_FOR(bf16, bfloat16)
