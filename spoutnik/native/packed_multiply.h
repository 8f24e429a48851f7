// Products of rows of activations with a packed matrix.
//
// A sum runs over the inputs in the same order, whatever the number of rows and threads: a token's numbers are the same alone
// and in a batch, to the last bit. The engine's reproducibility rests on it.
#pragma once

#include <type_traits>

#include "packed_tiles.h"

// whole += the products of four inputs of each row, from input k on. SMALL: weights below 16.
template <bool SMALL, int R, int B>
inline void add_dot_products(const int8_t* const (&x)[R], int64_t k, const vint (&weights)[B], vint (&whole)[R][B]) {
    UNROLLED for (int r = 0; r < R; r++) {
        const int32_t bytes = load<int32_t>(x[r] + k);
        UNROLLED for (int b = 0; b < B; b++) whole[r][b] = dot_int8<SMALL>(whole[r][b], weights[b], bytes);
    }
}

// sum += the whole numbers of a group, times its scales and those of the activations.
template <int R, int B>
inline void add_scaled(const int8_t* const (&x)[R], int64_t inputs, int64_t g, const vfloat (&scales)[B], float unit,
                       const vint (&whole)[R][B], vfloat (&sum)[R][B]) {
    UNROLLED for (int r = 0; r < R; r++) {
        const float x_scale = kept(group_scale(x[r], inputs, g) * unit);
        UNROLLED for (int b = 0; b < B; b++) {
            const vfloat scale = kept(scales[b] * x_scale);
            sum[r][b] = kept(sum[r][b] + __builtin_convertvector(whole[r][b], vfloat) * scale);
        }
    }
}

// multiply_tile (tile.h) in groups of 8 bits: x int8 with its scales and sums behind `inputs` of them. first_read: the panel is
// not in the caches yet.
template <int R, int B>
inline void multiply_int8(const int8_t* const (&x)[R], int64_t inputs, int64_t first, int64_t last, const uint8_t* w, float unit,
                          bool first_read, vfloat (&sum)[R][B]) {
    constexpr int64_t record = B * LANES * (GROUP_SIZE + 2), step = B * LANES * 4;
    for (int64_t g = first / GROUP_SIZE; g < last / GROUP_SIZE; g++) {
        const uint8_t* from = w + g * record;
        if (first_read) prefetch_stream(from, record);
        vint whole[R][B];
        UNROLLED for (int r = 0; r < R; r++)
            UNROLLED for (int b = 0; b < B; b++) whole[r][b] = vint{} + group_sum(x[r], inputs, g);
#pragma GCC unroll 1  // unrolled, it would need more registers than there are
        for (int64_t j = 0; j < GROUP_SIZE / 4; j++) {
            vint weights[B];
            UNROLLED for (int b = 0; b < B; b++) weights[b] = load<vint>(from + j * step + b * LANES * 4);
            add_dot_products<false>(x, g * GROUP_SIZE + 4 * j, weights, whole);
        }
        vfloat scales[B];
        UNROLLED for (int b = 0; b < B; b++) scales[b] = load_half(from + B * LANES * GROUP_SIZE + 2 * b * LANES);
        add_scaled(x, inputs, g, scales, unit, whole, sum);
    }
}

