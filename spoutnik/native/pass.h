// One forward pass of the whole network over a ragged batch: the next tokens of each sequence, prompts' chunks and generated ones
// together, with a cache in blocks. Transformer.extend does the same in Python; the tests compare them.
//
// Activations are float between products, each product rounds or quantises what it reads, the residual stream stays float.
// Threads work through the phases together; a model small enough for the caches is instead given to each thread whole, with
// some of the sequences. The numbers do not depend on which. Letters as in mla.py.
#pragma once

#include <algorithm>
#include <memory>
#include <numeric>

#include "paged.h"
#include "routing.h"
#include "team.h"

extern "C" {

// structs.py mirrors these field by field.
struct Layer {
    const float *input_norm, *post_norm, *q_norm, *k_norm, *kv_norm;  // q_norm: of MLA's low rank, or of each head (Qwen3)
    const float* correction;                                          // (E), V3's bias of the choice
    Matrix first;                        // GQA: q, k, v. MLA: q_a (or q), then kv_a
    Matrix q_b, o;
    const Matrix *absorb_k, *absorb_v;   // per head: latent from nope, value from latent
    Matrix gate_up, down;                // dense feed-forward, or the shared experts
    Matrix router;
    const Matrix *experts_gate_up, *experts_down;
    void* cache;                         // (blocks, BLOCK, width)
    int64_t* uses;                       // (E) how often each expert was chosen, added to
};

struct Model {
    int64_t hidden, heads, groups, layers, vocabulary;
    int64_t q_rank, latent, nope, rope, value;  // MLA; latent 0 means grouped-query attention, with nope 0
    int64_t experts, chosen, n_group, topk_group, two_best, normalise, softmax;
    int64_t half_cache, half_embedding, small;  // small: each thread computes whole sequences
    int64_t blocks, positions;                  // of the cache, of the rotary table
    double routed_scale, softmax_scale, eps;
    const float *rotary, *final_norm;           // (positions, 2, rope/2), (D)
    Matrix head;
    const void* embedding;                      // (V, D)
    const float *enorm, *hnorm;                 // of the MTP module; null in the main model
    Matrix eh_proj;
    const Layer* layer;
};

struct Batch {
    const int64_t *tokens, *counts, *contexts, *tables, *wanted;
    const uint8_t* prompt;
    int64_t n_tokens, sequences, table_width, n_wanted, threads;
    const float* states;  // (T, D): what the MTP module reads
    float* hidden;        // (T, D), or null where nobody asks
    float* logits;        // (W, V)
};

}

namespace {

// Memory that a pass needs again and again.
struct Buffers {
    std::vector<std::unique_ptr<char[]>> held;
    std::vector<int64_t> sizes;
    size_t next = 0;

    template <typename T>
    T* take(int64_t n) {
        if (next == held.size()) {
            held.emplace_back();
            sizes.push_back(0);
        }
        const int64_t bytes = n * sizeof(T) + 64;
        if (sizes[next] < bytes) {
            held[next].reset(new char[bytes]);
            sizes[next] = bytes;
        }
        return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(held[next++].get()) + 63) / 64 * 64);
    }
};

// Sequences [begin, end) of a batch, whose tokens start at `token` and whose wanted ones are [wanted, wanted_end).
struct Part {
    int64_t begin, end, token, wanted, wanted_end, tokens;
};

inline void rotate(float* x, const float* rotary, int64_t width, bool interleaved) {
    const int64_t half = width / 2;
    for (int64_t i = 0; i < half; i++) {
        float& a = x[interleaved ? 2 * i : i];
        float& b = x[interleaved ? 2 * i + 1 : i + half];
        const float first = a, second = b, cos = rotary[i], sin = rotary[half + i];
        a = first * cos - second * sin;
        b = first * sin + second * cos;
    }
}

inline void norm(const float* x, int64_t width, const float* weight, float eps, float* to) {
    float sum = 0;
    for (int64_t i = 0; i < width; i++) sum += x[i] * x[i];
    const float scale = 1.0f / std::sqrt(sum / width + eps);
    for (int64_t i = 0; i < width; i++) to[i] = x[i] * scale * weight[i];
}

