// The forward pass of the whole network over a ragged batch: chunks of prompts and generated tokens together, with a cache in
// blocks. Plain twin: Transformer.extend.
//
// Activations are float between products, each product rounds or quantizes what it reads, the residual stream stays float.
// Threads share the loops of a pass; a model small enough for the caches is instead computed by each thread alone, for some
// of the sequences. The numbers do not depend on which.
#pragma once

#include <algorithm>

#include "layers.h"
#include "model.h"
#include "moe_routing.h"
#include "packed_multiply.h"
#include "paged_attention_decode.h"
#include "paged_attention_prefill.h"
#include "thread_pool.h"

namespace {

// A linear map of a layer as the rows' adapters know it.
struct AdapterPart {
    const Layer* layer = nullptr;
    LowRank LayerAdapter::*map = nullptr;
};

// A pass over one part of a batch by one group of threads. C: the type of the cache.
template <typename C>
class ForwardPass {
   public:
    ForwardPass(const Model& m, const Batch& b, const BatchPart& part, ThreadGroup& threads, Workspace& workspace)
        : m(m), b(b), part(part), threads(threads), rows(part.tokens), mla(m.latent > 0),
          key(mla ? m.latent + m.rope : m.value), value(mla ? m.latent : m.value), width(mla ? key : 2 * m.groups * m.value),
          q_step(round_up(key, Packing<C>::PAIR)), table(b.tables) {
        workspace.next = 0;
        position = workspace.allocate<int64_t>(rows);
        sequence = workspace.allocate<int64_t>(rows);
        adapter = workspace.allocate<const LayerAdapter*>(rows);
        adapted_rows = workspace.allocate<int64_t>(rows);
        tiles = workspace.allocate<int64_t>(rows + 1);
        low = workspace.allocate<float>(rows * m.low);
        for (int64_t s = part.begin, t = 0; s < part.end; s++)
            for (int64_t i = 0; i < b.counts[s]; i++, t++) {
                position[t] = b.contexts[s] + i;
                sequence[t] = s;
                adapter[t] = b.adapters && b.adapters[s] >= 0 ? m.adapters[b.adapters[s]] : nullptr;
                if (adapter[t]) adapted_rows[n_adapted++] = t;
            }
        // Rows of one adapter together: its weights are read once.
        std::stable_sort(adapted_rows, adapted_rows + n_adapted,
                         [this](int64_t one, int64_t other) { return std::less<>()(adapter[one], adapter[other]); });
        for (int64_t i = 0; i < n_adapted; tiles[++n_tiles] = i) {
            const LayerAdapter* one = adapter[adapted_rows[tiles[n_tiles] = i]];
            for (int64_t k = 0; k < LOW_RANK_ROWS && i < n_adapted && adapter[adapted_rows[i]] == one; k++) i++;
        }
        const Layer& l = m.layer[m.layers - 1];  // with experts, if any layer has them
        int64_t wide = std::max({m.hidden, m.q_rank, m.heads * m.value, m.eh_proj.in}), active_wide = 0, first = 0;
        for (int64_t n = 0; n < m.layers; n++) {
            first = std::max(first, m.layer[n].first.out);
            active_wide = std::max(active_wide, m.layer[n].down.in);
        }
        residual = workspace.allocate<float>(rows * m.hidden);
        activations = workspace.allocate<char>(rows * activation_bytes(FLOAT32, wide));
        dense_active = workspace.allocate<char>(rows * activation_bytes(FLOAT32, active_wide));
        projected = workspace.allocate<float>(rows * first);
        queries = workspace.allocate<float>(rows * m.heads * (mla ? std::max(m.nope + m.rope, m.value) : m.value));
        attending = workspace.allocate<C>(rows * m.heads * q_step);
        mixed = workspace.allocate<float>(rows * m.heads * value);
        if (mla) {
            absorbed = workspace.allocate<float>(rows * m.heads * key);
            head_activations = workspace.allocate<char>(rows * m.heads * activation_bytes(FLOAT32, std::max(m.nope, m.latent)));
        }
        if (m.experts) {
            const int64_t choices = rows * m.chosen, expert = l.experts_down ? l.experts_down[0].in : 0;
            scores = workspace.allocate<float>(rows * m.experts);
            experts = workspace.allocate<int64_t>(choices);
            weights = workspace.allocate<float>(choices);
            choice = workspace.allocate<int64_t>(choices);
            choice_token = workspace.allocate<int64_t>(choices);
            starts = workspace.allocate<int64_t>(m.experts + 1);
            busy = workspace.allocate<int64_t>(m.experts);
            active = workspace.allocate<char>(choices * activation_bytes(FLOAT32, expert));
            expert_out = workspace.allocate<float>(choices * m.hidden);
            routed = workspace.allocate<char>(rows * activation_bytes(FLOAT32, m.hidden));
        }
    }

