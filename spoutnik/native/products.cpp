// Products of activations with weights in bfloat16, forward and backward, for one expert or for many. Written for what the
// library's own do badly: a few hundred rows at a time, and shapes that never repeat (no kernel is compiled per shape).
//
// Every product is C (m, n) = A (m, k) times B (n, k) transposed. B is packed panel by panel, a part that fits the second-level
// cache at a time, and stays there while all rows of A pass.
#include "basics.h"
#include "routing.h"
#include "transpose.h"

#ifdef __AVX512BF16__

namespace {

constexpr int64_t PANEL = BLOCKS * LANES;
constexpr int64_t CACHED = 512 * 1024;  // bytes of packed B that stay in the second-level cache

// Pairs are neighbours along k. A, as the activations lie or packed by `pack_columns`: 16 rows to a block, `row` and `step` from one row and pair to the next.
struct Left {
    const pair* data;
    int64_t row, step, block;
};

inline Left as_it_lies(const bf16* data, int64_t width) {
    return {reinterpret_cast<const pair*>(data), width / 2, 1, 16 * (width / 2)};
}

template <int R, int B>
inline void multiply(const Left& a, int64_t r0, const pair* b, int64_t pairs, floats (&sum)[R][B]) {
    for (auto& row : sum)
        for (auto& s : row) s = floats{};
    const pair* from = a.data + r0 / 16 * a.block + r0 % 16 * a.row;
    for (int64_t p = 0; p < pairs; p++) {
        __m512bh weights[B];
        for (int j = 0; j < B; j++) weights[j] = (__m512bh)_mm512_loadu_si512(b + (j * pairs + p) * LANES);
        for (int r = 0; r < R; r++) {
            const __m512bh both = (__m512bh)_mm512_set1_epi32(from[r * a.row + p * a.step]);
            for (int j = 0; j < B; j++) sum[r][j] = (floats)_mm512_dpbf16_ps((__m512)sum[r][j], both, weights[j]);
        }
    }
}

// Sums of one row and block, `lanes` of them.
inline void put(bf16* to, const floats& sum, int64_t lanes) {
    const __mmask16 mask = lanes >= LANES ? 0xffff : (1u << lanes) - 1;
    _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh((__m512)sum));
}
inline void put(float* to, const floats& sum, int64_t lanes) {
    const __mmask16 mask = lanes >= LANES ? 0xffff : (1u << lanes) - 1;
    _mm512_mask_storeu_ps(to, mask, (__m512)sum);
}

template <int R, typename C>
void tile(const Left& a, int64_t r0, const pair* b, int64_t pairs, int64_t panels, C* c, int64_t width, int64_t n) {
    for (int64_t p = 0; p < panels; p++) {
        floats sum[R][BLOCKS];
        multiply<R, BLOCKS>(a, r0, b + p * PANEL * pairs, pairs, sum);
        for (int r = 0; r < R; r++)
            for (int64_t j = 0; j < BLOCKS; j++) {
                const int64_t o = p * PANEL + j * LANES;
                if (o < n) put(c + (r0 + r) * width + o, sum[r][j], n - o);
            }
    }
}

// Rows [o, o + n) of b (., k), as they lie, into blocks of 16 rows: (n / 16, k / 2, 16) pairs, zeros beyond n.
void pack_rows(const bf16* b, int64_t o, int64_t n, int64_t k, pair* to) {
    const int64_t pairs = k / 2;
    for (int64_t block = 0; block < n; block += LANES)
        for (int64_t p = 0; p < pairs; p += 16) {
            const __mmask16 mask = pairs - p >= 16 ? 0xffff : (1u << (pairs - p)) - 1;
            __m512i rows[16];
            for (int64_t i = 0; i < 16; i++)
                rows[i] = block + i < n ? _mm512_maskz_loadu_epi32(mask, b + (o + block + i) * k + 2 * p) : _mm512_setzero_si512();
            transpose(rows);
            for (int64_t i = 0; i < std::min<int64_t>(16, pairs - p); i++)
                _mm512_storeu_si512(to + (block / LANES * pairs + p + i) * LANES, rows[i]);
        }
}

// Columns [o, o + n) of b (k, width) into the same form: (n / 16, ceil(k / 2), 16) pairs of neighbouring rows.
void pack_columns(const bf16* b, int64_t o, int64_t n, int64_t k, int64_t width, pair* to) {
    const int64_t pairs = (k + 1) / 2;
    for (int64_t block = 0; block < n; block += LANES) {
        const __mmask16 mask = n - block >= LANES ? 0xffff : (1u << (n - block)) - 1;
        for (int64_t p = 0; p < pairs; p++) {
            const bf16* from = b + 2 * p * width + o + block;
            const __m512i even = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
            const __m512i odd = 2 * p + 1 < k ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from + width))
                                              : _mm512_setzero_si512();
            _mm512_storeu_si512(to + (block / LANES * pairs + p) * LANES, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
        }
    }
}

