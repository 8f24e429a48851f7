// Attention for training, forward and backward, with the rotary embedding. Plain twin: model/attention.py. Sums, statistics
// and everything inside a kernel are float, whatever the type T of activations.
#include "train_tile.h"

namespace {

constexpr int64_t ROW_MULTIPLE = std::max(TILE, LANES);  // documents are padded to multiples of this

}  // namespace

extern "C" {

// Mirrored by structs.py. Causal attention inside each document of a packed stream. A head's query is `nope` plain numbers
// followed by `rope` rotated ones; so is its key, the plain ones from k_nope, the rotated ones from k_rope, which all groups
// share where k_rope_head is 0 (MLA). Strides are distances between tokens, *_head between heads or groups, in numbers.
// A beginning that several documents have in common may stand in the stream once: it is a document of its own, and what follows
// it in each, right behind it, sees it before itself (model/shared_prefixes.py).
struct Attention {
    const void *q, *k_nope, *k_rope, *v;
    int64_t q_stride, k_nope_stride, k_nope_head, k_rope_stride, k_rope_head, v_stride, v_head;
    int64_t heads, groups, nope, rope, value, documents, interleaved;
    const int64_t* lengths;   // (documents)
    const int64_t* before;    // (documents): the number of the beginning that it follows, its own if none; null if there are none
    const float* rotary;      // (T, 2, rope / 2): cosines and sines of each token's position
    float scale;
};

}

SPOUTNIK_LAYOUT(Attention, scale)

namespace {

// Rotates (first, second) by `half` angles; STRIDE 2: interleaved pairs. Pointers do not overlap, so the loop vectorizes.
template <int64_t STRIDE, typename T>
inline void rotate_pairs(const T* __restrict first, const T* __restrict second, const float* __restrict cos,
                         const float* __restrict sin, int64_t half, float sign, T* __restrict to_first,
                         T* __restrict to_second) {
    for (int64_t i = 0; i < half; i++) {
        const float a = to_float(first[STRIDE * i]), b = to_float(second[STRIDE * i]), s = sign * sin[i];
        store(to_first + STRIDE * i, a * cos[i] - b * s);
        store(to_second + STRIDE * i, a * s + b * cos[i]);
    }
}

// Rotates `width` numbers by the angles of the token; by their opposites with sign -1.
template <typename T>
inline void rotate(const T* from, const float* rotary, int64_t width, bool interleaved, float sign, T* to) {
    const int64_t half = width / 2;
    if (interleaved) rotate_pairs<2>(from, from + 1, rotary, rotary + half, half, sign, to, to + 1);
    else rotate_pairs<1>(from, from + half, rotary, rotary + half, half, sign, to, to + half);
}

// What a document sees: `prefix` tokens of a beginning, from `before` on in the stream, then its own `length`, from `start` on.
struct Span {
    int64_t before = 0, prefix = 0, start = 0, length = 0;

    int64_t seen() const { return prefix + length; }
    int64_t token(int64_t i) const { return i < prefix ? before + i : start + i - prefix; }

    // From the span of one document to that of the next; -1 is before the first.
    void next(const Attention& a, int64_t document) {
        start += length, length = a.lengths[document];
        if (follows(a, document)) prefix = a.lengths[a.before[document]];
        else before = start, prefix = 0;
    }

    static bool follows(const Attention& a, int64_t document) { return a.before && a.before[document] != document; }
};

// Gradients of keys (tokens, groups, width) and values (tokens, groups, value).
struct KeyGradients {
    std::vector<float> k, v;

    void resize(const Attention& a, int64_t tokens) {
        k.resize(tokens * a.groups * (a.nope + a.rope)), v.resize(tokens * a.groups * a.value);
    }
};

// Queries of one document and head, the keys and values that they see, rows padded with zeros, and their packed forms. Rows
// are the tokens that it sees; queries of the beginning are zeros, and those before the row `first` are never read.
template <typename T>
struct Head {
    Span span;
    int64_t length = 0, first = 0, rows = 0, width = 0, value = 0;
    std::vector<T> q, k, v, out_grad, key_rows, key_columns, value_rows, value_columns, query_columns, grad_columns, p, s,
        p_columns, s_columns;
    std::vector<float> tile, other, sums, k_sums, v_sums;