// The same in groups of 4 bits. unit: of the units, which lie at `w` before the records.
template <int R, int B>
inline void multiply_int4(const int8_t* const (&x)[R], int64_t inputs, int64_t first, int64_t last, const uint8_t* w, float unit,
                          bool first_read, vfloat (&sum)[R][B]) {
    constexpr int64_t record = B * LANES * (GROUP_SIZE / 2 + 2), step = B * LANES * 4;
    vfloat in_units[R][B] = {};
    for (int64_t g = first / GROUP_SIZE; g < last / GROUP_SIZE; g++) {
        const uint8_t* from = w + 2 * B * LANES + g * record;
        if (first_read) prefetch_stream(from, record);
        vint whole[R][B] = {};
#pragma GCC unroll 1  // as above
        for (int64_t j = 0; j < GROUP_SIZE / 8; j++) {
            vint weights[B], half[B];
            UNROLLED for (int b = 0; b < B; b++) weights[b] = load<vint>(from + j * step + b * LANES * 4);
            UNROLLED for (int b = 0; b < B; b++) half[b] = lower_nibbles(weights[b]);
            add_dot_products<!WIDE_NIBBLES>(x, g * GROUP_SIZE + 8 * j, half, whole);
            UNROLLED for (int b = 0; b < B; b++) half[b] = upper_nibbles(weights[b]);
            add_dot_products<!WIDE_NIBBLES>(x, g * GROUP_SIZE + 8 * j + 4, half, whole);
        }
        vint pairs[B];  // zero, scale
        vfloat scales[B];
        UNROLLED for (int b = 0; b < B; b++) {
            pairs[b] = load_byte_pairs(from + B * LANES * GROUP_SIZE / 2 + 2 * b * LANES);
            scales[b] = __builtin_convertvector(pairs[b] >> 16, vfloat);
        }
        UNROLLED for (int r = 0; r < R; r++) {
            const int32_t x_sum = group_sum(x[r], inputs, g);
            UNROLLED for (int b = 0; b < B; b++) {
                if (!WIDE_NIBBLES) whole[r][b] <<= 4;
                whole[r][b] = add_lower_product(whole[r][b], pairs[b], x_sum);
            }
        }
        add_scaled(x, inputs, g, scales, 1, whole, in_units);
    }
    UNROLLED for (int b = 0; b < B; b++) {
        const vfloat units = kept(load_half(w + 2 * b * LANES) * (unit / 16));
        UNROLLED for (int r = 0; r < R; r++) sum[r][b] = kept(sum[r][b] + in_units[r][b] * units);
    }
}

// multiply_tile for inputs [first, last) of a bf12 panel; first is a multiple of bf12::PART. A few records at a time are
// unpacked to `plain` and multiplied, which overlaps computing with loading the next ones. keep: `plain` holds all of them in
// the end.
template <int R, int B>
inline void multiply_bf12(const Matrix& m, int64_t p, const bf16* const (&x)[R], int64_t first, int64_t last, const char* panel,
                          bf16* plain, bool keep, vfloat (&sum)[R][B]) {
    constexpr int64_t outputs = B * LANES, inputs = Bf12Panel<B>::INPUTS;
    Bf12Panel<B> weights(m, p, panel, first);
    for (int64_t k = first; k < last; k += inputs) {
        const int64_t here = std::min(inputs, last - k);
        weights.template unpack<inputs>(k, here, plain);
        multiply_tile<Order::FIXED, R, B>(x, k, k + here, plain - k * outputs, outputs * 2, LANES * 2, sum);
        if (keep) plain += inputs * outputs;
    }
}

// What the sums of a row begin with, of the outputs from `start` on, `here` of them: what was summed before, and the bias.
template <int B>
inline void start_sums(const Matrix& m, const float* y, int64_t start, int64_t here, bool add, int64_t first, vfloat (&sum)[B]) {
    if (add || first) load_blocks<B>(y + start, here, sum);
    if (m.bias && !first) {
        vfloat bias[B] = {};
        load_blocks<B>(m.bias + start, here, bias);
        for (int b = 0; b < B; b++) sum[b] += bias[b];
    }
}

