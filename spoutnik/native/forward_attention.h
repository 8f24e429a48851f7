// The attention of ForwardPass: queries, keys and values of grouped-query and of latent attention, stored in the cache and
// read.
#pragma once

#include "forward_pass.h"

namespace {

template <typename C>
inline void ForwardPass<C>::gqa_queries(const Layer& l) {
    const int64_t head = m.value, keys = m.groups * head;
    threads.parallel_for(rows, 4, [&](int64_t t) {
        float* q = projected + t * l.first.out;
        float* k = q + m.heads * head;
        const float* rotary = m.rotary + position[t] * head;
        for (int64_t h = 0; h < m.heads + m.groups; h++) {
            float* one = q + h * head;  // keys follow queries
            const float* weight = h < m.heads ? l.q_norm : l.k_norm;
            if (weight) rms_norm(one, head, weight, m.eps, one);
            rotate(one, rotary, head, false);
        }
        store_queries(t, q, head);
        store_position(block_of(l, t), layout(0), position[t] % BLOCK_SIZE, k, k + keys, m.groups);
    });
}

template <typename C>
inline void ForwardPass<C>::store_queries(int64_t t, const float* q, int64_t step) {
    for (int64_t h = 0; h < m.heads; h++) {
        C* to = attending + (t * m.heads + h) * q_step;
        store_floats(to, q + h * step, key);
        if (q_step > key) to[key] = C{};
    }
}

// MLA, absorbed (DeepSeek-V2, section 2.1): the key half of kv_b is applied to the query, so that all heads read the cached
// latent.
template <typename C>
inline void ForwardPass<C>::mla_queries(const Layer& l) {
    const int64_t head = m.nope + m.rope, kv_at = l.first.out - width;
    if (m.q_rank) {
        threads.parallel_for(rows, 4, [&](int64_t t) {
            float* row = row_buffer(m.q_rank);
            rms_norm(projected + t * l.first.out, m.q_rank, l.q_norm, 1e-6f, row);
            store_activations(l.q_b, row, t);
        });
        adapted_matmul({&l, &LayerAdapter::q_b}, l.q_b, {queries, m.heads * head}, false);
    }
    const float* q_from = m.q_rank ? queries : projected;
    const int64_t q_stride = m.q_rank ? m.heads * head : l.first.out;
    const Matrix& k0 = l.absorb_k[0];
    const int64_t bytes = activation_bytes(k0.kind, m.nope);
    threads.parallel_for(rows, 4, [&](int64_t t) {
        const float* rotary = m.rotary + position[t] * m.rope;
        float* kv = projected + t * l.first.out + kv_at;
        rms_norm(kv, m.latent, l.kv_norm, 1e-6f, kv);
        rotate(kv + m.latent, rotary, m.rope, true);
        store_floats(block_of(l, t) + position[t] % BLOCK_SIZE * width, kv, width);
        for (int64_t h = 0; h < m.heads; h++) {
            const float* q = q_from + t * q_stride + h * head;
            convert_row(k0.kind, q, m.nope, head_activations + (t * m.heads + h) * bytes);
            float* rotated = absorbed + (t * m.heads + h) * key + m.latent;
            std::copy_n(q + m.nope, m.rope, rotated);
            rotate(rotated, rotary, m.rope, true);
        }
    });
    adapt_in({&l, &LayerAdapter::keys}, m.heads,
             [&](int64_t t, int64_t h, float*) { return q_from + t * q_stride + h * head; });
    per_head(l.absorb_k, bytes, absorbed, key, {&l, &LayerAdapter::keys});
    threads.parallel_for(rows, 4, [&](int64_t t) { store_queries(t, absorbed + t * m.heads * key, key); });
}

// The rows of each head in head_activations times its matrix, to rows of y `step` apart.
template <typename C>
inline void ForwardPass<C>::per_head(const Matrix* matrices, int64_t bytes, float* y, int64_t step, const AdapterPart& part) {
    const int64_t panels = panel_count(matrices[0]);
    threads.parallel_for(m.heads * panels, threads.stream_chunk(m.heads * panels), [&](int64_t i) {
        const int64_t h = i / panels, p = i % panels;
        multiply_panel(matrices[h], p, {head_activations + h * bytes, m.heads * bytes}, {y + h * step, m.heads * step}, false,
                       rows);
        adapt_out(part, p, matrices[h].out, y + h * step, m.heads * step, 0, rows, h);
    });
}

template <typename C>
inline void ForwardPass<C>::mla_values(const Layer& l) {
    const int64_t bytes = activation_bytes(l.absorb_v[0].kind, m.latent);
    threads.parallel_for(rows, 4, [&](int64_t t) {
        for (int64_t h = 0; h < m.heads; h++)
            convert_row(l.absorb_v[0].kind, mixed + (t * m.heads + h) * m.latent, m.latent,
                        head_activations + (t * m.heads + h) * bytes);
    });
    adapt_in({&l, &LayerAdapter::values}, m.heads,
             [&](int64_t t, int64_t h, float*) { return mixed + (t * m.heads + h) * m.latent; });
    per_head(l.absorb_v, bytes, queries, m.value, {&l, &LayerAdapter::values});
}

template <typename C>
inline void ForwardPass<C>::attend(const Layer& l) {
    const int64_t groups = mla ? 1 : m.groups, shared = m.heads / groups;
    constexpr int64_t TOKENS = 128;  // of a chunk of a prompt that are one piece of work
    // Pieces: of generated tokens, some heads of a group; of a prompt, all heads of a group for some tokens.
    const int64_t wanted_splits = 2 * threads.size / std::max<int64_t>(1, rows * groups);
    const int64_t splits = std::min<int64_t>(shared, std::max<int64_t>(1, wanted_splits));
    const int64_t some = ceil_div(shared, splits);
    static thread_local std::vector<std::pair<int64_t, int64_t>> pieces_of_thread;
    pieces_of_thread.clear();  // (first token of the piece, its tokens; 0: a generated token)
    for (int64_t s = part.begin, t = 0; s < part.end; t += b.counts[s], s++)
        for (int64_t i = 0; i < b.counts[s]; i += b.prompt[s] ? TOKENS : 1)
            pieces_of_thread.emplace_back(t + i, b.prompt[s] ? std::min(TOKENS, b.counts[s] - i) : 0);
    const auto& pieces = pieces_of_thread;
    threads.parallel_for(pieces.size() * groups * splits, 1, [&](int64_t i) {
        const auto [t, tokens] = pieces[i / (groups * splits)];
        const int64_t g = i / splits % groups, h = g * shared + i % splits * some;
        const CachedSequence<C> e(layout(g), static_cast<const C*>(l.cache), table + sequence[t] * b.table_width);
        if (!tokens) {
            const int64_t count = std::min(some, (g + 1) * shared - h);
            if (count > 0)
                decode_attention(e, attending + (t * m.heads + h) * q_step, q_step, count, position[t] + 1,
                                 static_cast<float>(m.softmax_scale), mixed + (t * m.heads + h) * value);
        } else if (i % splits == 0) {
            prefill_attention(e, attending + (t * m.heads + g * shared) * q_step, q_step, m.heads * q_step, shared, tokens,
                              position[t], static_cast<float>(m.softmax_scale), mixed + (t * m.heads + g * shared) * value,
                              m.heads * value);
        }
    });
}

}  // namespace