    void run() {
        const amx::Tiles tiles;
        m.enorm ? embed_mtp() : embed();
        for (int64_t n = 0; n < m.layers; n++) {
            const Layer& l = m.layer[n];
            norm_activations(l.input_norm, l.first);
            adapted_matmul({&l, &LayerAdapter::first}, l.first, {projected, l.first.out}, false);
            mla ? mla_queries(l) : gqa_queries(l);
            attend(l);
            if (mla) mla_values(l);
            const float* out = mla ? queries : mixed;
            const int64_t out_width = m.heads * m.value;
            threads.parallel_for(rows, 4, [&](int64_t t) { store_activations(l.o, out + t * out_width, t); });
            adapted_matmul({&l, &LayerAdapter::o}, l.o, {residual, m.hidden}, true);
            if (l.router.data) moe(l);
            else mlp(l);
        }
        compute_logits();
    }

   private:
    const Model& m;
    const Batch& b;
    const BatchPart part;
    ThreadGroup& threads;
    const int64_t rows;
    const bool mla;
    const int64_t key, value, width, q_step;  // widths of cached keys and values of a group, of a position, of a query
    const int64_t* table;
    int64_t *position, *sequence, *experts, *choice, *choice_token, *starts, *busy, n_busy = 0;
    int64_t *adapted_rows, *tiles, n_adapted = 0, n_tiles = 0;  // tiles: where in adapted_rows a few of one adapter begin
    const LayerAdapter** adapter;  // of each row: (layers), or null
    float *residual, *projected, *queries, *mixed, *absorbed, *scores, *weights, *expert_out, *low;
    char *activations, *dense_active, *head_activations, *active, *routed;
    C* attending;

    static constexpr int64_t ROWS_PER_TASK = 240;  // of a product: a multiple of the rows of every tile

    // ------------------------------------------------------------------------------------------------ building blocks

    // Converts x into row t of the activations for a product with `matrix`.
    void store_activations(const Matrix& matrix, const float* x, int64_t t) {
        convert_row(matrix.kind, x, matrix.in, activations + t * activation_bytes(matrix.kind, matrix.in));
    }
    Activations activations_for(const Matrix& matrix) const { return {activations, activation_bytes(matrix.kind, matrix.in)}; }

    void matmul(const Matrix& matrix, const Activations& x, const Outputs& y, bool add, AdapterPart part = {}) {
        matmul(matrix, x, y, add, rows, part);
    }
    void matmul(const Matrix& matrix, const Activations& x, const Outputs& y, bool add, int64_t n, AdapterPart part = {}) {
        const int64_t row_parts = ceil_div(n, ROWS_PER_TASK);
        const int64_t pieces = panel_count(matrix) * row_parts;
        threads.parallel_for(pieces, threads.stream_chunk(pieces), [&](int64_t i) {
            const int64_t row = i % row_parts * ROWS_PER_TASK, p = i / row_parts, some = std::min(ROWS_PER_TASK, n - row);
            multiply_panel(matrix, p, x.from(row), y.from(row), add, some);
            if (part.layer) adapt_out(part, p, matrix.out, y.at(0), y.stride, row, some);
        });
    }

    // A product with the activations, and what the rows' adapters have beside it.
    void adapted_matmul(const AdapterPart& part, const Matrix& matrix, const Outputs& y, bool add) {
        adapt_activations(part, matrix, activations_for(matrix));
        matmul(matrix, activations_for(matrix), y, add, part);
    }

    // What row t's adapter has beside this map, or null.
    const LowRank* low_rank_of(const AdapterPart& part, int64_t t) const {
        if (!adapter[t]) return nullptr;
        const LowRank& low_rank = adapter[t][part.layer - m.layer].*part.map;
        return low_rank.a ? &low_rank : nullptr;
    }

    // A x of the rows that have an adapter, of each head, kept for adapt_out. row(t, h, buffer): x, or where it is put.
    template <typename Row>
    void adapt_in(const AdapterPart& part, int64_t heads, Row row) {
        if (!n_adapted) return;
        threads.parallel_for(n_tiles * heads, 1, [&](int64_t i) {
            const int64_t h = i % heads, first = tiles[i / heads], last = tiles[i / heads + 1];
            const LowRank* r = low_rank_of(part, adapted_rows[first]);
            if (!r) return;
            const float* x[LOW_RANK_ROWS];
            float* to[LOW_RANK_ROWS];
            float* buffer = row_buffer(LOW_RANK_ROWS * r->in);
            for (int64_t k = first; k < last; k++) {
                const int64_t t = adapted_rows[k];
                x[k - first] = row(t, h, buffer + (k - first) * r->in);
                to[k - first] = low + t * m.low + h * r->low;
            }
            low_rank_in(*r, h, x, to, last - first);
        });
    }

    // The same from the activations that a product with this matrix reads.
    void adapt_activations(const AdapterPart& part, const Matrix& matrix, const Activations& x) {
        adapt_in(part, 1, [&](int64_t t, int64_t, float* buffer) {
            if (matrix.kind == FLOAT32) return reinterpret_cast<const float*>(x.at(t));
            restore_row(matrix.kind, x.at(t), matrix.in, buffer);
            return static_cast<const float*>(buffer);
        });
    }

