// The two inner loops of decoding that torch's CPU operators do slowly on many short rows: attention over a cache, and drawing
// the next token. Plain loops that the compiler vectorises for the machine it runs on; each has its plain twin in Python.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

inline float to_float(float x) { return x; }
inline float to_float(uint16_t bits) {  // bfloat16 is the upper half of a float
    uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float x;
    std::memcpy(&x, &wide, 4);
    return x;
}
inline void store(float* where, float x) { *where = x; }
inline void store(uint16_t* where, float x) {  // round to nearest even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    *where = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// e^x for x <= 0, to 2 units in the last place or so: exp2 by a polynomial, so that the loop around it vectorises.
inline float exp_negative(float x) {
    float t = std::max(x * 1.44269504f, -126.0f);
    float whole = std::floor(t), part = t - whole;
    float p = 1.8775767e-3f;
    p = p * part + 8.9893397e-3f;
    p = p * part + 5.5826318e-2f;
    p = p * part + 2.4015361e-1f;
    p = p * part + 6.9315308e-1f;
    p = p * part + 9.9999994e-1f;
    int32_t bits = (static_cast<int32_t>(whole) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, 4);
    return p * scale;
}

// Heads share keys and values group by group. One position's keys of group g start at g * key_width, its values at
// value_offset + g * value_width. MLA is one group whose values lie inside its keys (value_offset 0).
template <typename T>
void attend(const T* q, const T* cache, const int64_t* lengths, T* out, int64_t rows, int64_t heads, int64_t groups,
            int64_t key_width, int64_t value_width, int64_t value_offset, int64_t width, int64_t row_stride, float scale) {
    const int64_t shared = heads / groups;
    std::vector<float> queries(heads * key_width), line(std::max(key_width, value_width)), sums(shared * value_width), scores;
    for (int64_t row = 0; row < rows; row++) {
        const int64_t length = lengths[row];
        const T* entries = cache + row * row_stride;
        scores.resize(shared * length);
        for (int64_t i = 0; i < heads * key_width; i++) queries[i] = to_float(q[row * heads * key_width + i]) * scale;
        for (int64_t g = 0; g < groups; g++) {
            for (int64_t s = 0; s < length; s++) {
                const T* key = entries + s * width + g * key_width;
                for (int64_t i = 0; i < key_width; i++) line[i] = to_float(key[i]);
                for (int64_t h = 0; h < shared; h++) {
                    const float* query = queries.data() + (g * shared + h) * key_width;
                    float sum = 0;
                    for (int64_t i = 0; i < key_width; i++) sum += query[i] * line[i];
                    scores[h * length + s] = sum;
                }
            }
            for (int64_t h = 0; h < shared; h++) {
                float* p = scores.data() + h * length;
                float top = p[0], total = 0;
                for (int64_t s = 1; s < length; s++) top = std::max(top, p[s]);
                for (int64_t s = 0; s < length; s++) total += p[s] = exp_negative(p[s] - top);
                for (int64_t s = 0; s < length; s++) p[s] /= total;
            }
            std::fill(sums.begin(), sums.end(), 0.0f);
            for (int64_t s = 0; s < length; s++) {
                const T* value = entries + s * width + value_offset + g * value_width;
                for (int64_t i = 0; i < value_width; i++) line[i] = to_float(value[i]);
                for (int64_t h = 0; h < shared; h++) {
                    const float p = scores[h * length + s];
                    float* sum = sums.data() + h * value_width;
                    for (int64_t i = 0; i < value_width; i++) sum[i] += p * line[i];
                }
            }
            T* to = out + (row * heads + g * shared) * value_width;
            for (int64_t i = 0; i < shared * value_width; i++) store(to + i, sums[i]);
        }
    }
}

}  // namespace

extern "C" {

void attend_float32(const float* q, const float* cache, const int64_t* lengths, float* out, int64_t rows, int64_t heads,
                    int64_t groups, int64_t key_width, int64_t value_width, int64_t value_offset, int64_t width,
                    int64_t row_stride, float scale) {
    attend(q, cache, lengths, out, rows, heads, groups, key_width, value_width, value_offset, width, row_stride, scale);
}

void attend_bfloat16(const uint16_t* q, const uint16_t* cache, const int64_t* lengths, uint16_t* out, int64_t rows,
                     int64_t heads, int64_t groups, int64_t key_width, int64_t value_width, int64_t value_offset,
                     int64_t width, int64_t row_stride, float scale) {
    attend(q, cache, lengths, out, rows, heads, groups, key_width, value_width, value_offset, width, row_stride, scale);
}

// One token per row of logits (rows, vocabulary): the first whose cumulated probability exceeds u, and its log-probability.
void draw(const float* logits, const float* u, int64_t* tokens, float* log_probs, int64_t rows, int64_t vocabulary,
          float temperature) {
    std::vector<float> p(vocabulary);
    const float scale = 1.0f / temperature;
    for (int64_t row = 0; row < rows; row++) {
        const float* z = logits + row * vocabulary;
        float top = z[0], total = 0;
        for (int64_t i = 1; i < vocabulary; i++) top = std::max(top, z[i]);
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
        while (chosen < vocabulary - 1 && (before += p[chosen]) <= wanted) chosen++;
        while (p[chosen] == 0 && chosen > 0) chosen--;  // rounding at the very end of the distribution
        tokens[row] = chosen;
        log_probs[row] = (z[chosen] - top) * scale - std::log(total);
    }
}

}