    void resize(const Attention& a) {
        length = span.seen(), rows = round_up(length, ROW_MULTIPLE), width = a.nope + a.rope, value = a.value;
        first = span.prefix / ROW_MULTIPLE * ROW_MULTIPLE;
        const int64_t w = round_up(width, LANES), e = round_up(value, LANES);
        for (auto* buffer : {&q, &k}) buffer->resize(rows * width);
        for (auto* buffer : {&v, &out_grad}) buffer->resize(rows * value);
        for (auto* buffer : {&key_rows, &key_columns, &query_columns}) buffer->resize(rows * w);
        for (auto* buffer : {&value_rows, &value_columns, &grad_columns}) buffer->resize(rows * e);
        p.resize(TILE * rows), s.resize(TILE * rows), tile.resize(TILE * rows), other.resize(TILE * rows);
        sums.resize(TILE * std::max(w, e));
    }

    void read_query(const Attention& a, int64_t head) {
        std::fill(q.begin(), q.begin() + span.prefix * width, T(0));
        for (int64_t i = span.prefix; i < length; i++) {
            const int64_t t = span.token(i);
            const T* from = static_cast<const T*>(a.q) + t * a.q_stride + head * width;
            std::copy_n(from, a.nope, q.data() + i * width);
            rotate(from + a.nope, a.rotary + t * a.rope, a.rope, a.interleaved, 1.0f, q.data() + i * width + a.nope);
        }
        std::fill(q.begin() + length * width, q.begin() + rows * width, T(0));
    }

    void read_key_value(const Attention& a, int64_t group) {
        for (int64_t i = 0; i < length; i++) {
            const int64_t t = span.token(i);
            if (a.nope)
                std::copy_n(static_cast<const T*>(a.k_nope) + t * a.k_nope_stride + group * a.k_nope_head, a.nope,
                            k.data() + i * width);
            rotate(static_cast<const T*>(a.k_rope) + t * a.k_rope_stride + group * a.k_rope_head, a.rotary + t * a.rope, a.rope,
                    a.interleaved, 1.0f, k.data() + i * width + a.nope);
            std::copy_n(static_cast<const T*>(a.v) + t * a.v_stride + group * a.v_head, value, v.data() + i * value);
        }
        std::fill(k.begin() + length * width, k.begin() + rows * width, T(0));
        std::fill(v.begin() + length * value, v.begin() + rows * value, T(0));
        pack_rows(k.data(), 0, rows, width, key_rows.data());
    }

    bool is_query(int64_t row) const { return row >= span.prefix && row < length; }

