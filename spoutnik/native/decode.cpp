// One decoding step of the whole network for a batch of rows: what Transformer.decode does in Python, in one call.
//
// A nano model's step is a thousand tiny operations; in Python their overhead is most of the time. Same mathematics, same
// order, residual stream in float; the test compares logits with the Python twin's. Letters as in mla.py.

#include <numeric>

#include "attention.h"
#include "routing.h"

extern "C" {

// Mirrors engine/native_decoder.py field by field. Matrices are of type T and packed (basics.h); norms, biases and router are
// float and not packed; the two halves of kv_b are float and packed, head by head.
struct Layer {
    const void *q, *q_a, *q_b, *k, *v, *kv_a, *o;                // attention (absent ones null)
    const float *absorb_k, *absorb_v;                            // kv_b's halves: latent from nope, value from latent
    const float *q_bias, *k_bias, *v_bias;                       // grouped-query attention
    const float *input_norm, *q_norm, *kv_norm, *post_norm;
    const void *gate, *up, *down;                                // dense feed-forward, or the shared experts
    const float *router, *correction;                            // (E, D), (E); null in a dense layer
    const void *experts_gate_up, *experts_down;                  // E packed matrices each: (2I, D), (D, I)
    void* cache;                                                 // (rows, capacity, width)
};

struct Model {
    int64_t hidden, heads, groups, layers, vocabulary;
    int64_t q_rank, latent, nope, rope, value;                   // MLA; latent 0 means grouped-query attention
    int64_t feed_forward;                                        // width of gate/up where there is no router
    int64_t shared, expert, experts, chosen, n_group, topk_group;
    int64_t normalise;                                           // norm_topk_prob
    float routed_scale, softmax_scale, eps;
    const float *rotary, *final_norm;                            // (positions, 2, rope/2), (D)
    const void *head, *embedding;                                // (V, D), the head packed
    const Layer* layer;
};

}

