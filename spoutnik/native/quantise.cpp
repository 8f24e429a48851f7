// Weights into the packed forms of matrix.h.
#include "matrix.h"
#include "team.h"

SPOUTNIK_LAYOUT(Matrix, unit)

namespace {

uint16_t to_half(float x) {  // nearest; what is too small for a normal half becomes zero
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = (bits & 0x7fffffff) + 0xfff + (bits >> 13 & 1);
    return magnitude < (113u << 23) ? sign : sign | ((magnitude - (112u << 23)) >> 13);
}

float from_half(uint16_t half) {
    const uint32_t magnitude = half & 0x7fff;
    const uint32_t bits = static_cast<uint32_t>(half & 0x8000) << 16 | (magnitude ? (magnitude << 13) + (112u << 23) : 0);
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

struct Chosen {
    uint16_t half;
    int8_t q[GROUP];
};

float squared_error(const float* w, float scale, int32_t low, int32_t high) {
    const float inverse = scale ? 1.0f / scale : 0.0f;
    float error = 0;
    for (int64_t i = 0; i < GROUP; i++) {
        const float q = std::min<float>(std::max<float>(std::nearbyint(w[i] * inverse), low), high);
        error += (w[i] - q * scale) * (w[i] - q * scale);
    }
    return error;
}

// The scale of a group and its numbers. In 8 bits the largest number fills the range; in 4 bits, where the range -8..7 is not
// symmetric, the largest lies at its -8 end, and of some smaller scales the one with the least squared error is taken.
Chosen choose(const float* w, int64_t kind, float unit) {
    float extreme = 0;
    for (int64_t i = 0; i < GROUP; i++)
        if (std::fabs(w[i]) > std::fabs(extreme)) extreme = w[i];
    const int32_t low = kind == INT4 ? -8 : -127, high = kind == INT4 ? 7 : 127;
    Chosen best{to_half(kind == INT4 ? extreme / -8.0f / unit : std::fabs(extreme) / 127.0f / unit), {}};
    if (kind == INT4) {
        float least = 1e30f;
        const float widest = extreme / -8.0f;
        for (int step = 0; step < 9; step++) {
            const uint16_t half = to_half(widest * (1.04f - 0.04f * step) / unit);
            const float error = squared_error(w, from_half(half) * unit, low, high);
            if (error < least) {
                least = error;
                best.half = half;
            }
        }
    }
    const float scale = from_half(best.half) * unit, inverse = scale ? 1.0f / scale : 0.0f;
    for (int64_t i = 0; i < GROUP; i++)
        best.q[i] = static_cast<int8_t>(std::min<float>(std::max<float>(or_zero(std::nearbyint(w[i] * inverse)), low), high));
    return best;
}

template <typename T>
struct Source {
    const T* data;
    int64_t out, in;
    float at(int64_t o, int64_t k) const { return o < out && k < in ? to_float(data[o * in + k]) : 0.0f; }
};

// Panel p of the source as it is, in T.
template <typename T, typename S>
void pack_panel(const Source<S>& from, int64_t p, T* to) {
    constexpr int64_t pair = Packed<T>::PAIR;
    const int64_t blocks = std::min(PANEL_BLOCKS, (from.out - p * PANEL_OUTPUTS + LANES - 1) / LANES);
    for (int64_t k = 0; k < from.in; k += pair)
        for (int64_t l = 0; l < blocks * LANES; l++)
            for (int64_t i = 0; i < pair; i++) store(to++, from.at(p * PANEL_OUTPUTS + l, k + i));
}

template <typename S>
void quantise_panel(const Source<S>& from, int64_t p, int64_t kind, float unit, uint8_t* to) {
    const int64_t blocks = std::min(PANEL_BLOCKS, (from.out - p * PANEL_OUTPUTS + LANES - 1) / LANES), lanes = blocks * LANES;
    for (int64_t k = 0; k < from.in; k += GROUP) {
        uint8_t* scales = to + lanes * (kind == INT4 ? GROUP / 2 : GROUP);
        for (int64_t l = 0; l < lanes; l++) {
            float w[GROUP];
            for (int64_t i = 0; i < GROUP; i++) w[i] = from.at(p * PANEL_OUTPUTS + l, k + i);
            const Chosen chosen = choose(w, kind, unit);
            for (int64_t j = 0; j < GROUP / 8; j++)
                for (int64_t i = 0; i < 4; i++) {
                    const int8_t first = chosen.q[8 * j + i], second = chosen.q[8 * j + 4 + i];
                    if (kind == INT4) {
                        to[(j * lanes + l) * 4 + i] = static_cast<uint8_t>((first + 8) | (second + 8) << 4);
                    } else {
                        to[(2 * j * lanes + l) * 4 + i] = static_cast<uint8_t>(first + 128);
                        to[((2 * j + 1) * lanes + l) * 4 + i] = static_cast<uint8_t>(second + 128);
                    }
                }
            std::memcpy(scales + 2 * l, &chosen.half, 2);
        }
        to = scales + 2 * lanes;
    }
}

// A panel in its compact form, and what its table does not hold.
template <typename S>
std::vector<compact::Exception> compact_panel(const Source<S>& from, int64_t p, uint8_t* to) {
    static thread_local std::vector<bf16> plain;
    const int64_t outputs = std::min(PANEL_OUTPUTS, rounded(from.out - p * PANEL_OUTPUTS, LANES));
    const int64_t inputs = stored_inputs(COMPACT, from.in), records = compact::records_of(inputs, outputs);
    plain.assign(records * compact::RECORD, 0);
    pack_panel(from, p, plain.data());
    const compact::Table table(plain.data(), inputs * outputs);
    std::memset(to, 0, compact::TABLE_BYTES);
    std::memcpy(to, table.values, sizeof table.values);
    std::vector<compact::Exception> exceptions;
    for (int64_t r = 0; r < records; r++) {
        const bf16* weights = plain.data() + r * compact::RECORD;
        if (!compact::pack(table, weights, to + compact::TABLE_BYTES + r * compact::RECORD_BYTES)) continue;
        for (int64_t i = 0; i < std::min(compact::RECORD, inputs * outputs - r * compact::RECORD); i++)
            if (table.code[weights[i] >> 8] == compact::Table::OTHER)
                exceptions.push_back({static_cast<uint32_t>(r * compact::RECORD + i), weights[i], 0});
    }
    return exceptions;
}

// The compact form at `to`, where there are `room` bytes; returns how many it takes, which depends on the numbers, or 0: more.
template <typename S>
int64_t compact_matrix(const Source<S>& from, const Matrix& m, char* to, int64_t room, int threads) {
    const int64_t parts = compact::parts_of(stored_inputs(COMPACT, m.in)), panels = panels_of(m);
    const int64_t panels_bytes = packed_bytes(COMPACT, m.in, rounded(m.out, LANES));
    if (panels_bytes > room) return 0;
    std::vector<std::vector<compact::Exception>> exceptions(panels);
    Team team(threads);
    Threads::run(threads, [&](int) {
        team.each(panels, 1, [&](int64_t p) {
            exceptions[p] = compact_panel(from, p, reinterpret_cast<uint8_t*>(to) + packed_bytes(COMPACT, m.in, p * PANEL_OUTPUTS));
        });
    });
    int64_t bytes = panels_bytes + 8 * (panels * parts + 1);
    for (const auto& of_panel : exceptions) bytes += of_panel.size() * sizeof(compact::Exception);
    if (bytes > room) return 0;
    auto* starts = reinterpret_cast<int64_t*>(to + panels_bytes);
    auto* written = reinterpret_cast<compact::Exception*>(starts + panels * parts + 1);
    int64_t done = 0;
    for (int64_t p = 0; p < panels; p++) {
        const int64_t outputs = std::min(PANEL_OUTPUTS, rounded(m.out - p * PANEL_OUTPUTS, LANES));
        auto next = exceptions[p].begin();
        for (int64_t part = 0; part < parts; part++) {
            starts[p * parts + part] = done;
            for (; next != exceptions[p].end() && next->place < (part + 1) * compact::PART * outputs; next++)
                written[done++] = *next;
        }
    }
    starts[panels * parts] = done;
    return bytes;
}

// with(source) of a weight (out, in), row by row, in float or (half != 0) bfloat16.
template <typename With>
auto with_source(const void* weight, int64_t half, const Matrix& m, With with) {
    return half ? with(Source<bf16>{static_cast<const bf16*>(weight), m.out, m.in})
                : with(Source<float>{static_cast<const float*>(weight), m.out, m.in});
}

template <typename S>
void pack(const Source<S>& from, const Matrix& m, char* to, int threads) {
    Team team(threads);
    Threads::run(threads, [&](int) {
        team.each(panels_of(m), 1, [&](int64_t p) {
            char* panel = to + packed_bytes(m.kind, m.in, p * PANEL_OUTPUTS);
            if (m.kind == FLOAT32) pack_panel(from, p, reinterpret_cast<float*>(panel));
            else if (m.kind == BFLOAT16) pack_panel(from, p, reinterpret_cast<bf16*>(panel));
            else quantise_panel(from, p, m.kind, m.unit, reinterpret_cast<uint8_t*>(panel));
        });
    });
}

}  // namespace

extern "C" {

int64_t lanes() { return LANES; }

int64_t packed_size(int64_t kind, int64_t in, int64_t out) { return packed_bytes(kind, in, rounded(out, LANES)); }

// Whether this processor reads compact weights quickly.
int64_t reads_compact() { return SPOUTNIK_COMPACT; }

// A compact weight, into `room` bytes; how many it takes, or 0 where that is more.
int64_t pack_compact(const void* weight, int64_t half, const Matrix* m, void* to, int64_t room, int64_t threads) {
    return with_source(weight, half, *m,
                       [&](const auto& from) { return compact_matrix(from, *m, static_cast<char*>(to), room, threads); });
}

void pack_matrix(const void* weight, int64_t half, const Matrix* m, void* to, int64_t threads) {
    with_source(weight, half, *m, [&](const auto& from) { return pack(from, *m, static_cast<char*>(to), threads); });
}

// y (rows, out) = x (rows, in) times the packed matrix: what forward does with one, alone.
void multiply_packed(const Matrix* m, const float* x, float* y, int64_t rows, int64_t threads) {
    const int64_t stride = operand_bytes(m->kind, m->in);
    std::vector<char> operands(rows * stride + 64);
    Team team(threads);
    Threads::run(threads, [&](int) {
        team.each(rows, 1, [&](int64_t r) { prepare(m->kind, x + r * m->in, m->in, operands.data() + r * stride); });
        team.each(panels_of(*m), team.neighbours(panels_of(*m)), [&](int64_t p) {
            multiply_panel(*m, p, {operands.data(), stride}, {y, m->out}, false, rows);
        });
    });
}

}
