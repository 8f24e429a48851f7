// Weights in 4 bits: 32 of them as whole numbers q in [0, 15], a scale and a zero of 8 bits, w = unit * scale * (q - zero / 16).
//
// A zero of its own lets a group use all 16 numbers wherever its weights lie (llama.cpp's Q4_K), and its 16 steps between two
// numbers leave little of the error to it. Scale and zero are those, of some that stretch or clip the group's range, each also
// moved to the best line through its numbers (least squares), that leave the least error.
#pragma once

#include "packed_matrix.h"

struct Int4Group {
    uint8_t scale, zero;
    uint8_t q[GROUP_SIZE];
};

// The range of a group, which contains zero.
struct Int4Range {
    float low = 0, high = 0;
    explicit Int4Range(const float* w) {
        for (int64_t i = 0; i < GROUP_SIZE; i++) {
            low = std::min(low, w[i]);
            high = std::max(high, w[i]);
        }
    }
    float width() const { return high - low; }
};

// The scale that the group of largest range needs.
inline float widest_scale(const float* w, int64_t inputs) {
    float widest = 0;
    for (int64_t k = 0; k < inputs; k += GROUP_SIZE) widest = std::max(widest, Int4Range(w + k).width());
    return widest / 15;
}

class Int4Search {
   public:
    Int4Search(const float* w, float unit) : w(w), unit(unit) {}

    // Scales and zeros near q = 0 at `low` and steps of `scale`; kept where the error is the least so far.
    void attempt(float low, float scale) {
        for (int refinement = 0; refinement <= REFINEMENTS; refinement++) {
            const Moments m = quantize(low, scale);
            // The line w = low + scale * q of least squares.
            const float spread = GROUP_SIZE * m.qq - m.q * m.q;
            if (spread < 0.5f) return;  // all the same number
            scale = (GROUP_SIZE * m.qw - m.q * m.w) / spread;
            low = (m.w - scale * m.q) / GROUP_SIZE;
        }
    }

    Int4Group best{};

   private:
    static constexpr int REFINEMENTS = 1;
    struct Moments {
        float q = 0, qq = 0, w = 0, qw = 0;
    };

    static float clamped(float x, float least, float most) { return std::min(std::max(nan_to_zero(x), least), most); }

    Moments quantize(float low, float scale) {
        const float code = std::floor(clamped(scale / unit + 0.5f, 1, 255)), step = code * unit, inverse = 1 / step;
        const float zero = std::floor(clamped(-16 * low * inverse + 0.5f, 0, 255)), offset = zero / 16;
        int32_t q[GROUP_SIZE];
        Moments m;
        float error = 0;
        for (int64_t i = 0; i < GROUP_SIZE; i++) {
            q[i] = static_cast<int32_t>(std::min(std::max(nan_to_zero(w[i] * inverse + offset), 0.0f) + 0.5f, 15.0f));
            const float number = q[i], miss = w[i] - step * (number - offset);
            error += miss * miss;
            m.q += number;
            m.qq += number * number;
            m.w += w[i];
            m.qw += number * w[i];
        }
        if (error < least) {
            least = error;
            best.scale = static_cast<uint8_t>(code);
            best.zero = static_cast<uint8_t>(zero);
            for (int64_t i = 0; i < GROUP_SIZE; i++) best.q[i] = q[i];
        }
        return m;
    }

    const float *w, unit;
    float least = 3e38f;
};

inline Int4Group quantize_int4(const float* w, float unit) {
    const Int4Range range(w);
    if (!(unit > 0) || !(range.width() > 0)) return {};
    Int4Search search(w, unit);
    for (int step = 0; step < 8; step++) search.attempt(range.low, range.width() / (14.0f + 0.5f * step));
    return search.best;
}
