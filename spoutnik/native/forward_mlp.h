// The feed-forward layers of ForwardPass: dense, or routed and shared experts.
#pragma once

#include "forward_pass.h"

namespace {

// silu(gate) * up of n rows of x, as activations for `down`: group `unit` of its inputs. Blocks of the gate and of the up
// projection alternate in gate_up, so that both halves of a number come out of one panel.
template <typename C>
inline void ForwardPass<C>::swiglu_activations(const Matrix& gate_up, const Matrix& down, int64_t unit, const Activations& x,
                                               const RowView<char>& to, int64_t n, const AdapterPart& part, int64_t first_row) {
    constexpr int64_t PANELS = 2 * GROUP_SIZE / PANEL_OUTPUTS, WIDTH = 2 * GROUP_SIZE;
    static thread_local std::vector<float> buffer;
    buffer.resize(ROWS_PER_TASK * WIDTH);
    const int64_t count = std::min(GROUP_SIZE, down.in - unit * GROUP_SIZE);
    for (int64_t row = 0; row < n; row += ROWS_PER_TASK) {
        const int64_t some = std::min(ROWS_PER_TASK, n - row);
        for (int64_t p = unit * PANELS; p < std::min((unit + 1) * PANELS, panel_count(gate_up)); p++) {
            multiply_panel(gate_up, p, x.from(row), {buffer.data() - unit * WIDTH, WIDTH}, false, some);
            const int64_t at = first_row + row;  // which the buffer begins with
            if (part.layer) adapt_out(part, p, gate_up.out, buffer.data() - unit * WIDTH - at * WIDTH, WIDTH, at, some);
        }
        for (int64_t r = 0; r < some; r++) {
            float numbers[GROUP_SIZE];
            const float* from = buffer.data() + r * WIDTH;
            for (int64_t i = 0; i < GROUP_SIZE; i += LANES)
                for (int64_t l = 0; l < LANES; l++) {
                    const float gate = from[2 * i + l];
                    numbers[i + l] = gate * sigmoid(gate) * from[2 * i + LANES + l];
                }
            if (is_bfloat16(down.kind) && count == GROUP_SIZE)
                store_floats(reinterpret_cast<bf16*>(to.at(row + r)) + unit * GROUP_SIZE, numbers, GROUP_SIZE);
            else
                convert_activations(down.kind, numbers, unit * GROUP_SIZE, count, down.in, to.at(row + r));
        }
    }
}

template <typename C>
inline void ForwardPass<C>::mlp(const Layer& l) {
    norm_activations(l.post_norm, l.gate_up);
    mlp_products(l, activations_for(l.gate_up));
}

template <typename C>
inline void ForwardPass<C>::mlp_products(const Layer& l, const Activations& x) {
    const int64_t units = ceil_div(l.down.in, GROUP_SIZE), row_parts = ceil_div(rows, ROWS_PER_TASK);
    const RowView<char> to{dense_active, activation_bytes(l.down.kind, l.down.in)};
    adapt_activations({&l, &LayerAdapter::gate_up}, l.gate_up, x);
    threads.parallel_for(units * row_parts, threads.stream_chunk(units * row_parts), [&](int64_t i) {
        const int64_t row = i % row_parts * ROWS_PER_TASK;
        swiglu_activations(l.gate_up, l.down, i / row_parts, x.from(row), to.from(row), std::min(ROWS_PER_TASK, rows - row),
                           {&l, &LayerAdapter::gate_up}, row);
    });
    adapt_activations({&l, &LayerAdapter::down}, l.down, {dense_active, to.stride});
    matmul(l.down, {dense_active, to.stride}, {residual, m.hidden}, true, {&l, &LayerAdapter::down});
}

template <typename C>
inline void ForwardPass<C>::moe(const Layer& l) {
    const Matrix &gate_up = l.experts_gate_up[0], &down = l.experts_down[0];
    const int64_t routed_bytes = activation_bytes(gate_up.kind, m.hidden), active_bytes = activation_bytes(down.kind, down.in);
    threads.parallel_for(rows, 4, [&](int64_t t) {
        float* row = row_buffer(m.hidden);
        rms_norm(residual + t * m.hidden, m.hidden, l.post_norm, m.eps, row);
        store_activations(l.router, row, t);
        convert_row(gate_up.kind, row, m.hidden, routed + t * routed_bytes);
    });
    matmul(l.router, activations_for(l.router), {scores, m.experts}, false);
    route(l);
    const Activations x{routed, routed_bytes, choice_token}, activated{active, active_bytes, choice};
    const RowView<char> to{active, active_bytes, choice};
    const Outputs out{expert_out, m.hidden, choice};
    const int64_t units = ceil_div(down.in, GROUP_SIZE), panels = panel_count(down);
    for_each_expert(units, [&](int64_t e, int64_t unit, int64_t first, int64_t n) {
        swiglu_activations(l.experts_gate_up[e], l.experts_down[e], unit, x.from(first), to.from(first), n);
    });
    for_each_expert(panels, [&](int64_t e, int64_t p, int64_t first, int64_t n) {
        multiply_panel(l.experts_down[e], p, activated.from(first), out.from(first), false, n);
    });
    threads.parallel_for(rows, 4, [&](int64_t t) {
        float* to = residual + t * m.hidden;
        for (int64_t k = 0; k < m.chosen; k++) {
            const float weight = weights[t * m.chosen + k];
            const float* from = expert_out + (t * m.chosen + k) * m.hidden;
            for (int64_t i = 0; i < m.hidden; i++) to[i] += weight * from[i];
        }
    });
    if (l.gate_up.data) mlp_products(l, {routed, routed_bytes});  // shared experts, of the same kind as the routed ones
}

// Each token's experts and weights, then the choices sorted by expert.
template <typename C>
inline void ForwardPass<C>::route(const Layer& l) {
    const Routing routing{m.experts, m.chosen, m.n_group, m.topk_group, m.two_best, m.normalize,
                          static_cast<float>(m.routed_scale)};
    threads.parallel_for(rows, 4, [&](int64_t t) {
        float* s = scores + t * m.experts;
        if (m.softmax) {
            const float top = *std::max_element(s, s + m.experts);
            float total = 0;
            for (int64_t e = 0; e < m.experts; e++) total += s[e] = exp_nonpositive(s[e] - top);
            for (int64_t e = 0; e < m.experts; e++) s[e] /= total;
        } else {
            for (int64_t e = 0; e < m.experts; e++) s[e] = sigmoid(s[e]);
        }
        choose_experts(routing, s, l.correction, experts + t * m.chosen, weights + t * m.chosen);
    });
    threads.parallel_for(1, 1, [&](int64_t) {
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

// work(expert, piece, index of its first choice among the sorted ones, how many) for the experts that were chosen.
template <typename C>
template <typename Work>
inline void ForwardPass<C>::for_each_expert(int64_t pieces, Work work) {
    threads.parallel_for(n_busy * pieces, threads.stream_chunk(n_busy * pieces), [&](int64_t i) {
        const int64_t e = busy[i / pieces];
        work(e, i % pieces, starts[e], starts[e + 1] - starts[e]);
    });
}

}  // namespace
