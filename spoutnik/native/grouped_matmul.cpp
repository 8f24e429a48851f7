// Matrix products of bfloat16 for training, forward and backward, of one matrix or one per expert. For what torch's own are
// slow at: a few hundred rows at a time, and shapes that never repeat (no kernel is compiled per shape). Twin:
// model/grouped.py.
//
// Every product is C (m, n) = A (m, k) times B (n, k) transposed. B is packed, as much at a time as fits the second-level
// cache, where it stays while it is multiplied with all rows of A.
#include <vector>

#include "amx_product.h"
#include "pack.h"

#ifdef __AVX512BF16__

namespace {

constexpr int64_t PANEL = TILE_BLOCKS * LANES;
constexpr int64_t CACHED = 512 * 1024;  // bytes of packed B that stay in the second-level cache

// A, as it lies or packed by pack_columns: blocks of 16 rows; `row`, `step` and `block` are the distances, in pairs along k,
// from one row, pair and block to the next.
struct Left {
    const bf16_pair* data;
    int64_t row, step, block;
};

inline Left as_it_lies(const bf16* data, int64_t width) {
    return {reinterpret_cast<const bf16_pair*>(data), width / 2, 1, 16 * (width / 2)};
}

template <int R, int B>
inline void multiply(const Left& a, int64_t r0, const bf16_pair* b, int64_t pairs, vfloat (&sum)[R][B]) {
    for (auto& row : sum)
        for (auto& s : row) s = vfloat{};
    const bf16_pair* from = a.data + r0 / 16 * a.block + r0 % 16 * a.row;
    for (int64_t p = 0; p < pairs; p++) {
        __m512i weights[B];
        for (int j = 0; j < B; j++) weights[j] = load_pairs(b + (j * pairs + p) * LANES);
        for (int r = 0; r < R; r++) {
            const __m512i both = broadcast_pair(from[r * a.row + p * a.step]);
            for (int j = 0; j < B; j++) sum[r][j] = dot_bf16(sum[r][j], both, weights[j]);
        }
    }
}

template <int R, typename C>
void multiply_rows_of(const Left& a, int64_t r0, const bf16_pair* b, int64_t pairs, int64_t panels, C* c, int64_t width,
                      int64_t n) {
    for (int64_t p = 0; p < panels; p++) {
        vfloat sum[R][TILE_BLOCKS];
        multiply<R, TILE_BLOCKS>(a, r0, b + p * PANEL * pairs, pairs, sum);
        for (int r = 0; r < R; r++)
            for (int64_t j = 0; j < TILE_BLOCKS; j++) {
                const int64_t o = p * PANEL + j * LANES;
                if (o < n) store_lanes(c + (r0 + r) * width + o, sum[r][j], first_lanes(n - o));
            }
    }
}

bf16_pair* scratch(int64_t which, int64_t pairs) {  // kept per thread: a step needs it thousands of times
    static thread_local std::vector<uint32_t> buffers[2];
    if (static_cast<int64_t>(buffers[which].size()) < pairs + 16) buffers[which].resize(pairs + 16);
    const auto start = reinterpret_cast<uintptr_t>(buffers[which].data());  // a tile reads lines of 64 bytes
    return reinterpret_cast<bf16_pair*>((start + 63) / 64 * 64);
}

// C (m, n) = A times the packed B; pack(o, n, to) packs outputs [o, o + n).
template <typename C, typename Pack>
void product(const Left& a, int64_t m, int64_t n, int64_t pairs, C* c, Pack pack) {
    const int64_t step = std::max(PANEL, CACHED / (4 * pairs) / PANEL * PANEL);
    bf16_pair* b = scratch(0, std::min(step, round_up(n, PANEL)) * pairs);
    for (int64_t o = 0; o < n; o += step) {
        const int64_t outputs = std::min(step, n - o), panels = round_up(outputs, PANEL) / PANEL;
        if (outputs % PANEL)  // the last panel's second block may hold nothing
            std::memset(b + (panels - 1) * PANEL * pairs, 0, 4 * PANEL * pairs);
        pack(o, outputs, reinterpret_cast<bf16*>(b));
        int64_t r = 0;
        for (; r + 8 <= m; r += 8) multiply_rows_of<8>(a, r, b, pairs, panels, c + o, n, outputs);
        for (; r + 4 <= m; r += 4) multiply_rows_of<4>(a, r, b, pairs, panels, c + o, n, outputs);
        for (; r < m; r++) multiply_rows_of<1>(a, r, b, pairs, panels, c + o, n, outputs);
    }
}

#if SPOUTNIK_AMX
// `product` of x (m, in) as it lies, in tiles.
template <typename Pack>
void product_in_tiles(const bf16* x, int64_t m, int64_t n, int64_t in, float* y, Pack pack) {
    constexpr int64_t SIDE = amx::SIDE;
    const amx::Tiles tiles;
    const int64_t step = std::max(SIDE, CACHED / (2 * in) / SIDE * SIDE), whole = m / SIDE * SIDE;
    bf16_pair* b = scratch(0, std::min(step, round_up(n, SIDE)) * in / 2);
    std::vector<bf16> last(whole < m ? SIDE * in : 0);  // the rows of the last tiles, the others zero
    std::copy_n(x + whole * in, (m - whole) * in, last.data());
    alignas(64) float part[SIDE * SIDE];
    for (int64_t o = 0; o < n; o += step) {
        const int64_t outputs = std::min(step, n - o);
        if (outputs % SIDE)  // the last panel's second block may hold nothing
            std::memset(b + outputs / SIDE * SIDE * in / 2, 0, 2 * SIDE * in);
        pack(o, outputs, reinterpret_cast<bf16*>(b));
        for (int64_t r = 0; r < m; r += SIDE)
            for (int64_t p = 0; p < outputs; p += SIDE) {
                const int64_t rows = std::min(SIDE, m - r), here = std::min(SIDE, outputs - p);
                float* to = y + r * n + o + p;
                const bool fits = rows == SIDE && here == SIDE;
                amx::multiply(r < whole ? x + r * in : last.data(), in, b + p * in / 2, in, fits ? to : part, fits ? n : SIDE);
                if (!fits)
                    for (int64_t i = 0; i < rows; i++) std::copy_n(part + i * SIDE, here, to + i * n);
            }
    }
}
#endif

}  // namespace

