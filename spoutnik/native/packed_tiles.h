// Products of rows of activations with a packed matrix in tiles (amx.h): what packed_multiply.h does with vectors.
//
// bfloat16: the sums of 32 inputs at a time are added in order, the same for one row as for many; they are not those of the
// vectors, to the last bit.
#pragma once

#include <optional>

#include "activations.h"
#include "amx.h"

#if SPOUTNIK_AMX

constexpr int64_t TILE_INPUTS = 32;  // bfloat16 numbers in a row of a tile

// Rows as a tile loads them.
struct TileRows {
    const char* data;
    int64_t stride;
};

// Bytes [at, at + bytes) of n rows of x: where they lie, or else copied to `copy`, each padded with zeros to whole tiles.
inline TileRows tile_rows(const Activations& x, int64_t n, int64_t at, int64_t bytes, char* copy) {
    if (bytes % 64 == 0 && n == 1) return {x.at(0) + at, 0};
    if (bytes % 64 == 0 && n == amx::ROWS && !x.index) return {x.at(0) + at, x.stride};
    const int64_t stride = round_up(bytes, 64);
    for (int64_t r = 0; r < n; r++) {
        std::memcpy(copy + r * stride, x.at(r) + at, bytes);
        std::memset(copy + r * stride + bytes, 0, stride - bytes);
    }
    return {copy, stride};
}

// multiply_panel_part (packed_multiply.h) of bfloat16.
template <int B>
inline void multiply_panel_tiles(const Matrix& m, const char* panel, int64_t p, const Activations& x, const Outputs& y, bool add,
                                 int64_t rows, int64_t first, int64_t last, bf16* unpacked) {
    constexpr int64_t OUTPUTS = B * LANES;
    alignas(64) static thread_local char copied[amx::ROWS * 2 * PART_INPUTS];
    alignas(64) float sums[amx::ROWS][OUTPUTS];
    alignas(64) bf16 tail[TILE_INPUTS * OUTPUTS];
    const int64_t start = p * PANEL_OUTPUTS, here = m.out - start;
    for (int64_t row = 0; row < rows; row += amx::ROWS) {
        const int64_t n = std::min(amx::ROWS, rows - row);
        const TileRows from = tile_rows(x.from(row), n, 2 * first, 2 * (last - first), copied);
        if (add || first || m.bias) {
            for (int64_t r = 0; r < n; r++) {
                vfloat sum[B] = {}, bias[B] = {};
                if (add || first) load_blocks<B>(y.at(row + r) + start, here, sum);
                if (m.bias && !first) load_blocks<B>(m.bias + start, here, bias);
                UNROLLED for (int b = 0; b < B; b++) store(&sums[r][b * LANES], sum[b] + bias[b]);
            }
            amx::for_constants<B>([&](auto b) { amx::load<b>(&sums[0][b * LANES], sizeof sums[0]); });
        } else {
            amx::for_constants<B>([&](auto b) { amx::zero<b>(); });
        }
        std::optional<Bf12Panel<B>> packed;
        if (unpacked && !row) packed.emplace(m, p, panel, first);
        bf16* plain = unpacked;
        for (int64_t k = first; k < last; k += TILE_INPUTS) {
            const int64_t count = std::min(TILE_INPUTS, last - k);
            const bf16* weights = reinterpret_cast<const bf16*>(panel) + k * OUTPUTS;
            if (unpacked) {
                if (!row) packed->template unpack<TILE_INPUTS>(k, count, plain);
                weights = plain;
                if (rows > amx::ROWS) plain += TILE_INPUTS * OUTPUTS;
            } else if (!row) {
                prefetch_stream(weights, TILE_INPUTS * OUTPUTS * 2);
            }
            if (count < TILE_INPUTS) {
                std::memset(tail, 0, sizeof tail);
                std::memcpy(tail, weights, count * OUTPUTS * 2);
                weights = tail;
            }
            amx::load<amx::ACTIVATIONS>(from.data + 2 * (k - first), from.stride);
            amx::for_constants<B>([&](auto b) {
                amx::load<amx::WEIGHTS>(weights + b * LANES * 2, OUTPUTS * 4);
                amx::multiply_bf16<b>();
            });
        }
        amx::for_constants<B>([&](auto b) { amx::store<b>(&sums[0][b * LANES], sizeof sums[0]); });
        for (int64_t r = 0; r < n; r++) {
            vfloat sum[B];
            load_blocks<B>(sums[r], OUTPUTS, sum);
            store_blocks<B>(sum, y.at(row + r) + start, here);
        }
    }
}

#endif