namespace {

// Scratch rows that grow once and stay: one per thread, since threads decode different rows of the same model.
struct Scratch {
    std::vector<float> memory[12];
    float* floats(int which, int64_t n) {
        if (static_cast<int64_t>(memory[which].size()) < n) memory[which].resize(n);
        return memory[which].data();
    }
    template <typename T>
    T* typed(int which, int64_t n) { return reinterpret_cast<T*>(floats(which, n)); }
};
thread_local Scratch scratch;

// Outputs of a packed matrix, its filler included.
inline int64_t filled(int64_t out) { return (out + LANES - 1) / LANES * LANES; }

void rotate(float* x, const float* rotary, int64_t width, bool interleaved) {
    const int64_t half = width / 2;
    for (int64_t i = 0; i < half; i++) {
        float& a = x[interleaved ? 2 * i : i];
        float& b = x[interleaved ? 2 * i + 1 : i + half];
        const float first = a, second = b, cos = rotary[i], sin = rotary[half + i];
        a = first * cos - second * sin;
        b = first * sin + second * cos;
    }
}

// Multi-head latent attention, absorbed: adds its output to the residual stream.
template <typename T>
void latent_attention(const Model& m, const Layer& l, const T* x, float* residual, const int64_t* lengths, int64_t rows,
                      int64_t capacity) {
    const int64_t head = m.nope + m.rope, width = m.latent + m.rope;
    float* q = scratch.floats(2, rows * m.heads * head);
    if (m.q_rank) {
        float* low = scratch.floats(3, rows * m.q_rank);
        linear(x, rows, m.hidden, static_cast<const T*>(l.q_a), m.q_rank, low);
        T* normed = scratch.typed<T>(4, rows * m.q_rank);
        rms_norm(low, rows, m.q_rank, m.q_rank, l.q_norm, 1e-6f, normed, m.q_rank);
        linear(normed, rows, m.q_rank, static_cast<const T*>(l.q_b), m.heads * head, q);
    } else {
        linear(x, rows, m.hidden, static_cast<const T*>(l.q), m.heads * head, q);
    }
    float* entry = scratch.floats(3, rows * width);
    linear(x, rows, m.hidden, static_cast<const T*>(l.kv_a), width, entry);
    T* cache = static_cast<T*>(l.cache);
    float* absorbed = scratch.floats(5, rows * m.heads * width);
    for (int64_t r = 0; r < rows; r++) {
        const float* rotary = m.rotary + lengths[r] * m.rope;
        T* to = cache + (r * capacity + lengths[r]) * width;
        rms_norm(entry + r * width, 1, m.latent, width, l.kv_norm, 1e-6f, to, width);
        rotate(entry + r * width + m.latent, rotary, m.rope, true);
        store_all(to + m.latent, entry + r * width + m.latent, m.rope);
        for (int64_t h = 0; h < m.heads; h++) {
            float* rotated = q + (r * m.heads + h) * head + m.nope;
            rotate(rotated, rotary, m.rope, true);
            std::copy_n(rotated, m.rope, absorbed + (r * m.heads + h) * width + m.latent);
        }
    }
    for (int64_t h = 0; h < m.heads; h++)
        linear(q + h * head, m.heads * head, rows, m.nope, l.absorb_k + h * filled(m.latent) * m.nope, m.latent,
               absorbed + h * width, m.heads * width);
    float* latents = scratch.floats(2, rows * m.heads * m.latent);
    attend(absorbed, cache, lengths, latents, rows, m.heads, 1, width, m.latent, 0, width, capacity * width, m.softmax_scale);
    float* mixed = scratch.floats(3, rows * m.heads * m.value);
    for (int64_t h = 0; h < m.heads; h++)
        linear(latents + h * m.latent, m.heads * m.latent, rows, m.latent, l.absorb_v + h * filled(m.value) * m.latent, m.value,
               mixed + h * m.value, m.heads * m.value);
    T* values = scratch.typed<T>(5, rows * m.heads * m.value);
    store_all(values, mixed, rows * m.heads * m.value);
    float* out = scratch.floats(3, rows * m.hidden);
    linear(values, rows, m.heads * m.value, static_cast<const T*>(l.o), m.hidden, out);
    for (int64_t i = 0; i < rows * m.hidden; i++) residual[i] += out[i];
}

// Grouped-query attention with biases on q, k, v and rotation by halves (Qwen2).
template <typename T>
void grouped_attention(const Model& m, const Layer& l, const T* x, float* residual, const int64_t* lengths, int64_t rows,
                       int64_t capacity) {
    const int64_t head = m.value, keys = m.groups * head, width = 2 * keys;
    float* q = scratch.floats(2, rows * m.heads * head);
    float* k = scratch.floats(3, rows * keys);
    float* v = scratch.floats(4, rows * keys);
    linear(x, rows, m.hidden, static_cast<const T*>(l.q), m.heads * head, q, l.q_bias);
    linear(x, rows, m.hidden, static_cast<const T*>(l.k), keys, k, l.k_bias);
    linear(x, rows, m.hidden, static_cast<const T*>(l.v), keys, v, l.v_bias);
    T* cache = static_cast<T*>(l.cache);
    for (int64_t r = 0; r < rows; r++) {
        const float* rotary = m.rotary + lengths[r] * head;
        for (int64_t h = 0; h < m.heads; h++) rotate(q + (r * m.heads + h) * head, rotary, head, false);
        for (int64_t g = 0; g < m.groups; g++) rotate(k + r * keys + g * head, rotary, head, false);
        T* to = cache + (r * capacity + lengths[r]) * width;
        store_all(to, k + r * keys, keys);
        store_all(to + keys, v + r * keys, keys);
    }
    float* mixed = scratch.floats(5, rows * m.heads * head);
    attend(q, cache, lengths, mixed, rows, m.heads, m.groups, head, head, keys, width, capacity * width, m.softmax_scale);
    T* values = scratch.typed<T>(4, rows * m.heads * head);
    store_all(values, mixed, rows * m.heads * head);
    float* out = scratch.floats(3, rows * m.hidden);
    linear(values, rows, m.heads * head, static_cast<const T*>(l.o), m.hidden, out);
    for (int64_t i = 0; i < rows * m.hidden; i++) residual[i] += out[i];
}

// down(silu(gate) * up): gate and up hold `rows` rows of `width`, `stride` apart.
template <typename T>
void finish_swiglu(const float* gate, const float* up, int64_t stride, int64_t rows, int64_t width, const T* down,
                   int64_t hidden, float* out) {
    T* active = scratch.typed<T>(8, rows * width);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++) {
            const float g = gate[r * stride + i];
            store(active + r * width + i, g * sigmoid(g) * up[r * stride + i]);
        }
    linear(active, rows, width, down, hidden, out);
}