extern "C" {

// Whether these are faster than torch: the processor multiplies bfloat16 in vectors, but not in tiles (AMX).
int64_t spoutnik_has_fast_matmul() {
#ifdef __AMX_BF16__
    return 0;
#else
    return 1;
#endif
}

// Whether these are here at all.
int64_t spoutnik_has_float32_products() { return 1; }

// x (rows, in) times w (out, in) transposed, its sums unrounded.
void spoutnik_matmul_float32(const bf16* x, const bf16* w, float* y, int64_t rows, int64_t in, int64_t out) {
#if SPOUTNIK_AMX
    if (in % 32 == 0 && amx::granted())
        return product_in_tiles(x, rows, out, in, y, [&](int64_t o, int64_t n, bf16* to) { pack_rows(w, o, n, in, to); });
#endif
    product(as_it_lies(x, in), rows, out, in / 2, y, [&](int64_t o, int64_t n, bf16* to) { pack_rows(w, o, n, in, to); });
}

// For each expert e, its `counts[e]` rows of x (., in) times w[e] (out, in) transposed, to y (., out).
void spoutnik_grouped_matmul(const bf16* x, const bf16* w, bf16* y, const int64_t* counts, int64_t experts, int64_t in,
                             int64_t out) {
    for (int64_t e = 0; e < experts; x += counts[e] * in, y += counts[e] * out, w += out * in, e++)
        if (counts[e])
            product(as_it_lies(x, in), counts[e], out, in / 2, y,
                    [&](int64_t o, int64_t n, bf16* to) { pack_rows(w, o, n, in, to); });
}

// The gradient of x: dy (., out) times w[e].
void spoutnik_grouped_matmul_input_grad(const bf16* dy, const bf16* w, bf16* dx, const int64_t* counts, int64_t experts,
                                        int64_t in, int64_t out) {
    for (int64_t e = 0; e < experts; dy += counts[e] * out, dx += counts[e] * in, w += out * in, e++)
        if (counts[e])
            product(as_it_lies(dy, out), counts[e], in, out / 2, dx,
                    [&](int64_t o, int64_t n, bf16* to) { pack_columns(w, o, n, out, in, to); });
}

// The gradient of w[e] (out, in): dy transposed times x; zero for an expert without rows.
void spoutnik_grouped_matmul_weight_grad(const bf16* dy, const bf16* x, bf16* dw, const int64_t* counts, int64_t experts,
                                         int64_t in, int64_t out) {
    for (int64_t e = 0; e < experts; dy += counts[e] * out, x += counts[e] * in, dw += out * in, e++) {
        const int64_t rows = counts[e], pairs = (rows + 1) / 2;
        if (!rows) {
            std::memset(dw, 0, 2 * out * in);
            continue;
        }
        bf16_pair* left = scratch(1, round_up(out, LANES) * pairs);
        pack_columns(dy, 0, out, rows, out, reinterpret_cast<bf16*>(left));
        product({left, 1, LANES, LANES * pairs}, out, in, pairs, dw,
                [&](int64_t o, int64_t n, bf16* to) { pack_columns(x, o, n, rows, in, to); });
    }
}

// The routed experts of a mixture without gradients: x (tokens, hidden), each token's experts and their weights (tokens,
// chosen), gate_up (experts, 2 * width, hidden), down (experts, hidden, width); y (tokens, hidden).
void spoutnik_routed_experts(const bf16* x, const int64_t* chosen_experts, const float* weights, const bf16* gate_up,
                             const bf16* down, bf16* y, int64_t tokens, int64_t chosen, int64_t experts, int64_t hidden,
                             int64_t width) {
    static thread_local std::vector<int64_t> starts, choices;
    static thread_local std::vector<bf16> gathered, halves, active;
    static thread_local std::vector<float> out, sums;
    const int64_t all = tokens * chosen;
    starts.assign(experts + 1, 0);
    for (int64_t i = 0; i < all; i++) starts[chosen_experts[i] + 1]++;
    for (int64_t e = 0; e < experts; e++) starts[e + 1] += starts[e];
    choices.resize(all);
    for (int64_t i = 0; i < all; i++) choices[starts[chosen_experts[i]]++] = i;  // starts become ends
    sums.assign(tokens * hidden, 0.0f);
    for (int64_t e = 0, first = 0; e < experts; first = starts[e], e++, gate_up += 2 * width * hidden, down += hidden * width) {
        const int64_t rows = starts[e] - first;
        if (!rows) continue;
        gathered.resize(rows * hidden);
        halves.resize(rows * 2 * width);
        active.resize(rows * width);
        out.resize(rows * hidden);
        for (int64_t i = 0; i < rows; i++)
            std::copy_n(x + choices[first + i] / chosen * hidden, hidden, gathered.data() + i * hidden);
        product(as_it_lies(gathered.data(), hidden), rows, 2 * width, hidden / 2, halves.data(),
                [&](int64_t o, int64_t n, bf16* to) { pack_rows(gate_up, o, n, hidden, to); });
        for (int64_t i = 0; i < rows; i++) {
            const bf16* gate = halves.data() + i * 2 * width;
            for (int64_t j = 0; j < width; j++) {
                const float g = to_float(gate[j]);
                store(active.data() + i * width + j, g * sigmoid(g) * to_float(gate[width + j]));
            }
        }
        product(as_it_lies(active.data(), width), rows, hidden, width / 2, out.data(),
                [&](int64_t o, int64_t n, bf16* to) { pack_rows(down, o, n, width, to); });
        for (int64_t i = 0; i < rows; i++) {
            const float weight = weights[choices[first + i]];
            float* to = sums.data() + choices[first + i] / chosen * hidden;
            for (int64_t j = 0; j < hidden; j++) to[j] += weight * out[i * hidden + j];
        }
    }
    store_floats(y, sums.data(), tokens * hidden);
}

}  // extern "C"

#else

extern "C" int64_t spoutnik_has_fast_matmul() { return 0; }
extern "C" int64_t spoutnik_has_float32_products() { return 0; }

#endif