// R rows from `row` on times the B blocks of panel p, which lies at `panel`, inputs [first, last). unpacked: where the
// weights of a bf12 panel go, all of them if more rows follow; null: they are there already, and `panel` points to where
// input 0 would be. next: weights to prefetch, or null.
template <int R, int B>
inline void multiply_panel_rows(const Matrix& m, const char* panel, int64_t p, const Activations& x, const Outputs& y, bool add,
                                int64_t row, int64_t first, int64_t last, bf16* unpacked, bool more, const char* next) {
    const int64_t start = p * PANEL_OUTPUTS, inputs = padded_inputs(m.kind, m.in);
    const int64_t here = m.out - start;  // outputs of this panel
    vfloat sum[R][B] = {};
    float* to[R];
    UNROLLED for (int r = 0; r < R; r++) {
        to[r] = y.at(row + r) + start;
        start_sums(m, y.at(row + r), start, here, add, first, sum[r]);
    }
    const auto set_rows = [&](auto& from) {
        for (int r = 0; r < R; r++) from[r] = reinterpret_cast<std::remove_reference_t<decltype(from[0])>>(x.at(row + r));
    };
    if (m.kind == FLOAT32) {
        const float* from[R];
        set_rows(from);
        multiply_tile<Order::FIXED, R, B>(from, first, last, reinterpret_cast<const float*>(panel), B * LANES, LANES, sum);
    } else if (is_bfloat16(m.kind)) {
        const bf16* from[R];
        set_rows(from);
        if (unpacked) multiply_bf12<R, B>(m, p, from, first, last, panel, unpacked, more, sum);
        else
            multiply_tile<Order::FIXED, R, B>(from, first, last, reinterpret_cast<const bf16*>(panel), B * LANES * 2,
                                              LANES * 2, sum, next);
    } else {
        const int8_t* from[R];
        set_rows(from);
        const uint8_t* bytes = reinterpret_cast<const uint8_t*>(panel);
        if (m.kind == INT8) multiply_int8<R, B>(from, inputs, first, last, bytes, m.unit, row == 0, sum);
        else multiply_int4<R, B>(from, inputs, first, last, bytes, m.unit, row == 0, sum);
    }
    UNROLLED for (int r = 0; r < R; r++) store_blocks<B>(sum[r], to[r], here);
}

// The rows of a tile: as many sums as fit the registers. (Of quantized weights, those of the group at hand; the others are
// touched once a group.)
#if defined(__AVX512F__)
constexpr int64_t TILE_ROWS = 6, TILE_ROWS_QUANTIZED = 5;
#else
constexpr int64_t TILE_ROWS = 2, TILE_ROWS_QUANTIZED = 1;
#endif

#ifndef __AVX512BF16__
#define SPOUTNIK_WIDENS 1
// Without an instruction for bfloat16, each use of a weight first widens it, and one of an activation likewise: from so many
// rows on it pays to widen both once. The sums are the same to the last bit.
constexpr int64_t WIDENED_ROWS = 4 * TILE_ROWS;

// Where a part of a panel and of a tile's rows lie widened.
struct Widened {
    alignas(64) float weights[PART_INPUTS * PANEL_OUTPUTS];
    alignas(64) float rows[TILE_ROWS][PART_INPUTS];
};

// Inputs [first, last) of a bfloat16 panel of B blocks, as float: (in, block, LANES).
template <int B>
inline void widen_panel(const bf16* panel, int64_t first, int64_t last, float* to) {
    for (int64_t k = first; k < last; k += 2, to += 2 * B * LANES)
        UNROLLED for (int b = 0; b < B; b++) {
            const vuint both = load<vuint>(panel + k * B * LANES + 2 * b * LANES);
            store(to + b * LANES, (vfloat)(both << 16));
            store(to + (B + b) * LANES, (vfloat)(both & 0xffff0000u));
        }
}

inline Widened& widened() {
    static thread_local Widened of_thread;
    return of_thread;
}

// multiply_panel_rows of bfloat16 with weights that widen_panel made, inputs [first, last).
template <int R, int B>
inline void multiply_widened_rows(const Matrix& m, Widened& wide, int64_t p, const Activations& x, const Outputs& y, bool add,
                                  int64_t row, int64_t first, int64_t last) {
    const int64_t start = p * PANEL_OUTPUTS, here = m.out - start, count = last - first;
    vfloat sum[R][B] = {};
    const float* from[R];
    UNROLLED for (int r = 0; r < R; r++) {
        const bf16* narrow = reinterpret_cast<const bf16*>(x.at(row + r)) + first;
        for (int64_t i = 0; i < count; i++) wide.rows[r][i] = to_float(narrow[i]);
        from[r] = wide.rows[r];
        start_sums(m, y.at(row + r), start, here, add, first, sum[r]);
    }
    multiply_tile<Order::FIXED, R, B>(from, 0, count, wide.weights, B * LANES, LANES, sum);
    UNROLLED for (int r = 0; r < R; r++) store_blocks<B>(sum[r], y.at(row + r) + start, here);
}
#endif