template <typename T>
void dense(const T* x, int64_t rows, int64_t hidden, int64_t width, const Layer& l, float* residual) {
    float* gate = scratch.floats(2, rows * width);
    float* up = scratch.floats(3, rows * width);
    float* out = scratch.floats(4, rows * hidden);
    linear(x, rows, hidden, static_cast<const T*>(l.gate), width, gate);
    linear(x, rows, hidden, static_cast<const T*>(l.up), width, up);
    finish_swiglu(gate, up, width, rows, width, static_cast<const T*>(l.down), hidden, out);
    for (int64_t i = 0; i < rows * hidden; i++) residual[i] += out[i];
}

template <typename T>
void mixture(const Model& m, const Layer& l, const T* x, int64_t rows, float* residual) {
    const Routing routing{m.experts, m.chosen, m.n_group, m.topk_group, 1, m.normalise, m.routed_scale};
    std::vector<int64_t> experts(rows * m.chosen), taken;
    std::vector<float> weights(rows * m.chosen), scores(m.experts), wide(m.hidden);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < m.hidden; i++) wide[i] = to_float(x[r * m.hidden + i]);
        for (int64_t e = 0; e < m.experts; e++) scores[e] = sigmoid(dot(wide.data(), l.router + e * m.hidden, m.hidden));
        choose_experts(routing, scores.data(), l.correction, experts.data() + r * m.chosen, weights.data() + r * m.chosen);
    }
    if (m.shared) dense(x, rows, m.hidden, m.shared, l, residual);
    for (int64_t e = 0; e < m.experts; e++) {
        taken.clear();
        for (int64_t i = 0; i < rows * m.chosen; i++)
            if (experts[i] == e) taken.push_back(i);
        const int64_t n = taken.size();
        if (!n) continue;
        T* gathered = scratch.typed<T>(2, n * m.hidden);
        for (int64_t i = 0; i < n; i++) std::copy_n(x + taken[i] / m.chosen * m.hidden, m.hidden, gathered + i * m.hidden);
        float* halves = scratch.floats(3, n * 2 * m.expert);
        float* out = scratch.floats(4, n * m.hidden);
        linear(gathered, n, m.hidden, static_cast<const T*>(l.experts_gate_up) + e * filled(2 * m.expert) * m.hidden,
               2 * m.expert, halves);
        finish_swiglu(halves, halves + m.expert, 2 * m.expert, n, m.expert,
                      static_cast<const T*>(l.experts_down) + e * filled(m.hidden) * m.expert, m.hidden, out);
        for (int64_t i = 0; i < n; i++) {
            float* to = residual + taken[i] / m.chosen * m.hidden;
            for (int64_t j = 0; j < m.hidden; j++) to[j] += weights[taken[i]] * out[i * m.hidden + j];
        }
    }
}

template <typename T>
void decode(const Model& m, const int64_t* tokens, const int64_t* lengths, int64_t rows, int64_t capacity, float* logits) {
    float* residual = scratch.floats(0, rows * m.hidden);
    const T* embedding = static_cast<const T*>(m.embedding);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < m.hidden; i++) residual[r * m.hidden + i] = to_float(embedding[tokens[r] * m.hidden + i]);
    T* x = scratch.typed<T>(1, rows * m.hidden);
    for (int64_t n = 0; n < m.layers; n++) {
        const Layer& l = m.layer[n];
        rms_norm(residual, rows, m.hidden, m.hidden, l.input_norm, m.eps, x, m.hidden);
        (m.latent ? latent_attention<T> : grouped_attention<T>)(m, l, x, residual, lengths, rows, capacity);
        rms_norm(residual, rows, m.hidden, m.hidden, l.post_norm, m.eps, x, m.hidden);
        if (l.router) mixture(m, l, x, rows, residual);
        else dense(x, rows, m.hidden, m.feed_forward, l, residual);
    }
    rms_norm(residual, rows, m.hidden, m.hidden, m.final_norm, m.eps, x, m.hidden);
    linear(x, rows, m.hidden, static_cast<const T*>(m.head), m.vocabulary, logits);
}

}  // namespace

extern "C" {

int64_t lanes() { return LANES; }

void decode_float32(const Model* m, const int64_t* tokens, const int64_t* lengths, int64_t rows, int64_t capacity,
                    float* logits) {
    decode<float>(*m, tokens, lengths, rows, capacity, logits);
}

void decode_bfloat16(const Model* m, const int64_t* tokens, const int64_t* lengths, int64_t rows, int64_t capacity,
                     float* logits) {
    decode<bf16>(*m, tokens, lengths, rows, capacity, logits);
}

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