int64_t whole(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

pair* scratch(int64_t which, int64_t pairs) {  // kept per thread: a step asks for it thousands of times
    static thread_local std::vector<uint32_t> kept[2];
    if (static_cast<int64_t>(kept[which].size()) < pairs) kept[which].resize(pairs);
    return kept[which].data();
}

// C (m, n) = A times the packed B; pack(o, n, to) packs outputs [o, o + n).
template <typename C, typename Pack>
void product(const Left& a, int64_t m, int64_t n, int64_t pairs, C* c, Pack pack) {
    const int64_t step = std::max(PANEL, CACHED / (4 * pairs) / PANEL * PANEL);
    pair* b = scratch(0, std::min(step, whole(n, PANEL)) * pairs);
    for (int64_t o = 0; o < n; o += step) {
        const int64_t outputs = std::min(step, n - o), panels = whole(outputs, PANEL) / PANEL;
        if (outputs % PANEL)  // the last panel's second block may hold nothing
            std::memset(b + (panels - 1) * PANEL * pairs, 0, 4 * PANEL * pairs);
        pack(o, outputs, b);
        int64_t r = 0;
        for (; r + 8 <= m; r += 8) tile<8>(a, r, b, pairs, panels, c + o, n, outputs);
        for (; r + 4 <= m; r += 4) tile<4>(a, r, b, pairs, panels, c + o, n, outputs);
        for (; r < m; r++) tile<1>(a, r, b, pairs, panels, c + o, n, outputs);
    }
}

}  // namespace

extern "C" {

// Whether these are worth calling: the processor multiplies bfloat16 in vectors, but has no tiles of its own for it.
int64_t multiplies() {
#ifdef __AMX_BF16__
    return 0;
#else
    return 1;
#endif
}

// x (rows, in) times w (out, in) transposed, its sums unrounded.
void products_float(const bf16* x, const bf16* w, float* y, int64_t rows, int64_t in, int64_t out) {
    product(as_it_lies(x, in), rows, out, in / 2, y, [&](int64_t o, int64_t n, pair* to) { pack_rows(w, o, n, in, to); });
}

// For each expert e, its `counts[e]` rows of x (., in) times w[e] (out, in) transposed, to y (., out).
void products_forward(const bf16* x, const bf16* w, bf16* y, const int64_t* counts, int64_t experts, int64_t in, int64_t out) {
    for (int64_t e = 0; e < experts; x += counts[e] * in, y += counts[e] * out, w += out * in, e++)
        if (counts[e])
            product(as_it_lies(x, in), counts[e], out, in / 2, y,
                    [&](int64_t o, int64_t n, pair* to) { pack_rows(w, o, n, in, to); });
}

// The gradient of x: dy (., out) times w[e].
void products_backward_input(const bf16* dy, const bf16* w, bf16* dx, const int64_t* counts, int64_t experts, int64_t in,
                             int64_t out) {
    for (int64_t e = 0; e < experts; dy += counts[e] * out, dx += counts[e] * in, w += out * in, e++)
        if (counts[e])
            product(as_it_lies(dy, out), counts[e], in, out / 2, dx,
                    [&](int64_t o, int64_t n, pair* to) { pack_columns(w, o, n, out, in, to); });
}

// The gradient of w[e] (out, in): dy transposed times x; zero for an expert without rows.
void products_backward_weight(const bf16* dy, const bf16* x, bf16* dw, const int64_t* counts, int64_t experts, int64_t in,
                              int64_t out) {
    for (int64_t e = 0; e < experts; dy += counts[e] * out, x += counts[e] * in, dw += out * in, e++) {
        const int64_t rows = counts[e], pairs = (rows + 1) / 2;
        if (!rows) {
            std::memset(dw, 0, 2 * out * in);
            continue;
        }
        pair* left = scratch(1, whole(out, LANES) * pairs);
        pack_columns(dy, 0, out, rows, out, left);
        product({left, 1, LANES, LANES * pairs}, out, in, pairs, dw,
                [&](int64_t o, int64_t n, pair* to) { pack_columns(x, o, n, rows, in, to); });
    }
}

// The routed experts of a mixture without gradients: x (tokens, hidden), each token's experts and their weights (tokens, chosen),
// gate_up (experts, 2 * width, hidden), down (experts, hidden, width); y (tokens, hidden).
void mixture(const bf16* x, const int64_t* chosen_experts, const float* weights, const bf16* gate_up, const bf16* down, bf16* y,
             int64_t tokens, int64_t chosen, int64_t experts, int64_t hidden, int64_t width) {
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
                [&](int64_t o, int64_t n, pair* to) { pack_rows(gate_up, o, n, hidden, to); });
        for (int64_t i = 0; i < rows; i++) {
            const bf16* gate = halves.data() + i * 2 * width;
            for (int64_t j = 0; j < width; j++) {
                const float g = to_float(gate[j]);
                store(active.data() + i * width + j, g * sigmoid(g) * to_float(gate[width + j]));
            }
        }
        product(as_it_lies(active.data(), width), rows, hidden, width / 2, out.data(),
                [&](int64_t o, int64_t n, pair* to) { pack_rows(down, o, n, width, to); });
        for (int64_t i = 0; i < rows; i++) {
            const float weight = weights[choices[first + i]];
            float* to = sums.data() + choices[first + i] / chosen * hidden;
            for (int64_t j = 0; j < hidden; j++) to[j] += weight * out[i * hidden + j];
        }
    }
    store_all(y, sums.data(), tokens * hidden);
}

}  // extern "C"

#else

extern "C" int64_t multiplies() { return 0; }

#endif

// Experts and weights of `tokens` rows of scores.
extern "C" void choose(const float* scores, const float* bias, int64_t* experts, float* weights, int64_t tokens, int64_t n_experts,
                       int64_t chosen, int64_t n_group, int64_t topk_group, int64_t two_best, int64_t normalise, float scale) {
    const Routing routing{n_experts, chosen, n_group, topk_group, two_best, normalise, scale};
    for (int64_t t = 0; t < tokens; t++)
        choose_experts(routing, scores + t * n_experts, bias, experts + t * chosen, weights + t * chosen);
}
