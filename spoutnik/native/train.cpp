// What a training step does between its matrix products, one pass over memory each: norm, SwiGLU, attention, and the head's
// log-probabilities. Forward and backward; the plain twins are in model/layers.py, model/attention.py and train/losses.py.
//
// T is the type of activations (float or bfloat16). Sums, statistics and everything inside a kernel are float.

#include "basics.h"

namespace {

constexpr int64_t TILE = 8;  // rows that share a load of packed weights
constexpr int64_t ROWS = std::max(TILE, LANES);  // attention's documents are filled up to multiples of this

inline int64_t up_to(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

template <typename T>
void widen(const T* from, int64_t n, float* to) {
    for (int64_t i = 0; i < n; i++) to[i] = to_float(from[i]);
}

// ---------------------------------------------------------------------------------------------------------- norm, SwiGLU

template <typename T>
void norm_forward(const T* x, int64_t stride, const float* weight, T* y, float* scales, int64_t rows, int64_t width, float eps) {
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

// ------------------------------------------------------------------------------------------------------------- packing

// from (out, in), its rows the outputs of a product; zeros fill up to whole blocks of outputs.
template <typename T>
void pack_rows(const T* from, int64_t out, int64_t in, T* to) {
    const int64_t lanes = in / Packed<T>::PAIR;
    using Lane = typename Packed<T>::Lane;
    auto* packed = reinterpret_cast<Lane*>(to);
    auto* rows = reinterpret_cast<const Lane*>(from);
    for (int64_t b = 0; b < out; b += LANES)
        for (int64_t o = 0; o < LANES; o++)
            for (int64_t k = 0; k < lanes; k++)
                packed[b * lanes + k * LANES + o] = b + o < out ? rows[(b + o) * lanes + k] : 0;
}

// from (in, out), its columns the outputs.
template <typename T>
void pack_columns(const T* from, int64_t in, int64_t out, T* to) {
    constexpr int64_t P = Packed<T>::PAIR;
    for (int64_t b = 0; b < out; b += LANES)
        for (int64_t k = 0; k < in; k += P) {
            T* block = to + b * in + k * LANES;
            const int64_t count = std::min(LANES, out - b);
            if (count < LANES) std::fill(block, block + LANES * P, T(0));
            for (int64_t o = 0; o < count; o++)
                for (int64_t i = 0; i < P; i++) block[o * P + i] = from[(k + i) * out + b + o];
        }
}

// y (TILE rows, y_stride apart) = the products of TILE rows of x with packed weights; added to what is there where asked.
template <typename T>
void tile_into(const T* x, int64_t stride, int64_t first, int64_t last, const T* w, int64_t in, int64_t out, float* y,
               int64_t y_stride, bool add = false) {
    tile_product<TILE>(x, stride, first, last, w, in, out, [=](int r, int64_t o, floats sums) {
        float* to = y + r * y_stride + o;
        if (add) sums += load<floats>(to);
        std::memcpy(to, &sums, sizeof sums);
    });
}

// ------------------------------------------------------------------------------------------- the head's log-probabilities

// The logits over the temperature, TILE rows at a time; the head is packed once.
template <typename T>
struct Logits {
    const T* hidden;
    const int64_t rows, width, vocabulary, stride;  // stride: from row to row of a tile
    const float scale;
    std::vector<T> head, copy;
    std::vector<float> tile;

    Logits(const T* hidden, const T* weight, float temperature, int64_t rows, int64_t width, int64_t vocabulary)
        : hidden(hidden), rows(rows), width(width), vocabulary(vocabulary), stride(up_to(vocabulary, LANES)),
          scale(1.0f / temperature), head(stride * width), copy(TILE * width), tile(TILE * stride) {
        pack_rows(weight, vocabulary, width, head.data());
    }

    // (TILE, stride), of rows from `row` on; those past the last are read as the last.
    const float* from(int64_t row) {
        const T* x = hidden + row * width;
        if (row + TILE > rows) {
            for (int64_t r = 0; r < TILE; r++) std::copy_n(hidden + std::min(row + r, rows - 1) * width, width, copy.data() + r * width);
            x = copy.data();
        }
        tile_into(x, width, 0, width, head.data(), width, stride, tile.data(), stride);
        for (float& z : tile) z *= scale;
        return tile.data();
    }
};

template <typename T>
void log_probs_forward(const T* hidden, const T* weight, const int64_t* targets, float temperature, float* log_probs,
                       float* entropies, float* normalisers, int64_t rows, int64_t width, int64_t vocabulary) {
    Logits<T> logits(hidden, weight, temperature, rows, width, vocabulary);
    for (int64_t row = 0; row < rows; row += TILE) {
        const float* z = logits.from(row);
        for (int64_t r = row; r < std::min(row + TILE, rows); r++, z += logits.stride) {
            float top = z[0], total = 0, weighted = 0;
            for (int64_t v = 1; v < vocabulary; v++) top = std::max(top, z[v]);
            for (int64_t v = 0; v < vocabulary; v++) {
                const float e = exp_negative(z[v] - top);
                total += e;
                weighted += e * (z[v] - top);
            }
            const float log_total = std::log(total);
            normalisers[r] = top + log_total;
            log_probs[r] = z[targets[r]] - top - log_total;
            entropies[r] = log_total - weighted / total;
        }
    }
}

// grad (rows) of the log-probabilities to the gradient of the logits (rows, vocabulary), before the temperature.
template <typename T>
void log_probs_backward(const float* grad, const T* hidden, const T* weight, const int64_t* targets, const float* normalisers,
                        float temperature, T* logits_grad, int64_t rows, int64_t width, int64_t vocabulary) {
    Logits<T> logits(hidden, weight, temperature, rows, width, vocabulary);
    for (int64_t row = 0; row < rows; row += TILE) {
        const float* z = logits.from(row);
        for (int64_t r = row; r < std::min(row + TILE, rows); r++, z += logits.stride) {
            const float g = grad[r] / temperature, normaliser = normalisers[r];
            T* to = logits_grad + r * vocabulary;
            for (int64_t v = 0; v < vocabulary; v++) store(to + v, -g * exp_negative(std::min(z[v] - normaliser, 0.0f)));
            const float p = exp_negative(std::min(z[targets[r]] - normaliser, 0.0f));
            store(to + targets[r], g * (1.0f - p));
        }
    }
}

// ----------------------------------------------------------------------------------------------------------- attention

}  // namespace

extern "C" {

// Mirrored by structs.py. Causal attention inside each document of a packed stream. A head's query is `nope` plain numbers
// followed by `rope` rotated ones; so is its key, the plain ones from k_nope, the rotated ones from k_rope, which all groups
// share where k_rope_head is 0 (MLA). Strides are distances between tokens, *_head between heads or groups, in numbers.
struct Attention {
    const void *q, *k_nope, *k_rope, *v;
    int64_t q_stride, k_nope_stride, k_nope_head, k_rope_stride, k_rope_head, v_stride, v_head;
    int64_t heads, groups, nope, rope, value, documents, interleaved;
    const int64_t* lengths;   // (documents)
    const float* rotary;      // (T, 2, rope / 2): cosines and sines of each token's position
    float scale;
};

}

SPOUTNIK_LAYOUT(Attention, scale)

namespace {

// (first, second) turned by `half` angles; strides tell the two layouts apart. Pointers do not overlap, so the loop vectorises.
template <int64_t STRIDE, typename T>
inline void turn(const T* __restrict first, const T* __restrict second, const float* __restrict cos, const float* __restrict sin,
                 int64_t half, float sign, T* __restrict to_first, T* __restrict to_second) {
    for (int64_t i = 0; i < half; i++) {
        const float a = to_float(first[STRIDE * i]), b = to_float(second[STRIDE * i]), s = sign * sin[i];
        store(to_first + STRIDE * i, a * cos[i] - b * s);
        store(to_second + STRIDE * i, a * s + b * cos[i]);
    }
}

// Rotates `width` numbers by the token's angles; backwards with sign -1.
template <typename T>
inline void rotated(const T* from, const float* rotary, int64_t width, bool interleaved, float sign, T* to) {
    const int64_t half = width / 2;
    if (interleaved) turn<2>(from, from + 1, rotary, rotary + half, half, sign, to, to + 1);
    else turn<1>(from, from + half, rotary, rotary + half, half, sign, to, to + half);
}

// One document's queries, keys and values of one head, rows filled up with zeros, and what products need.
template <typename T>
struct Head {
    int64_t length = 0, rows = 0, width = 0, value = 0;
    std::vector<T> q, k, v, out_grad, key_rows, key_columns, value_rows, value_columns, query_columns, grad_columns, p, s,
        p_columns, s_columns;
    std::vector<float> tile, other, sums, k_sums, v_sums, shared_sums;

    void resize(int64_t tokens, const Attention& a) {
        length = tokens, rows = up_to(tokens, ROWS), width = a.nope + a.rope, value = a.value;
        const int64_t w = up_to(width, LANES), e = up_to(value, LANES);
        for (auto* buffer : {&q, &k}) buffer->resize(rows * width);
        for (auto* buffer : {&v, &out_grad}) buffer->resize(rows * value);
        for (auto* buffer : {&key_rows, &key_columns, &query_columns}) buffer->resize(rows * w);
        for (auto* buffer : {&value_rows, &value_columns, &grad_columns}) buffer->resize(rows * e);
        p.resize(TILE * rows), s.resize(TILE * rows), tile.resize(TILE * rows), other.resize(TILE * rows);
        sums.resize(TILE * std::max(w, e));
    }

    void read_query(const Attention& a, int64_t start, int64_t head) {
        for (int64_t i = 0; i < length; i++) {
            const T* from = static_cast<const T*>(a.q) + (start + i) * a.q_stride + head * width;
            std::copy_n(from, a.nope, q.data() + i * width);
            rotated(from + a.nope, a.rotary + (start + i) * a.rope, a.rope, a.interleaved, 1.0f, q.data() + i * width + a.nope);
        }
        std::fill(q.begin() + length * width, q.begin() + rows * width, T(0));
    }

    void read_key_value(const Attention& a, int64_t start, int64_t group) {
        for (int64_t i = 0; i < length; i++) {
            const int64_t t = start + i;
            if (a.nope)
                std::copy_n(static_cast<const T*>(a.k_nope) + t * a.k_nope_stride + group * a.k_nope_head, a.nope,
                            k.data() + i * width);
            rotated(static_cast<const T*>(a.k_rope) + t * a.k_rope_stride + group * a.k_rope_head, a.rotary + t * a.rope, a.rope,
                    a.interleaved, 1.0f, k.data() + i * width + a.nope);
            std::copy_n(static_cast<const T*>(a.v) + t * a.v_stride + group * a.v_head, value, v.data() + i * value);
        }
        std::fill(k.begin() + length * width, k.begin() + rows * width, T(0));
        std::fill(v.begin() + length * value, v.begin() + rows * value, T(0));
        pack_rows(k.data(), rows, width, key_rows.data());
    }

    // Scores of TILE queries from `row` on against the keys they see, in whole blocks: (TILE, seen) with distance `rows`.
    int64_t scores(int64_t row) {
        const int64_t seen = std::min(up_to(row + TILE, ROWS), rows);
        tile_into(q.data() + row * width, width, 0, width, key_rows.data(), width, seen, tile.data(), rows);
        return seen;
    }
};

// out (T, heads, value); normalisers (T, heads): log of the sum of exponentials, for the backward pass.
template <typename T>
void attention_forward(const Attention& a, T* out, float* normalisers) {
    thread_local Head<T> h;
    int64_t start = 0;
    for (int64_t document = 0; document < a.documents; start += a.lengths[document++]) {
        h.resize(a.lengths[document], a);
        const int64_t e = up_to(h.value, LANES);
        for (int64_t head = 0; head < a.heads; head++) {
            const int64_t per_group = a.heads / a.groups;
            if (head % per_group == 0) {
                h.read_key_value(a, start, head / per_group);
                pack_columns(h.v.data(), h.rows, h.value, h.value_columns.data());
            }
            h.read_query(a, start, head);
            for (int64_t row = 0; row < h.length; row += TILE) {
                const int64_t seen = h.scores(row);
                for (int64_t r = 0; r < TILE; r++) {
                    float* z = h.tile.data() + r * h.rows;
                    T* p = h.p.data() + r * h.rows;
                    const int64_t visible = std::min(row + r, h.length - 1) + 1;
                    float top = z[0], total = 0;
                    for (int64_t j = 1; j < visible; j++) top = std::max(top, z[j]);
                    for (int64_t j = 0; j < visible; j++) total += z[j] = exp_negative((z[j] - top) * a.scale);
                    const float inverse = 1.0f / total;
                    for (int64_t j = 0; j < visible; j++) store(p + j, z[j] * inverse);
                    std::fill(p + visible, p + seen, T(0));
                    if (row + r < h.length) normalisers[(start + row + r) * a.heads + head] = top * a.scale + std::log(total);
                }
                tile_into(h.p.data(), h.rows, 0, seen, h.value_columns.data(), h.rows, e, h.sums.data(), e);
                for (int64_t r = 0; r < std::min(TILE, h.length - row); r++)
                    store_all(out + ((start + row + r) * a.heads + head) * h.value, h.sums.data() + r * e, h.value);
            }
        }
    }
}

// Gradients laid out as (T, heads, width), (T, groups, nope), (T, groups or 1, rope), (T, groups, value).
template <typename T>
void attention_backward(const Attention& a, const T* out_grad, const T* out, const float* normalisers, T* q_grad,
                        T* k_nope_grad, T* k_rope_grad, T* v_grad) {
    thread_local Head<T> h;
    thread_local std::vector<T> line;
    const int64_t per_group = a.heads / a.groups;
    int64_t start = 0;
    for (int64_t document = 0; document < a.documents; start += a.lengths[document++]) {
        h.resize(a.lengths[document], a);
        const int64_t w = up_to(h.width, LANES), e = up_to(h.value, LANES), rows = h.rows;
        h.k_sums.resize(rows * w), h.v_sums.resize(rows * e), h.shared_sums.assign(h.length * a.rope, 0.0f);
        h.p_columns.resize(rows * rows), h.s_columns.resize(rows * rows);
        line.resize(h.width);
        for (int64_t head = 0; head < a.heads; head++) {
            const int64_t group = head / per_group;
            if (head % per_group == 0) {
                h.read_key_value(a, start, group);
                pack_rows(h.v.data(), rows, h.value, h.value_rows.data());
                pack_columns(h.k.data(), rows, h.width, h.key_columns.data());
                std::fill(h.k_sums.begin(), h.k_sums.end(), 0.0f);
                std::fill(h.v_sums.begin(), h.v_sums.end(), 0.0f);
            }
            h.read_query(a, start, head);
            for (int64_t i = 0; i < h.length; i++)
                std::copy_n(out_grad + ((start + i) * a.heads + head) * h.value, h.value, h.out_grad.data() + i * h.value);
            std::fill(h.out_grad.begin() + h.length * h.value, h.out_grad.begin() + rows * h.value, T(0));
            pack_columns(h.q.data(), rows, h.width, h.query_columns.data());
            pack_columns(h.out_grad.data(), rows, h.value, h.grad_columns.data());
            for (int64_t row = 0; row < rows; row += TILE) {
                const int64_t seen = h.scores(row);
                tile_into(h.out_grad.data() + row * h.value, h.value, 0, h.value, h.value_rows.data(), h.value, seen,
                             h.other.data(), rows);
                for (int64_t r = 0; r < TILE; r++) {
                    float *z = h.tile.data() + r * rows, *d = h.other.data() + r * rows;
                    T *p = h.p.data() + r * rows, *s = h.s.data() + r * rows;
                    int64_t visible = 0;
                    if (row + r < h.length) {
                        const int64_t at = (start + row + r) * a.heads + head;
                        const float normaliser = normalisers[at];
                        float mean = 0;  // sum of p times its gradient, which is out . out_grad
                        for (int64_t i = 0; i < h.value; i++) mean += to_float(out[at * h.value + i]) * to_float(out_grad[at * h.value + i]);
                        visible = row + r + 1;
                        for (int64_t j = 0; j < visible; j++) {
                            const float probability = exp_negative(std::min(z[j] * a.scale - normaliser, 0.0f));
                            store(p + j, probability);
                            store(s + j, probability * (d[j] - mean) * a.scale);
                        }
                    }
                    std::fill(p + visible, p + seen, T(0));
                    std::fill(s + visible, s + seen, T(0));
                }
                for (int64_t j = 0; j < seen; j++)
                    for (int64_t r = 0; r < TILE; r++) {
                        h.p_columns[j * rows + row + r] = h.p[r * rows + j];
                        h.s_columns[j * rows + row + r] = h.s[r * rows + j];
                    }
                if (row >= h.length) continue;
                tile_into(h.s.data(), rows, 0, seen, h.key_columns.data(), rows, w, h.sums.data(), w);
                for (int64_t r = 0; r < std::min(TILE, h.length - row); r++) {
                    T* to = q_grad + ((start + row + r) * a.heads + head) * h.width;
                    store_all(to, h.sums.data() + r * w, h.width);
                    std::copy_n(to, h.width, line.data());
                    rotated(line.data() + a.nope, a.rotary + (start + row + r) * a.rope, a.rope, a.interleaved, -1.0f, to + a.nope);
                }
            }
            for (int64_t row = 0; row < rows; row += TILE) {  // here rows are keys, inputs the queries that see them
                const int64_t first = row / ROWS * ROWS;
                tile_into(h.s_columns.data() + row * rows, rows, first, rows, h.query_columns.data(), rows, w,
                             h.k_sums.data() + row * w, w, true);
                tile_into(h.p_columns.data() + row * rows, rows, first, rows, h.grad_columns.data(), rows, e,
                             h.v_sums.data() + row * e, e, true);
            }
            if ((head + 1) % per_group) continue;
            for (int64_t i = 0; i < h.length; i++) {
                const int64_t t = start + i;
                const float* sums = h.k_sums.data() + i * w;
                if (a.nope) store_all(k_nope_grad + (t * a.groups + group) * a.nope, sums, a.nope);
                store_all(v_grad + (t * a.groups + group) * h.value, h.v_sums.data() + i * e, h.value);
                if (a.k_rope_head == 0) {
                    for (int64_t j = 0; j < a.rope; j++) h.shared_sums[i * a.rope + j] += sums[a.nope + j];
                } else {
                    store_all(line.data(), sums + a.nope, a.rope);
                    rotated(line.data(), a.rotary + t * a.rope, a.rope, a.interleaved, -1.0f,
                            k_rope_grad + (t * a.groups + group) * a.rope);
                }
            }
        }
        if (a.k_rope_head) continue;
        for (int64_t i = 0; i < h.length; i++) {
            store_all(line.data(), h.shared_sums.data() + i * a.rope, a.rope);
            rotated(line.data(), a.rotary + (start + i) * a.rope, a.rope, a.interleaved, -1.0f, k_rope_grad + (start + i) * a.rope);
        }
    }
}

}  // namespace

// One entry of each kernel per type.
#define ENTRIES(T, SUFFIX)                                                                                                      \
    extern "C" void norm_forward_##SUFFIX(const T* x, int64_t stride, const float* weight, T* y, float* scales, int64_t rows,   \
                                          int64_t width, float eps) {                                                           \
        norm_forward(x, stride, weight, y, scales, rows, width, eps);                                                           \
    }                                                                                                                           \
    extern "C" void norm_backward_##SUFFIX(const T* grad, const T* x, int64_t stride, const float* weight,                      \
                                           const float* scales, T* x_grad, float* weight_grad, int64_t rows, int64_t width) {   \
        norm_backward(grad, x, stride, weight, scales, x_grad, weight_grad, rows, width);                                       \
    }                                                                                                                           \
    extern "C" void swiglu_forward_##SUFFIX(const T* x, T* y, int64_t rows, int64_t width) {                                    \
        swiglu_forward(x, y, rows, width);                                                                                      \
    }                                                                                                                           \
    extern "C" void swiglu_backward_##SUFFIX(const T* grad, const T* x, T* x_grad, int64_t rows, int64_t width) {               \
        swiglu_backward(grad, x, x_grad, rows, width);                                                                          \
    }                                                                                                                           \
    extern "C" void log_probs_forward_##SUFFIX(const T* hidden, const T* weight, const int64_t* targets, float temperature,     \
                                               float* log_probs, float* entropies, float* normalisers, int64_t rows,            \
                                               int64_t width, int64_t vocabulary) {                                             \
        log_probs_forward(hidden, weight, targets, temperature, log_probs, entropies, normalisers, rows, width, vocabulary);    \
    }                                                                                                                           \
    extern "C" void log_probs_backward_##SUFFIX(const float* grad, const T* hidden, const T* weight, const int64_t* targets,    \
                                                const float* normalisers, float temperature, T* logits_grad, int64_t rows,      \
                                                int64_t width, int64_t vocabulary) {                                            \
        log_probs_backward(grad, hidden, weight, targets, normalisers, temperature, logits_grad, rows, width, vocabulary);      \
    }                                                                                                                           \
    extern "C" void attention_forward_##SUFFIX(const Attention* a, T* out, float* normalisers) {                                \
        attention_forward(*a, out, normalisers);                                                                                \
    }                                                                                                                           \
    extern "C" void attention_backward_##SUFFIX(const Attention* a, const T* out_grad, const T* out, const float* normalisers,  \
                                                T* q_grad, T* k_nope_grad, T* k_rope_grad, T* v_grad) {                         \
        attention_backward(*a, out_grad, out, normalisers, q_grad, k_nope_grad, k_rope_grad, v_grad);                           \
    }

ENTRIES(float, float32)
ENTRIES(bf16, bfloat16)