template <int B>
inline void multiply_panel_part(const Matrix& m, const char* panel, int64_t p, const Activations& x, const Outputs& y, bool add,
                                int64_t rows, int64_t first, int64_t last, bf16* unpacked) {
#if SPOUTNIK_AMX
    if (is_bfloat16(m.kind) && amx::granted())
        return multiply_panel_tiles<B>(m, panel, p, x, y, add, rows, first, last, unpacked);
#endif
    // bfloat16: each tile but the first prefetches some of what follows in memory. (Quantized weights gained nothing from it.)
    const char* next = panel + packed_nbytes(m.kind, last, B * LANES);
    const char* end = next + packed_nbytes(m.kind, last - first, B * LANES);
    int64_t r = 0;
    const auto run_tiles = [&](auto count) {
        constexpr int R = decltype(count)::value;
        for (; r + R <= rows; r += R) {
            multiply_panel_rows<R, B>(m, panel, p, x, y, add, r, first, last, unpacked, r + R < rows,
                                      r && next < end ? next : nullptr);
            if (r) next += (last - first) * 32;
            if (unpacked) panel = reinterpret_cast<const char*>(unpacked - first * B * LANES);
            unpacked = nullptr;
        }
    };
#if SPOUTNIK_WIDENS
    if (is_bfloat16(m.kind) && rows >= WIDENED_ROWS) {
        Widened& wide = widened();
        if (unpacked) {  // the first tile unpacks the panel
            multiply_panel_rows<TILE_ROWS, B>(m, panel, p, x, y, add, 0, first, last, unpacked, true, nullptr);
            panel = reinterpret_cast<const char*>(unpacked - first * B * LANES);
            unpacked = nullptr;
            r = TILE_ROWS;
        }
        widen_panel<B>(reinterpret_cast<const bf16*>(panel), first, last, wide.weights);
        for (; r + TILE_ROWS <= rows; r += TILE_ROWS) multiply_widened_rows<TILE_ROWS, B>(m, wide, p, x, y, add, r, first, last);
    }
#endif
    constexpr int64_t most = std::max(TILE_ROWS, TILE_ROWS_QUANTIZED);
    if (m.kind == FLOAT32 || is_bfloat16(m.kind)) run_tiles(std::integral_constant<int, TILE_ROWS>{});
    else run_tiles(std::integral_constant<int, TILE_ROWS_QUANTIZED>{});
    if (most > 4) run_tiles(std::integral_constant<int, 4>{});
    if (most > 3) run_tiles(std::integral_constant<int, 3>{});
    if (most > 2) run_tiles(std::integral_constant<int, 2>{});
    run_tiles(std::integral_constant<int, 1>{});
}

// y (rows, the outputs of panel p) = x times the panel, or y += if `add`; plus the bias. All rows are multiplied with a part
// of the inputs at a time, which stays in the second-level cache.
inline void multiply_panel(const Matrix& m, int64_t p, const Activations& x, const Outputs& y, bool add, int64_t rows) {
    const int64_t blocks = block_count(m.out, p);
    const int64_t inputs = padded_inputs(m.kind, m.in);
    const int64_t part = m.kind == BF12 ? PART_INPUTS
                                        : PART_BYTES / packed_nbytes(m.kind, GROUP_SIZE, PANEL_OUTPUTS) * GROUP_SIZE;
    const char* panel = panel_at(m, p);
    alignas(64) static thread_local bf16 buffer[PART_INPUTS * PANEL_OUTPUTS + bf12::RECORD];
    bf16* unpacked = m.kind == BF12 ? buffer : nullptr;
    for (int64_t first = 0; first < inputs; first += part) {
        const int64_t last = std::min(first + part, inputs);
        if (blocks == 4) multiply_panel_part<4>(m, panel, p, x, y, add, rows, first, last, unpacked);
        else if (blocks == 3) multiply_panel_part<3>(m, panel, p, x, y, add, rows, first, last, unpacked);
        else if (blocks == 2) multiply_panel_part<2>(m, panel, p, x, y, add, rows, first, last, unpacked);
        else multiply_panel_part<1>(m, panel, p, x, y, add, rows, first, last, unpacked);
    }
}
