// Weights packed for inference, in five kinds: float32, bfloat16 (plain, or bf12: the same numbers in 12 bits, bf12.h), and
// groups of 32 inputs in 8 bits with a scale, or in 4 bits with a scale and a zero.
//
// Outputs lie in panels of 4 blocks of LANES (the last panel may have fewer blocks), and a panel is one stream of memory:
//   float32   (in, block, LANES)
//   bfloat16  (in / 2, block, LANES, 2)
//   int8      (in / 32, record): (8, block, LANES, 4) bytes holding value + 128, then (block, LANES) scales
//   int4      (block, LANES) units of half precision, then (in / 32, record): (4, block, LANES, 4) bytes, a number q in [0, 15]
//             of input 8j + i in the low half and of 8j + 4 + i in the high half, then (block, LANES, 2) bytes, the zero and
//             the scale of the group: the weight is unit * scale * (q - zero / 16)
// Outputs and inputs are padded with zeros. engine/quantization/packed_matrix.py owns the memory.
#pragma once

#include "bf12.h"
#include "tile.h"

extern "C" {

enum Kind : int64_t { FLOAT32, BFLOAT16, INT8, INT4, BF12 };

// Mirrored by structs.py. bias (out) or null; unit: what scales (int8) and units (int4) are multiples of, so that half precision suits them.
struct Matrix {
    const void* data;
    const float* bias;
    int64_t kind, in, out;
    double unit;
};

}

constexpr int64_t PANEL_BLOCKS = 4, PANEL_OUTPUTS = PANEL_BLOCKS * LANES, GROUP_SIZE = 32;

// A panel is multiplied with all rows in parts of so many bytes, which stay in the second-level cache; of bfloat16, inputs.
constexpr int64_t PART_BYTES = 256 << 10, PART_INPUTS = PART_BYTES / 2 / PANEL_OUTPUTS / bf12::PART * bf12::PART;

// Whether activations and unpacked weights are bfloat16.
inline bool is_bfloat16(int64_t kind) { return kind == BFLOAT16 || kind == BF12; }

// Inputs as they are stored: whole pairs, whole groups.
inline int64_t padded_inputs(int64_t kind, int64_t in) {
    return round_up(in, kind == FLOAT32 ? 1 : is_bfloat16(kind) ? 2 : GROUP_SIZE);
}

// Bytes of `outputs` (whole blocks) of a matrix, without the exceptions of a bf12 one.
inline int64_t packed_nbytes(int64_t kind, int64_t in, int64_t outputs) {
    const int64_t inputs = padded_inputs(kind, in), rest = outputs % PANEL_OUTPUTS;
    switch (kind) {
        case FLOAT32: return 4 * inputs * outputs;
        case BFLOAT16: return 2 * inputs * outputs;
        case BF12:
            return outputs / PANEL_OUTPUTS * bf12::panel_bytes(inputs, PANEL_OUTPUTS)
                   + (rest ? bf12::panel_bytes(inputs, rest) : 0);
        case INT8: return inputs / GROUP_SIZE * outputs * (GROUP_SIZE + 2);
        default: return outputs * (2 + inputs / GROUP_SIZE * (GROUP_SIZE / 2 + 2));
    }
}

inline int64_t panel_count(const Matrix& m) { return ceil_div(m.out, PANEL_OUTPUTS); }

// Blocks of panel p of a matrix with `out` outputs.
inline int64_t block_count(int64_t out, int64_t p) { return std::min(PANEL_BLOCKS, ceil_div(out - p * PANEL_OUTPUTS, LANES)); }

inline const char* panel_at(const Matrix& m, int64_t p) {
    return static_cast<const char*>(m.data) + packed_nbytes(m.kind, m.in, p * PANEL_OUTPUTS);
}

// The exceptions of panel p from input `first` on, in order.
inline const bf12::Exception* exceptions_of(const Matrix& m, int64_t p, int64_t first) {
    const int64_t parts = bf12::part_count(padded_inputs(m.kind, m.in));
    const char* behind = static_cast<const char*>(m.data) + packed_nbytes(m.kind, m.in, round_up(m.out, LANES));
    const auto* starts = reinterpret_cast<const int64_t*>(behind);
    const auto* exceptions = reinterpret_cast<const bf12::Exception*>(starts + panel_count(m) * parts + 1);
    return exceptions + starts[p * parts + first / bf12::PART];
}

// Reads a bf12 panel of B blocks, `panel`, from input `first` on, a multiple of bf12::PART; INPUTS make B records.
template <int B>
struct Bf12Panel {
    static constexpr int64_t OUTPUTS = B * LANES, INPUTS = bf12::RECORD / LANES;
    const uint8_t *table, *record;
    const bf12::Exception *exception, *end;

    Bf12Panel(const Matrix& m, int64_t p, const char* panel, int64_t first)
        : table(reinterpret_cast<const uint8_t*>(panel)),
          record(table + bf12::TABLE_BYTES + first * OUTPUTS / bf12::RECORD * bf12::RECORD_BYTES),
          exception(exceptions_of(m, p, first)), end(exceptions_of(m, p + 1, 0)) {}

    // The weights of inputs [k, k + count), the next ones, as bfloat16. Whole records: up to bf12::RECORD - 1 more numbers.
    // ALL: how many inputs these mostly are, which the compiler then knows.
    template <int64_t ALL>
    void unpack(int64_t k, int64_t count, bf16* to) {
        const int64_t records = count == ALL ? ALL / INPUTS * B : bf12::record_count(count, OUTPUTS);
        bf12::unpack(table, record, records, to);
        for (; exception < end && exception->index < (k + count) * OUTPUTS; exception++)
            to[exception->index - k * OUTPUTS] = exception->value;
        record += records * bf12::RECORD_BYTES;
    }
};
