// Packing: weights into the forms of packed_matrix.h, quantized where the kind asks for it; and the product with one matrix.
#include <vector>

#include "int4_search.h"
#include "packed_multiply.h"
#include "thread_pool.h"

SPOUTNIK_LAYOUT(Matrix, unit)

namespace {

// A weight (out, in), row by row; 0 outside.
template <typename T>
struct WeightView {
    const T* data;
    int64_t out, in;
    float at(int64_t o, int64_t k) const { return o < out && k < in ? to_float(data[o * in + k]) : 0.0f; }
    // Inputs [k, k + count) of output o.
    void row(int64_t o, int64_t k, int64_t count, float* to) const {
        const int64_t inside = o < out ? std::min(count, in - k) : 0;
        for (int64_t i = 0; i < inside; i++) to[i] = to_float(data[o * in + k + i]);
        std::fill(to + inside, to + count, 0.0f);
    }
};

// Packs panel p without quantizing, in T.
template <typename T, typename S>
void pack_panel(const WeightView<S>& from, int64_t p, T* to) {
    constexpr int64_t pair = Packing<T>::PAIR;
    const int64_t blocks = block_count(from.out, p);
    for (int64_t k = 0; k < from.in; k += pair)
        for (int64_t l = 0; l < blocks * LANES; l++)
            for (int64_t i = 0; i < pair; i++) store(to++, from.at(p * PANEL_OUTPUTS + l, k + i));
}

// 8 bits: the largest weight of a group fills the range.
template <typename S>
void pack_int8_panel(const WeightView<S>& from, int64_t p, float unit, uint8_t* to) {
    const int64_t lanes = block_count(from.out, p) * LANES;
    for (int64_t k = 0; k < from.in; k += GROUP_SIZE) {
        uint8_t* scales = to + lanes * GROUP_SIZE;
        for (int64_t l = 0; l < lanes; l++) {
            float w[GROUP_SIZE], extreme = 0;
            from.row(p * PANEL_OUTPUTS + l, k, GROUP_SIZE, w);
            for (float v : w) extreme = std::max(extreme, std::fabs(v));
            const uint16_t half = float_to_half(extreme / 127.0f / unit);
            const float scale = half_to_float(half) * unit, inverse = scale ? 1.0f / scale : 0.0f;
            for (int64_t i = 0; i < GROUP_SIZE; i++) {
                const float q = std::min(std::max(nan_to_zero(std::nearbyint(w[i] * inverse)), -127.0f), 127.0f);
                to[(i / 4 * lanes + l) * 4 + i % 4] = static_cast<uint8_t>(static_cast<int32_t>(q) + 128);
            }
            std::memcpy(scales + 2 * l, &half, 2);
        }
        to = scales + 2 * lanes;
    }
}

// 4 bits (int4_search.h).
template <typename S>
void pack_int4_panel(const WeightView<S>& from, int64_t p, float unit, uint8_t* to) {
    static thread_local std::vector<float> row;
    const int64_t lanes = block_count(from.out, p) * LANES, inputs = padded_inputs(INT4, from.in);
    row.resize(inputs);
    for (int64_t l = 0; l < lanes; l++) {
        from.row(p * PANEL_OUTPUTS + l, 0, inputs, row.data());
        const uint16_t half = float_to_half(widest_scale(row.data(), inputs) / 255 / unit);
        std::memcpy(to + 2 * l, &half, 2);
        uint8_t* record = to + 2 * lanes;
        for (int64_t k = 0; k < inputs; k += GROUP_SIZE, record += lanes * (GROUP_SIZE / 2 + 2)) {
            const Int4Group group = quantize_int4(row.data() + k, half_to_float(half) * unit);
            for (int64_t i = 0; i < GROUP_SIZE; i++)
                if (i % 8 < 4) record[(i / 8 * lanes + l) * 4 + i % 4] = group.q[i] | group.q[i + 4] << 4;
            uint8_t* pair = record + lanes * GROUP_SIZE / 2 + 2 * l;
            pair[0] = group.zero;
            pair[1] = group.scale;
        }
    }
}

// Packs a panel as bf12; returns the weights that its table does not hold.
template <typename S>
std::vector<bf12::Exception> pack_bf12_panel(const WeightView<S>& from, int64_t p, uint8_t* to) {
    static thread_local std::vector<bf16> plain;
    const int64_t outputs = std::min(PANEL_OUTPUTS, round_up(from.out - p * PANEL_OUTPUTS, LANES));
    const int64_t inputs = padded_inputs(BF12, from.in), records = bf12::record_count(inputs, outputs);
    plain.assign(records * bf12::RECORD, 0);
    pack_panel(from, p, plain.data());
    const bf12::Table table(plain.data(), inputs * outputs);
    std::memset(to, 0, bf12::TABLE_BYTES);
    std::memcpy(to, table.values, sizeof table.values);
    std::vector<bf12::Exception> exceptions;
    for (int64_t r = 0; r < records; r++) {
        const bf16* weights = plain.data() + r * bf12::RECORD;
        if (!bf12::pack(table, weights, to + bf12::TABLE_BYTES + r * bf12::RECORD_BYTES)) continue;
        for (int64_t i = 0; i < std::min(bf12::RECORD, inputs * outputs - r * bf12::RECORD); i++)
            if (table.code[weights[i] >> 8] == bf12::Table::OTHER)
                exceptions.push_back({static_cast<uint32_t>(r * bf12::RECORD + i), weights[i], 0});
    }
    return exceptions;
}

// A bf12 matrix at `to`, which has `capacity` bytes; returns how many it takes, which depends on the numbers, or 0: more.
template <typename S>
int64_t pack_bf12(const WeightView<S>& from, const Matrix& m, char* to, int64_t capacity, int threads) {
    const int64_t parts = bf12::part_count(padded_inputs(BF12, m.in)), panels = panel_count(m);
    const int64_t panels_bytes = packed_nbytes(BF12, m.in, round_up(m.out, LANES));
    if (panels_bytes > capacity) return 0;
    std::vector<std::vector<bf12::Exception>> exceptions(panels);
    ThreadGroup group(threads);
    ThreadPool::run(threads, [&](int) {
        group.parallel_for(panels, 1, [&](int64_t p) {
            char* panel = to + packed_nbytes(BF12, m.in, p * PANEL_OUTPUTS);
            exceptions[p] = pack_bf12_panel(from, p, reinterpret_cast<uint8_t*>(panel));
        });
    });
    int64_t bytes = panels_bytes + 8 * (panels * parts + 1);
    for (const auto& of_panel : exceptions) bytes += of_panel.size() * sizeof(bf12::Exception);
    if (bytes > capacity) return 0;
    auto* starts = reinterpret_cast<int64_t*>(to + panels_bytes);
    auto* written = reinterpret_cast<bf12::Exception*>(starts + panels * parts + 1);
    int64_t done = 0;
    for (int64_t p = 0; p < panels; p++) {
        const int64_t outputs = std::min(PANEL_OUTPUTS, round_up(m.out - p * PANEL_OUTPUTS, LANES));
        auto next = exceptions[p].begin();
        for (int64_t part = 0; part < parts; part++) {
            starts[p * parts + part] = done;
            for (; next != exceptions[p].end() && next->index < (part + 1) * bf12::PART * outputs; next++)
                written[done++] = *next;
        }
    }
    starts[panels * parts] = done;
    return bytes;
}

// function(view) of a weight (out, in), float or (half != 0) bfloat16.
template <typename Function>
auto with_view(const void* weight, int64_t half, const Matrix& m, Function function) {
    return half ? function(WeightView<bf16>{static_cast<const bf16*>(weight), m.out, m.in})
                : function(WeightView<float>{static_cast<const float*>(weight), m.out, m.in});
}

template <typename S>
void pack(const WeightView<S>& from, const Matrix& m, char* to, int threads) {
    ThreadGroup group(threads);
    ThreadPool::run(threads, [&](int) {
        group.parallel_for(panel_count(m), 1, [&](int64_t p) {
            char* panel = to + packed_nbytes(m.kind, m.in, p * PANEL_OUTPUTS);
            if (m.kind == FLOAT32) pack_panel(from, p, reinterpret_cast<float*>(panel));
            else if (m.kind == BFLOAT16) pack_panel(from, p, reinterpret_cast<bf16*>(panel));
            else if (m.kind == INT8) pack_int8_panel(from, p, m.unit, reinterpret_cast<uint8_t*>(panel));
            else pack_int4_panel(from, p, m.unit, reinterpret_cast<uint8_t*>(panel));
        });
    });
}

// The numbers that panel p of a matrix of 8 or 4 bits stands for: its outputs as rows of `m.in` floats, at `to`.
void unpack_panel(const Matrix& m, int64_t p, float* to) {
    const bool is_int8 = m.kind == INT8;
    const int64_t lanes = block_count(m.out, p) * LANES, codes = lanes * (is_int8 ? GROUP_SIZE : GROUP_SIZE / 2);
    const int64_t outputs = std::min(PANEL_OUTPUTS, m.out - p * PANEL_OUTPUTS);
    const auto* panel = reinterpret_cast<const uint8_t*>(panel_at(m, p));
    const float unit = static_cast<float>(m.unit);
    for (int64_t l = 0; l < outputs; l++, to += m.in) {
        const uint8_t* record = is_int8 ? panel : panel + 2 * lanes;
        const float of_output = is_int8 ? unit : half_to_float(load<uint16_t>(panel + 2 * l)) * unit;
        for (int64_t k = 0; k < m.in; k += GROUP_SIZE, record += codes + 2 * lanes) {
            const int64_t here = std::min(GROUP_SIZE, m.in - k);
            const uint8_t* behind = record + codes + 2 * l;
            const float scale = (is_int8 ? half_to_float(load<uint16_t>(behind)) : behind[1]) * of_output;
            const float zero = is_int8 ? 128.0f : behind[0] / 16.0f;
            for (int64_t i = 0; i < here; i++) {
                const int64_t j = is_int8 ? i / 4 : i / 8;
                const uint8_t code = record[(j * lanes + l) * 4 + i % 4];
                const float q = is_int8 ? code : i % 8 < 4 ? code & 15 : code >> 4;
                to[k + i] = (q - zero) * scale;
            }
        }
    }
}

}  // namespace