float* row_buffer(int64_t n) {
    static thread_local std::vector<float> row;
    if (static_cast<int64_t>(row.size()) < n) row.resize(n);
    return row.data();
}

// A pass of one part by one team. C: the cache's type.
template <typename C>
class Pass {
   public:
    Pass(const Model& m, const Batch& b, const Part& part, Team& team, Buffers& buffers)
        : m(m), b(b), part(part), team(team), rows(part.tokens), mla(m.latent > 0),
          key(mla ? m.latent + m.rope : m.value), value(mla ? m.latent : m.value), width(mla ? key : 2 * m.groups * m.value),
          q_step(rounded(key, Packed<C>::PAIR)), table(b.tables) {
        buffers.next = 0;
        position = buffers.take<int64_t>(rows);
        sequence = buffers.take<int64_t>(rows);
        for (int64_t s = part.begin, t = 0; s < part.end; s++)
            for (int64_t i = 0; i < b.counts[s]; i++, t++) {
                position[t] = b.contexts[s] + i;
                sequence[t] = s;
            }
        const Layer& l = m.layer[m.layers - 1];  // the widest: earlier ones may be dense, which `wide` covers
        int64_t wide = std::max({m.hidden, m.q_rank, m.heads * m.value, m.eh_proj.in}), active_wide = 0, first = 0;
        for (int64_t n = 0; n < m.layers; n++) {
            first = std::max(first, m.layer[n].first.out);
            active_wide = std::max(active_wide, m.layer[n].down.in);
        }
        residual = buffers.take<float>(rows * m.hidden);
        operands = buffers.take<char>(rows * operand_bytes(FLOAT32, wide));
        dense_active = buffers.take<char>(rows * operand_bytes(FLOAT32, active_wide));
        projected = buffers.take<float>(rows * first);
        queries = buffers.take<float>(rows * m.heads * (mla ? std::max(m.nope + m.rope, m.value) : m.value));
        attending = buffers.take<C>(rows * m.heads * q_step);
        mixed = buffers.take<float>(rows * m.heads * value);
        if (mla) {
            absorbed = buffers.take<float>(rows * m.heads * key);
            head_operands = buffers.take<char>(rows * m.heads * operand_bytes(FLOAT32, std::max(m.nope, m.latent)));
        }
        if (m.experts) {
            const int64_t choices = rows * m.chosen, expert = l.experts_down ? l.experts_down[0].in : 0;
            scores = buffers.take<float>(rows * m.experts);
            experts = buffers.take<int64_t>(choices);
            weights = buffers.take<float>(choices);
            choice = buffers.take<int64_t>(choices);
            choice_token = buffers.take<int64_t>(choices);
            starts = buffers.take<int64_t>(m.experts + 1);
            busy = buffers.take<int64_t>(m.experts);
            active = buffers.take<char>(choices * operand_bytes(FLOAT32, expert));
            expert_out = buffers.take<float>(choices * m.hidden);
            routed = buffers.take<char>(rows * operand_bytes(FLOAT32, m.hidden));
        }
    }

    void run() {
        m.enorm ? join() : embed();
        for (int64_t n = 0; n < m.layers; n++) {
            const Layer& l = m.layer[n];
            norm_rows(l.input_norm, l.first);
            product(l.first, operand(l.first), {projected, l.first.out}, false);
            mla ? latent_queries(l) : grouped_queries(l);
            attend(l);
            if (mla) latent_values(l);
            const float* out = mla ? queries : mixed;
            const int64_t out_width = m.heads * m.value;
            team.each(rows, 4, [&](int64_t t) { ready(l.o, out + t * out_width, t); });
            product(l.o, operand(l.o), {residual, m.hidden}, true);
            if (l.router.data) mixture(l);
            else dense(l);
        }
        finish();
    }

   private:
    const Model& m;
    const Batch& b;
    const Part part;
    Team& team;
    const int64_t rows;
    const bool mla;
    const int64_t key, value, width, q_step;  // of a cached group: its keys' and values' width; of an entry; of a query
    const int64_t* table;
    int64_t *position, *sequence, *experts, *choice, *choice_token, *starts, *busy, n_busy = 0;
    float *residual, *projected, *queries, *mixed, *absorbed, *scores, *weights, *expert_out;
    char *operands, *dense_active, *head_operands, *active, *routed;
    C* attending;