    // Scores of TILE queries from `row` on against the keys they see, in whole blocks: (TILE, seen) with distance `rows`.
    int64_t scores(int64_t row) {
        const int64_t seen = std::min(round_up(row + TILE, ROW_MULTIPLE), rows);
        multiply_into(q.data() + row * width, width, 0, width, key_rows.data(), width, seen, tile.data(), rows);
        return seen;
    }
};

// out (T, heads, value); normalizers (T, heads): log of the sum of exponentials, for the backward pass.
template <typename T>
void attention_forward(const Attention& a, T* out, float* normalizers) {
    thread_local Head<T> h;
    h.span = {};
    for (int64_t document = 0; document < a.documents; document++) {
        h.span.next(a, document);
        h.resize(a);
        const int64_t e = round_up(h.value, LANES);
        for (int64_t head = 0; head < a.heads; head++) {
            const int64_t per_group = a.heads / a.groups;
            if (head % per_group == 0) {
                h.read_key_value(a, head / per_group);
                pack_columns(h.v.data(), 0, h.value, h.rows, h.value, h.value_columns.data());
            }
            h.read_query(a, head);
            for (int64_t row = h.first; row < h.length; row += TILE) {
                const int64_t seen = h.scores(row);
                for (int64_t r = 0; r < TILE; r++) {
                    float* z = h.tile.data() + r * h.rows;
                    T* p = h.p.data() + r * h.rows;
                    const int64_t visible = std::min(row + r, h.length - 1) + 1;
                    float top = z[0], total = 0;
                    for (int64_t j = 1; j < visible; j++) top = std::max(top, z[j]);
                    for (int64_t j = 0; j < visible; j++) total += z[j] = exp_nonpositive((z[j] - top) * a.scale);
                    const float inverse = 1.0f / total;
                    for (int64_t j = 0; j < visible; j++) store(p + j, z[j] * inverse);
                    std::fill(p + visible, p + seen, T(0));
                    if (h.is_query(row + r))
                        normalizers[h.span.token(row + r) * a.heads + head] = top * a.scale + std::log(total);
                }
                multiply_into(h.p.data(), h.rows, 0, seen, h.value_columns.data(), h.rows, e, h.sums.data(), e);
                for (int64_t r = 0; r < TILE; r++)
                    if (h.is_query(row + r))
                        store_floats(out + (h.span.token(row + r) * a.heads + head) * h.value, h.sums.data() + r * e, h.value);
            }
        }
    }
}

// Gradients laid out as (T, groups, nope), (T, groups or 1, rope), (T, groups, value), of as many tokens from `start` on.
template <typename T>
void store_key_gradients(const Attention& a, const KeyGradients& sums, int64_t start, int64_t tokens, T* k_nope_grad,
                         T* k_rope_grad, T* v_grad) {
    thread_local std::vector<T> line;
    thread_local std::vector<float> shared;
    line.resize(a.rope);
    for (int64_t t = start; t < start + tokens; t++) {
        shared.assign(a.rope, 0.0f);
        for (int64_t group = 0; group < a.groups; group++) {
            const int64_t from = (t - start) * a.groups + group, to = t * a.groups + group;
            const float* k = sums.k.data() + from * (a.nope + a.rope);
            if (a.nope) store_floats(k_nope_grad + to * a.nope, k, a.nope);
            store_floats(v_grad + to * a.value, sums.v.data() + from * a.value, a.value);
            if (a.k_rope_head == 0) {
                for (int64_t j = 0; j < a.rope; j++) shared[j] += k[a.nope + j];
            } else {
                store_floats(line.data(), k + a.nope, a.rope);
                rotate(line.data(), a.rotary + t * a.rope, a.rope, a.interleaved, -1.0f, k_rope_grad + to * a.rope);
            }
        }
        if (a.k_rope_head) continue;
        store_floats(line.data(), shared.data(), a.rope);
        rotate(line.data(), a.rotary + t * a.rope, a.rope, a.interleaved, -1.0f, k_rope_grad + t * a.rope);
    }
}

// Gradients of a document's queries (T, heads, width), and of the keys and values that they see: those of its own tokens are
// written to `own`, those of the beginning are added to `begun`.
template <typename T>
void document_backward(const Attention& a, Head<T>& h, const T* out_grad, const T* out, const float* normalizers, T* q_grad,
                       KeyGradients& own, KeyGradients& begun) {
    thread_local std::vector<T> line;
    const int64_t per_group = a.heads / a.groups, rows = h.rows;
    const int64_t w = round_up(h.width, LANES), e = round_up(h.value, LANES);
    h.k_sums.resize(rows * w), h.v_sums.resize(rows * e);
    h.p_columns.resize(rows * rows), h.s_columns.resize(rows * rows);
    line.resize(h.width);
    for (int64_t head = 0; head < a.heads; head++) {
        const int64_t group = head / per_group;
        if (head % per_group == 0) {
            h.read_key_value(a, group);
            pack_rows(h.v.data(), 0, rows, h.value, h.value_rows.data());
            pack_columns(h.k.data(), 0, h.width, rows, h.width, h.key_columns.data());
            std::fill(h.k_sums.begin(), h.k_sums.end(), 0.0f);
            std::fill(h.v_sums.begin(), h.v_sums.end(), 0.0f);
        }
        h.read_query(a, head);
        std::fill(h.out_grad.begin(), h.out_grad.begin() + h.span.prefix * h.value, T(0));
        for (int64_t i = h.span.prefix; i < h.length; i++)
            std::copy_n(out_grad + (h.span.token(i) * a.heads + head) * h.value, h.value, h.out_grad.data() + i * h.value);
        std::fill(h.out_grad.begin() + h.length * h.value, h.out_grad.begin() + rows * h.value, T(0));
        pack_columns(h.q.data(), 0, h.width, rows, h.width, h.query_columns.data());
        pack_columns(h.out_grad.data(), 0, h.value, rows, h.value, h.grad_columns.data());
        for (int64_t row = h.first; row < rows; row += TILE) {
            const int64_t seen = h.scores(row);
            multiply_into(h.out_grad.data() + row * h.value, h.value, 0, h.value, h.value_rows.data(), h.value, seen,
                         h.other.data(), rows);
            for (int64_t r = 0; r < TILE; r++) {
                float *z = h.tile.data() + r * rows, *d = h.other.data() + r * rows;
                T *p = h.p.data() + r * rows, *s = h.s.data() + r * rows;
                int64_t visible = 0;
                if (h.is_query(row + r)) {
                    const int64_t at = h.span.token(row + r) * a.heads + head;
                    const float normalizer = normalizers[at];
                    float mean = 0;  // sum of p times its gradient, which is out . out_grad
                    for (int64_t i = 0; i < h.value; i++)
                        mean += to_float(out[at * h.value + i]) * to_float(out_grad[at * h.value + i]);
                    visible = row + r + 1;
                    for (int64_t j = 0; j < visible; j++) {
                        const float probability = exp_nonpositive(std::min(z[j] * a.scale - normalizer, 0.0f));
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
            multiply_into(h.s.data(), rows, 0, seen, h.key_columns.data(), rows, w, h.sums.data(), w);
            for (int64_t r = 0; r < TILE; r++) {
                if (!h.is_query(row + r)) continue;
                const int64_t t = h.span.token(row + r);
                T* to = q_grad + (t * a.heads + head) * h.width;
                store_floats(to, h.sums.data() + r * w, h.width);
                std::copy_n(to, h.width, line.data());
                rotate(line.data() + a.nope, a.rotary + t * a.rope, a.rope, a.interleaved, -1.0f, to + a.nope);
            }
        }
        for (int64_t row = 0; row < rows; row += TILE) {  // here rows are keys, inputs the queries that see them
            const int64_t first = std::max(row / ROW_MULTIPLE * ROW_MULTIPLE, h.first);
            multiply_into(h.s_columns.data() + row * rows, rows, first, rows, h.query_columns.data(), rows, w,
                         h.k_sums.data() + row * w, w, true);
            multiply_into(h.p_columns.data() + row * rows, rows, first, rows, h.grad_columns.data(), rows, e,
                         h.v_sums.data() + row * e, e, true);
        }
        if ((head + 1) % per_group) continue;
        for (int64_t i = 0; i < h.length; i++) {
            const float *k = h.k_sums.data() + i * w, *v = h.v_sums.data() + i * e;
            if (i >= h.span.prefix) {
                const int64_t at = (i - h.span.prefix) * a.groups + group;
                std::copy_n(k, h.width, own.k.data() + at * h.width);
                std::copy_n(v, h.value, own.v.data() + at * h.value);
            } else {
                const int64_t at = i * a.groups + group;
                float *to_k = begun.k.data() + at * h.width, *to_v = begun.v.data() + at * h.value;
                for (int64_t j = 0; j < h.width; j++) to_k[j] += k[j];
                for (int64_t j = 0; j < h.value; j++) to_v[j] += v[j];
            }
        }
    }
}

template <typename T>
void attention_backward(const Attention& a, const T* out_grad, const T* out, const float* normalizers, T* q_grad,
                        T* k_nope_grad, T* k_rope_grad, T* v_grad) {
    thread_local Head<T> h;
    thread_local KeyGradients own, begun;
    h.span = {};
    for (int64_t document = 0; document < a.documents; document++) {
        h.span.next(a, document);
        h.resize(a);
        own.resize(a, h.span.length);
        document_backward(a, h, out_grad, out, normalizers, q_grad, own, begun);
        const bool is_followed = document + 1 < a.documents && Span::follows(a, document + 1);
        if (is_followed && !h.span.prefix) {
            std::swap(own, begun);  // what follows adds to it
            continue;
        }
        store_key_gradients(a, own, h.span.start, h.span.length, k_nope_grad, k_rope_grad, v_grad);
        if (h.span.prefix && !is_followed)
            store_key_gradients(a, begun, h.span.before, h.span.prefix, k_nope_grad, k_rope_grad, v_grad);
    }
}

}  // namespace

// Exported once for each type of activations.
#define EXPORT_FOR(T, SUFFIX)                                                                                                  \
    extern "C" void spoutnik_attention_forward_##SUFFIX(const Attention* a, T* out, float* normalizers) {                      \
        attention_forward(*a, out, normalizers);                                                                               \
    }                                                                                                                          \
    extern "C" void spoutnik_attention_backward_##SUFFIX(const Attention* a, const T* out_grad, const T* out,                  \
                                                         const float* normalizers, T* q_grad, T* k_nope_grad, T* k_rope_grad,  \
                                                         T* v_grad) {                                                          \
        attention_backward(*a, out_grad, out, normalizers, q_grad, k_nope_grad, k_rope_grad, v_grad);                          \
    }

EXPORT_FOR(float, float32)
EXPORT_FOR(bf16, bfloat16)