extern "C" {

int64_t spoutnik_lanes() { return LANES; }

int64_t spoutnik_packed_nbytes(int64_t kind, int64_t in, int64_t out) { return packed_nbytes(kind, in, round_up(out, LANES)); }

// Whether this processor decodes bf12 as fast as it reads memory.
int64_t spoutnik_has_fast_bf12() { return SPOUTNIK_LOOKUP; }

// Packs a weight as bf12 into `capacity` bytes; returns how many it takes, or 0: more.
int64_t spoutnik_pack_bf12(const void* weight, int64_t half, const Matrix* m, void* to, int64_t capacity, int64_t threads) {
    return with_view(weight, half, *m,
                       [&](const auto& from) { return pack_bf12(from, *m, static_cast<char*>(to), capacity, threads); });
}

void spoutnik_pack_matrix(const void* weight, int64_t half, const Matrix* m, void* to, int64_t threads) {
    with_view(weight, half, *m, [&](const auto& from) { return pack(from, *m, static_cast<char*>(to), threads); });
}

// Panels [first, last) of a matrix of 8 or 4 bits, dequantized: rows of `in` floats at `to`.
void spoutnik_unpack_panels(const Matrix* m, int64_t first, int64_t last, float* to) {
    for (int64_t p = first; p < last; p++) unpack_panel(*m, p, to + (p - first) * PANEL_OUTPUTS * m->in);
}

// y (rows, out) = x (rows, in) times the packed matrix transposed, as the forward pass computes it.
void spoutnik_multiply_packed(const Matrix* m, const float* x, float* y, int64_t rows, int64_t threads) {
    const int64_t stride = activation_bytes(m->kind, m->in);
    std::vector<char> activations(rows * stride + 64);
    ThreadGroup group(threads);
    ThreadPool::run(threads, [&](int) {
        const amx::Tiles tiles;
        group.parallel_for(rows, 1, [&](int64_t r) {
            convert_row(m->kind, x + r * m->in, m->in, activations.data() + r * stride);
        });
        group.parallel_for(panel_count(*m), group.stream_chunk(panel_count(*m)), [&](int64_t p) {
            multiply_panel(*m, p, {activations.data(), stride}, {y, m->out}, false, rows);
        });
    });
}

}