    static constexpr int64_t CUT = 240;  // rows of a product that are one piece of work: a multiple of every tile's

    // ------------------------------------------------------------------------------------------------ small steps

    // Row t of the operands, from x, for a product with `matrix`.
    void ready(const Matrix& matrix, const float* x, int64_t t) {
        prepare(matrix.kind, x, matrix.in, operands + t * operand_bytes(matrix.kind, matrix.in));
    }
    Operands operand(const Matrix& matrix) const { return {operands, operand_bytes(matrix.kind, matrix.in)}; }

    void product(const Matrix& matrix, const Operands& x, const Results& y, bool add) { product(matrix, x, y, add, rows); }
    void product(const Matrix& matrix, const Operands& x, const Results& y, bool add, int64_t n) {
        const int64_t cuts = (n + CUT - 1) / CUT;
        team.each(panels_of(matrix) * cuts, team.neighbours(panels_of(matrix) * cuts), [&](int64_t i) {
            const int64_t row = i % cuts * CUT;
            multiply_panel(matrix, i / cuts, x.from(row), y.from(row), add, std::min(CUT, n - row));
        });
    }

    void norm_rows(const float* weight, const Matrix& matrix) {
        team.each(rows, 4, [&](int64_t t) {
            float* row = row_buffer(m.hidden);
            norm(residual + t * m.hidden, m.hidden, weight, m.eps, row);
            ready(matrix, row, t);
        });
    }

    void embedding_of(int64_t token, float* to) const {
        for (int64_t i = 0; i < m.hidden; i++)
            to[i] = m.half_embedding ? to_float(static_cast<const bf16*>(m.embedding)[token * m.hidden + i])
                                     : static_cast<const float*>(m.embedding)[token * m.hidden + i];
    }

    void embed() {
        team.each(rows, 4, [&](int64_t t) { embedding_of(b.tokens[part.token + t], residual + t * m.hidden); });
    }

    // The MTP module's input: [embedding of the next token, state of this one], each normed, through eh_proj.
    void join() {
        team.each(rows, 4, [&](int64_t t) {
            float* row = row_buffer(3 * m.hidden);
            embedding_of(b.tokens[part.token + t], row + 2 * m.hidden);
            norm(row + 2 * m.hidden, m.hidden, m.enorm, m.eps, row);
            norm(b.states + (part.token + t) * m.hidden, m.hidden, m.hnorm, m.eps, row + m.hidden);
            ready(m.eh_proj, row, t);
        });
        product(m.eh_proj, operand(m.eh_proj), {residual, m.hidden}, false);
    }

    // --------------------------------------------------------------------------------------------------- attention

    // The block of token t's position; its number in it is position[t] % BLOCK.
    C* block_of(const Layer& l, int64_t t) const {
        return static_cast<C*>(l.cache) + table[sequence[t] * b.table_width + position[t] / BLOCK] * BLOCK * width;
    }

    Places<C> places(int64_t group) const { return {width, key, value, group, mla}; }

    void grouped_queries(const Layer& l) {
        const int64_t head = m.value, keys = m.groups * head;
        team.each(rows, 4, [&](int64_t t) {
            float* q = projected + t * l.first.out;
            float* k = q + m.heads * head;
            const float* rotary = m.rotary + position[t] * head;
            for (int64_t h = 0; h < m.heads + m.groups; h++) {
                float* one = q + h * head;  // keys follow queries
                const float* weight = h < m.heads ? l.q_norm : l.k_norm;
                if (weight) norm(one, head, weight, m.eps, one);
                rotate(one, rotary, head, false);
            }
            store_queries(t, q, head);
            store_entry(block_of(l, t), places(0), position[t] % BLOCK, k, k + keys, m.groups);
        });
    }

    void store_queries(int64_t t, const float* q, int64_t step) {
        for (int64_t h = 0; h < m.heads; h++) {
            C* to = attending + (t * m.heads + h) * q_step;
            store_all(to, q + h * step, key);
            if (q_step > key) to[key] = C{};
        }
    }