    // Adds B A x to the outputs of panel p, for rows [row, row + n) of y.
    void adapt_out(const AdapterPart& part, int64_t p, int64_t out, float* y, int64_t stride, int64_t row, int64_t n,
                   int64_t h = 0) const {
        const int64_t first = p * PANEL_OUTPUTS, last = std::min(first + PANEL_OUTPUTS, out);
        const LowRank* before = nullptr;
        for (int64_t i = 0; i < n_tiles; i++) {
            const LowRank* r = low_rank_of(part, adapted_rows[tiles[i]]);
            if (!r) continue;
            if (r != before && last + PANEL_OUTPUTS <= out) prefetch_low_rank(*r, h, last, last + PANEL_OUTPUTS);
            before = r;
            const float* from[LOW_RANK_ROWS];
            float* to[LOW_RANK_ROWS];
            int64_t some = 0;
            for (int64_t k = tiles[i]; k < tiles[i + 1]; k++) {
                const int64_t t = adapted_rows[k];
                if (t < row || t >= row + n) continue;
                from[some] = low + t * m.low + h * r->low;
                to[some++] = y + t * stride + first;
            }
            low_rank_out(*r, h, from, to, some, first, last);
        }
    }

    void norm_activations(const float* weight, const Matrix& matrix) {
        threads.parallel_for(rows, 4, [&](int64_t t) {
            float* row = row_buffer(m.hidden);
            rms_norm(residual + t * m.hidden, m.hidden, weight, m.eps, row);
            store_activations(matrix, row, t);
        });
    }

    void embedding_of(int64_t token, float* to) const {
        for (int64_t i = 0; i < m.hidden; i++)
            to[i] = m.half_embedding ? to_float(static_cast<const bf16*>(m.embedding)[token * m.hidden + i])
                                     : static_cast<const float*>(m.embedding)[token * m.hidden + i];
    }

    void embed() {
        threads.parallel_for(rows, 4, [&](int64_t t) { embedding_of(b.tokens[part.token + t], residual + t * m.hidden); });
    }

    // The MTP module's input: [embedding of the next token, state of this one], each normed, through eh_proj.
    void embed_mtp() {
        threads.parallel_for(rows, 4, [&](int64_t t) {
            float* row = row_buffer(3 * m.hidden);
            embedding_of(b.tokens[part.token + t], row + 2 * m.hidden);
            rms_norm(row + 2 * m.hidden, m.hidden, m.enorm, m.eps, row);
            rms_norm(b.states + (part.token + t) * m.hidden, m.hidden, m.hnorm, m.eps, row + m.hidden);
            store_activations(m.eh_proj, row, t);
        });
        matmul(m.eh_proj, activations_for(m.eh_proj), {residual, m.hidden}, false);
    }

    // --------------------------------------------------------------------------------------------------- attention

    // The block of token t's position; its number in it is position[t] % BLOCK_SIZE.
    C* block_of(const Layer& l, int64_t t) const {
        return static_cast<C*>(l.cache) + table[sequence[t] * b.table_width + position[t] / BLOCK_SIZE] * BLOCK_SIZE * width;
    }

    BlockLayout<C> layout(int64_t group) const { return {width, key, value, group, mla}; }

    // forward_attention.h
    void gqa_queries(const Layer& l);
    void store_queries(int64_t t, const float* q, int64_t step);
    void mla_queries(const Layer& l);
    void per_head(const Matrix* matrices, int64_t bytes, float* y, int64_t step, const AdapterPart& part);
    void mla_values(const Layer& l);
    void attend(const Layer& l);

    // forward_mlp.h
    void swiglu_activations(const Matrix& gate_up, const Matrix& down, int64_t unit, const Activations& x,
                            const RowView<char>& to, int64_t n, const AdapterPart& part = {}, int64_t first_row = 0);
    void mlp(const Layer& l);
    void mlp_products(const Layer& l, const Activations& x);
    void moe(const Layer& l);
    void route(const Layer& l);
    template <typename Work>
    void for_each_expert(int64_t pieces, Work work);

    // -------------------------------------------------------------------------------------------------------- head

    void compute_logits() {
        const int64_t n = part.wanted_end - part.wanted;
        if (b.hidden)
            threads.parallel_for(rows, 4, [&](int64_t t) {
                rms_norm(residual + t * m.hidden, m.hidden, m.final_norm, m.eps, b.hidden + (part.token + t) * m.hidden);
            });
        threads.parallel_for(n, 4, [&](int64_t i) {
            float* row = row_buffer(m.hidden);
            rms_norm(residual + (b.wanted[part.wanted + i] - part.token) * m.hidden, m.hidden, m.final_norm, m.eps, row);
            store_activations(m.head, row, i);
        });
        matmul(m.head, activations_for(m.head), {b.logits + part.wanted * m.vocabulary, m.vocabulary}, false, n);
    }
};

}  // namespace

#include "forward_attention.h"
#include "forward_mlp.h"