    // MLA, absorbed: kv_b's key half moves into the query, so that every head reads the one cached latent.
    void latent_queries(const Layer& l) {
        const int64_t head = m.nope + m.rope, kv_at = l.first.out - width;
        if (m.q_rank) {
            team.each(rows, 4, [&](int64_t t) {
                float* row = row_buffer(m.q_rank);
                norm(projected + t * l.first.out, m.q_rank, l.q_norm, 1e-6f, row);
                ready(l.q_b, row, t);
            });
            product(l.q_b, operand(l.q_b), {queries, m.heads * head}, false);
        }
        const float* q_from = m.q_rank ? queries : projected;
        const int64_t q_stride = m.q_rank ? m.heads * head : l.first.out;
        const Matrix& k0 = l.absorb_k[0];
        const int64_t bytes = operand_bytes(k0.kind, m.nope);
        team.each(rows, 4, [&](int64_t t) {
            const float* rotary = m.rotary + position[t] * m.rope;
            float* kv = projected + t * l.first.out + kv_at;
            norm(kv, m.latent, l.kv_norm, 1e-6f, kv);
            rotate(kv + m.latent, rotary, m.rope, true);
            store_all(block_of(l, t) + position[t] % BLOCK * width, kv, width);
            for (int64_t h = 0; h < m.heads; h++) {
                const float* q = q_from + t * q_stride + h * head;
                prepare(k0.kind, q, m.nope, head_operands + (t * m.heads + h) * bytes);
                float* turned = absorbed + (t * m.heads + h) * key + m.latent;
                std::copy_n(q + m.nope, m.rope, turned);
                rotate(turned, rotary, m.rope, true);
            }
        });
        per_head(l.absorb_k, bytes, absorbed, key);
        team.each(rows, 4, [&](int64_t t) { store_queries(t, absorbed + t * m.heads * key, key); });
    }

    // Each head's rows of head_operands times its matrix, to rows of y `step` apart.
    void per_head(const Matrix* matrices, int64_t bytes, float* y, int64_t step) {
        const int64_t panels = panels_of(matrices[0]);
        team.each(m.heads * panels, team.neighbours(m.heads * panels), [&](int64_t i) {
            const int64_t h = i / panels;
            multiply_panel(matrices[h], i % panels, {head_operands + h * bytes, m.heads * bytes}, {y + h * step, m.heads * step},
                           false, rows);
        });
    }

    void latent_values(const Layer& l) {
        const int64_t bytes = operand_bytes(l.absorb_v[0].kind, m.latent);
        team.each(rows, 4, [&](int64_t t) {
            for (int64_t h = 0; h < m.heads; h++)
                prepare(l.absorb_v[0].kind, mixed + (t * m.heads + h) * m.latent, m.latent,
                        head_operands + (t * m.heads + h) * bytes);
        });
        per_head(l.absorb_v, bytes, queries, m.value);
    }

    void attend(const Layer& l) {
        const int64_t groups = mla ? 1 : m.groups, shared = m.heads / groups;
        constexpr int64_t TOKENS = 128;  // of a prompt's chunk that are one piece of work
        // Pieces: of generated tokens, some heads of a group; of a prompt, all heads of a group for some tokens.
        const int64_t splits = std::min<int64_t>(shared, std::max<int64_t>(1, 2 * team.members / std::max<int64_t>(1, rows * groups)));
        const int64_t some = (shared + splits - 1) / splits;
        static thread_local std::vector<std::pair<int64_t, int64_t>> mine;
        mine.clear();  // (first token of the piece, its tokens; 0: a generated token)
        for (int64_t s = part.begin, t = 0; s < part.end; t += b.counts[s], s++)
            for (int64_t i = 0; i < b.counts[s]; i += b.prompt[s] ? TOKENS : 1)
                mine.emplace_back(t + i, b.prompt[s] ? std::min(TOKENS, b.counts[s] - i) : 0);
        const auto& pieces = mine;
        team.each(pieces.size() * groups * splits, 1, [&](int64_t i) {
            const auto [t, tokens] = pieces[i / (groups * splits)];
            const int64_t g = i / splits % groups, h = g * shared + i % splits * some;
            const Entries<C> e(places(g), static_cast<const C*>(l.cache), table + sequence[t] * b.table_width);
            if (!tokens) {
                const int64_t count = std::min(some, (g + 1) * shared - h);
                if (count > 0)
                    attend_token(e, attending + (t * m.heads + h) * q_step, q_step, count, position[t] + 1,
                                 static_cast<float>(m.softmax_scale), mixed + (t * m.heads + h) * value);
            } else if (i % splits == 0) {
                attend_chunk(e, attending + (t * m.heads + g * shared) * q_step, q_step, m.heads * q_step, shared, tokens,
                             position[t], static_cast<float>(m.softmax_scale), mixed + (t * m.heads + g * shared) * value,
                             m.heads * value);
            }
        });
    }

    // ------------------------------------------------------------------------------------------------ feed-forward

    // silu(gate) * up of x's rows, n of them, as operands of `down`: GROUP of its inputs at a time, number `unit`. gate_up's
    // blocks are the gate's and the up projection's in turn, so that both halves of a number come out of one panel.
    static void gated(const Matrix& gate_up, const Matrix& down, int64_t unit, const Operands& x, const Rows<char>& to, int64_t n) {
        constexpr int64_t PANELS = 2 * GROUP / PANEL_OUTPUTS, WIDTH = 2 * GROUP;
        static thread_local std::vector<float> kept;
        kept.resize(CUT * WIDTH);
        const int64_t count = std::min(GROUP, down.in - unit * GROUP);
        for (int64_t row = 0; row < n; row += CUT) {
            const int64_t some = std::min(CUT, n - row);
            for (int64_t p = unit * PANELS; p < std::min((unit + 1) * PANELS, panels_of(gate_up)); p++)
                multiply_panel(gate_up, p, x.from(row), {kept.data() - unit * WIDTH, WIDTH}, false, some);
            for (int64_t r = 0; r < some; r++) {
                float numbers[GROUP];
                const float* from = kept.data() + r * WIDTH;
                for (int64_t i = 0; i < GROUP; i += LANES)
                    for (int64_t l = 0; l < LANES; l++) {
                        const float gate = from[2 * i + l];
                        numbers[i + l] = gate * sigmoid(gate) * from[2 * i + LANES + l];
                    }
                if (halves(down.kind) && count == GROUP)
                    store_all(reinterpret_cast<bf16*>(to.at(row + r)) + unit * GROUP, numbers, GROUP);
                else
                    prepare_part(down.kind, numbers, unit * GROUP, count, down.in, to.at(row + r));
            }
        }
    }

    void dense(const Layer& l) {
        norm_rows(l.post_norm, l.gate_up);
        dense_products(l, operand(l.gate_up));
    }

    void dense_products(const Layer& l, const Operands& x) {
        const int64_t units = (l.down.in + GROUP - 1) / GROUP, cuts = (rows + CUT - 1) / CUT;
        const Rows<char> to{dense_active, operand_bytes(l.down.kind, l.down.in)};
        team.each(units * cuts, team.neighbours(units * cuts), [&](int64_t i) {
            const int64_t row = i % cuts * CUT;
            gated(l.gate_up, l.down, i / cuts, x.from(row), to.from(row), std::min(CUT, rows - row));
        });
        product(l.down, {dense_active, to.stride}, {residual, m.hidden}, true);
    }

    void mixture(const Layer& l) {
        const Matrix &gate_up = l.experts_gate_up[0], &down = l.experts_down[0];
        const int64_t routed_bytes = operand_bytes(gate_up.kind, m.hidden), active_bytes = operand_bytes(down.kind, down.in);
        team.each(rows, 4, [&](int64_t t) {
            float* row = row_buffer(m.hidden);
            norm(residual + t * m.hidden, m.hidden, l.post_norm, m.eps, row);
            ready(l.router, row, t);
            prepare(gate_up.kind, row, m.hidden, routed + t * routed_bytes);
        });
        product(l.router, operand(l.router), {scores, m.experts}, false);
        choose(l);
        const Operands x{routed, routed_bytes, choice_token}, activated{active, active_bytes, choice};
        const Rows<char> to{active, active_bytes, choice};
        const Results out{expert_out, m.hidden, choice};
        const int64_t units = (down.in + GROUP - 1) / GROUP, panels = panels_of(down);
        each_expert(units, [&](int64_t e, int64_t unit, int64_t first, int64_t n) {
            gated(l.experts_gate_up[e], l.experts_down[e], unit, x.from(first), to.from(first), n);
        });
        each_expert(panels, [&](int64_t e, int64_t p, int64_t first, int64_t n) {
            multiply_panel(l.experts_down[e], p, activated.from(first), out.from(first), false, n);
        });
        team.each(rows, 4, [&](int64_t t) {
            float* to = residual + t * m.hidden;
            for (int64_t k = 0; k < m.chosen; k++) {
                const float weight = weights[t * m.chosen + k];
                const float* from = expert_out + (t * m.chosen + k) * m.hidden;
                for (int64_t i = 0; i < m.hidden; i++) to[i] += weight * from[i];
            }
        });
        if (l.gate_up.data) dense_products(l, {routed, routed_bytes});  // the shared experts: of the routed ones' kind
    }

    // Each token's experts and weights, then the choices sorted by expert.
    void choose(const Layer& l) {
        const Routing routing{m.experts, m.chosen, m.n_group, m.topk_group, m.two_best, m.normalise,
                              static_cast<float>(m.routed_scale)};
        team.each(rows, 4, [&](int64_t t) {
            float* s = scores + t * m.experts;
            if (m.softmax) {
                const float top = *std::max_element(s, s + m.experts);
                float total = 0;
                for (int64_t e = 0; e < m.experts; e++) total += s[e] = exp_negative(s[e] - top);
                for (int64_t e = 0; e < m.experts; e++) s[e] /= total;
            } else {
                for (int64_t e = 0; e < m.experts; e++) s[e] = sigmoid(s[e]);
            }
            choose_experts(routing, s, l.correction, experts + t * m.chosen, weights + t * m.chosen);
        });
        team.each(1, 1, [&](int64_t) {
            const int64_t choices = rows * m.chosen;
            std::fill(starts, starts + m.experts + 1, 0);
            for (int64_t c = 0; c < choices; c++) starts[experts[c] + 1]++;
            for (int64_t e = 0; e < m.experts; e++) {
                if (l.uses) __atomic_fetch_add(l.uses + e, starts[e + 1], __ATOMIC_RELAXED);
                starts[e + 1] += starts[e];
            }
            for (int64_t c = 0; c < choices; c++) {
                const int64_t at = starts[experts[c]]++;
                choice[at] = c;
                choice_token[at] = c / m.chosen;
            }
            for (int64_t e = m.experts; e > 0; e--) starts[e] = starts[e - 1];
            starts[0] = n_busy = 0;
            for (int64_t e = 0; e < m.experts; e++)
                if (starts[e + 1] > starts[e]) busy[n_busy++] = e;
        });
    }

    // work(expert, piece, place of its first choice among the sorted ones, how many) for the experts that anybody chose.
    template <typename Work>
    void each_expert(int64_t pieces, Work work) {
        team.each(n_busy * pieces, team.neighbours(n_busy * pieces), [&](int64_t i) {
            const int64_t e = busy[i / pieces];
            work(e, i % pieces, starts[e], starts[e + 1] - starts[e]);
        });
    }

    // -------------------------------------------------------------------------------------------------------- head

    void finish() {
        const int64_t n = part.wanted_end - part.wanted;
        if (b.hidden)
            team.each(rows, 4, [&](int64_t t) {
                norm(residual + t * m.hidden, m.hidden, m.final_norm, m.eps, b.hidden + (part.token + t) * m.hidden);
            });
        team.each(n, 4, [&](int64_t i) {
            float* row = row_buffer(m.hidden);
            norm(residual + (b.wanted[part.wanted + i] - part.token) * m.hidden, m.hidden, m.final_norm, m.eps, row);
            ready(m.head, row, i);
        });
        product(m.head, operand(m.head), {b.logits + part.wanted * m.vocabulary, m.vocabulary}, false, n);
    }
};

}  // namespace
