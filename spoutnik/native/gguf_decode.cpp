// Numbers of a file of weights, read and decoded into float32, bfloat16 or float16: the types of GGUF's blocks, and plain ones. Threads
// read pieces that stay in their caches. Formats: llama.cpp's ggml-common.h and the `gguf` package's quants.py. Plain twin:
// model/gguf_decode.py. Every product of a multiplier and an integer is exact in float32 and at most one addition follows, so
// that neither -ffast-math nor fused multiplication can change a bit.
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "simd.h"
#include "thread_pool.h"

namespace {

constexpr int64_t PIECE = 1 << 16;  // numbers read at a time
constexpr int64_t HUGE_PAGE = 2 << 20;
constexpr int64_t ENDED = -1;  // the file has no more bytes

// Half precision, subnormal numbers, infinities and NaN included.
inline float any_half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, magnitude = half & 0x7fff;
    const uint32_t normal = (magnitude << 13) + (112u << 23), special = (magnitude << 13) + (224u << 23);
    // Below 1024 the number is magnitude * 2^-24: next to 0.5 it fills the lowest bits of a float.
    const uint32_t small = bit_cast<uint32_t>(bit_cast<float>((126u << 23) | magnitude) - 0.5f);
    const uint32_t large = magnitude >= 0x7c00 ? special : normal;
    return bit_cast<float>(sign | (magnitude < 0x400 ? small : large));
}

inline float half_at(const uint8_t* bytes) {
    uint16_t half;
    std::memcpy(&half, bytes, sizeof half);
    return any_half_to_float(half);
}

inline bf16 rounded(float x) {  // to nearest even; NaN stays NaN
    const uint32_t bits = bit_cast<uint32_t>(x);
    return static_cast<bf16>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

struct half {
    uint16_t bits;
};

inline void round_to(bf16* to, float x) { *to = rounded(x); }

// To nearest even; what is too large becomes infinite, NaN stays NaN.
inline void round_to(half* to, float x) {
    const uint32_t bits = bit_cast<uint32_t>(x), magnitude = bits & 0x7fffffffu;
    const uint32_t shifted = magnitude - (112u << 23);
    const uint32_t normal = std::min((shifted + 0xfff + (shifted >> 13 & 1)) >> 13, 0x7c00u);
    // Below 2^-14 the half counts 2^-24: next to 0.5 a float's lowest bit is worth as much.
    const uint32_t small = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - (126u << 23);
    const uint32_t number = magnitude < (113u << 23) ? small : normal;
    to->bits = static_cast<uint16_t>((bits >> 16 & 0x8000) | (magnitude > 0x7f800000u ? 0x7e00u : number));
}

// Each format: its number in a GGUF file, the numbers and bytes of a block, and decode(block, to).
struct F32 {
    static constexpr int64_t ID = 0, NUMBERS = 32, BYTES = 128, UNIT = 1;
    static void decode(const uint8_t* block, float* to) { std::memcpy(to, block, BYTES); }
};

struct F16 {
    static constexpr int64_t ID = 1, NUMBERS = 32, BYTES = 64, UNIT = 1;
    static void decode(const uint8_t* block, float* to) {
#if defined(__F16C__) || defined(__AVX512F__) || defined(__ARM_NEON)
        for (int i = 0; i < NUMBERS; i += LANES) {
            const vfloat numbers = load_half(block + 2 * i);
            std::memcpy(to + i, &numbers, sizeof numbers);
        }
#else
        for (int i = 0; i < NUMBERS; i++) to[i] = half_at(block + 2 * i);
#endif
    }
};

struct BF16 {
    static constexpr int64_t ID = 30, NUMBERS = 32, BYTES = 64, UNIT = 1;
    static void decode(const uint8_t* block, float* to) {
        bf16 halves[NUMBERS];
        std::memcpy(halves, block, BYTES);
        for (int i = 0; i < NUMBERS; i++) to[i] = to_float(halves[i]);
    }
};

// 32 integers of 4 bits: the low halves of 16 bytes, then the high ones.
inline void nibbles(const uint8_t* bytes, int32_t* to) {
    for (int i = 0; i < 16; i++) to[i] = bytes[i] & 15;
    for (int i = 0; i < 16; i++) to[16 + i] = bytes[i] >> 4;
}

// The same with a fifth bit from `bits`.
inline void nibbles_and_bits(const uint8_t* bytes, const uint8_t* bits, int32_t* to) {
    uint32_t fifth;
    std::memcpy(&fifth, bits, sizeof fifth);
    nibbles(bytes, to);
    for (int i = 0; i < 32; i++) to[i] |= (fifth >> i & 1) << 4;
}

struct Q4_0 {
    static constexpr int64_t ID = 2, NUMBERS = 32, BYTES = 18, UNIT = 32;
    static void decode(const uint8_t* block, float* to) {
        const float scale = half_at(block);
        int32_t q[32];
        nibbles(block + 2, q);
        for (int i = 0; i < 32; i++) to[i] = scale * (q[i] - 8);
    }
};

struct Q4_1 {
    static constexpr int64_t ID = 3, NUMBERS = 32, BYTES = 20, UNIT = 32;
    static void decode(const uint8_t* block, float* to) {
        const float scale = half_at(block), least = half_at(block + 2);
        int32_t q[32];
        nibbles(block + 4, q);
        for (int i = 0; i < 32; i++) to[i] = scale * q[i] + least;
    }
};

struct Q5_0 {
    static constexpr int64_t ID = 6, NUMBERS = 32, BYTES = 22, UNIT = 32;
    static void decode(const uint8_t* block, float* to) {
        const float scale = half_at(block);
        int32_t q[32];
        nibbles_and_bits(block + 6, block + 2, q);
        for (int i = 0; i < 32; i++) to[i] = scale * (q[i] - 16);
    }
};

struct Q5_1 {
    static constexpr int64_t ID = 7, NUMBERS = 32, BYTES = 24, UNIT = 32;
    static void decode(const uint8_t* block, float* to) {
        const float scale = half_at(block), least = half_at(block + 2);
        int32_t q[32];
        nibbles_and_bits(block + 8, block + 4, q);
        for (int i = 0; i < 32; i++) to[i] = scale * q[i] + least;
    }
};

struct Q8_0 {
    static constexpr int64_t ID = 8, NUMBERS = 32, BYTES = 34, UNIT = 32;
    static void decode(const uint8_t* block, float* to) {
        const float scale = half_at(block);
        for (int i = 0; i < 32; i++) to[i] = scale * static_cast<int8_t>(block[2 + i]);
    }
};

// Of a K block's 12 bytes: eight multipliers and eight minima of 6 bits.
struct Scales {
    uint8_t scale[8], least[8];
    explicit Scales(const uint8_t* packed) {
        for (int i = 0; i < 4; i++) {
            scale[i] = packed[i] & 63;
            least[i] = packed[4 + i] & 63;
            scale[4 + i] = (packed[8 + i] & 15) | (packed[i] >> 2 & 48);
            least[4 + i] = packed[8 + i] >> 4 | (packed[4 + i] >> 2 & 48);
        }
    }
};

// Q4_K and Q5_K: eight runs of 32 numbers. fifth: 32 bytes with a bit for each run, or null.
inline void decode_runs(const uint8_t* block, const uint8_t* fifth, const uint8_t* low, float* to) {
    const float scale = half_at(block), least = half_at(block + 2);
    const Scales of(block + 4);
    for (int run = 0; run < 8; run++) {
        const float factor = scale * of.scale[run], offset = least * of.least[run];
        const uint8_t* bytes = low + run / 2 * 32;
        const int shift = run % 2 * 4;
        for (int i = 0; i < 32; i++) {
            int32_t q = bytes[i] >> shift & 15;
            if (fifth) q |= (fifth[i] >> run & 1) << 4;
            to[32 * run + i] = factor * q - offset;
        }
    }
}

struct Q4_K {
    static constexpr int64_t ID = 12, NUMBERS = 256, BYTES = 144, UNIT = 256;
    static void decode(const uint8_t* block, float* to) { decode_runs(block, nullptr, block + 16, to); }
};

struct Q5_K {
    static constexpr int64_t ID = 13, NUMBERS = 256, BYTES = 176, UNIT = 256;
    static void decode(const uint8_t* block, float* to) { decode_runs(block, block + 16, block + 48, to); }
};

struct Q6_K {
    static constexpr int64_t ID = 14, NUMBERS = 256, BYTES = 210, UNIT = 256;
    static void decode(const uint8_t* block, float* to) {
        const float scale = half_at(block + 208);
        for (int run = 0; run < 8; run++) {
            const uint8_t* low = block + run / 4 * 64 + run % 2 * 32;
            const uint8_t* high = block + 128 + run / 4 * 32;
            const int low_shift = run % 4 / 2 * 4, high_shift = run % 4 * 2;
            for (int half = 0; half < 2; half++) {
                const float factor = scale * static_cast<int8_t>(block[192 + 2 * run + half]);
                for (int i = 16 * half; i < 16 * half + 16; i++) {
                    const int32_t q = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
                    to[32 * run + i] = factor * (q - 32);
                }
            }
        }
    }
};

template <typename Format>
void decode_block(const uint8_t* block, float* to) { Format::decode(block, to); }
template <typename Format, typename T>
void decode_block(const uint8_t* block, T* to) {
    float numbers[Format::NUMBERS];
    Format::decode(block, numbers);
    for (int64_t i = 0; i < Format::NUMBERS; i++) round_to(to + i, numbers[i]);
}

// `n` numbers from whole blocks; of a plain type the last one may have fewer.
template <typename Format, typename T>
void decode_numbers(const uint8_t* from, T* to, int64_t n) {
    int64_t i = 0;
    for (; i + Format::NUMBERS <= n; i += Format::NUMBERS, from += Format::BYTES) decode_block<Format>(from, to + i);
    if (i < n) {
        uint8_t rest[Format::BYTES] = {};
        T numbers[Format::NUMBERS];
        std::memcpy(rest, from, (n - i) * (Format::BYTES / Format::NUMBERS));
        decode_block<Format>(rest, numbers);
        std::copy(numbers, numbers + (n - i), to + i);
    }
}

// Fills `to`; returns 0, an errno, or ENDED.
int64_t read_whole(int file, int64_t start, uint8_t* to, int64_t bytes) {
    while (bytes > 0) {
        const ssize_t count = pread(file, to, bytes, start);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return errno;
        if (count == 0) return ENDED;
        start += count, to += count, bytes -= count;
    }
    return 0;
}

// Pages of 2 MB for new memory, which is otherwise cleared and mapped 4 KB at a time. Advice: it may be ignored.
void advise_huge_pages(void* to, int64_t bytes) {
#if defined(__linux__)
    const auto begin = round_up(reinterpret_cast<int64_t>(to), HUGE_PAGE);
    const auto end = (reinterpret_cast<int64_t>(to) + bytes) / HUGE_PAGE * HUGE_PAGE;
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

template <typename Format, typename T>
int64_t read_numbers(int file, int64_t start, T* to, int64_t n, int threads) {
    advise_huge_pages(to, n * sizeof(T));
    const int64_t pieces = ceil_div(n, PIECE);
    std::atomic<int64_t> failure{0};
    threads = std::min<int64_t>(threads, pieces);
    ThreadGroup group(threads);
    ThreadPool::run(threads, [&](int) {
        std::vector<uint8_t> bytes(std::min(PIECE, round_up(n, Format::NUMBERS)) / Format::NUMBERS * Format::BYTES);
        group.parallel_for(pieces, 1, [&](int64_t piece) {
            const int64_t first = piece * PIECE, count = std::min(PIECE, n - first);
            const int64_t size = count * Format::BYTES / Format::NUMBERS;
            const int64_t status = read_whole(file, start + first / Format::NUMBERS * Format::BYTES, bytes.data(), size);
            if (status != 0) failure.store(status);
            else decode_numbers<Format>(bytes.data(), to + first, count);
        });
    });
    return failure.load();
}

template <typename T, typename... Formats>
int64_t read_kind(int64_t kind, int file, int64_t start, T* to, int64_t n, int threads) {
    int64_t status = EINVAL;  // no such type, or a part of a block
    (void)((Formats::ID == kind && n % Formats::UNIT == 0 &&
            (status = read_numbers<Formats>(file, start, to, n, threads), true)) || ...);
    return status;
}

template <typename T>
int64_t read_any(int64_t file, int64_t start, int64_t kind, T* to, int64_t n, int64_t threads) {
    return read_kind<T, F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K>(kind, file, start, to, n, threads);
}

}  // namespace

extern "C" {

// `n` numbers of type `kind` (as GGUF counts types), which begin at byte `start` of an open file. Returns 0, an errno, or -1:
// the file ends before them.
int64_t spoutnik_read_numbers_float32(int64_t file, int64_t start, int64_t kind, float* to, int64_t n, int64_t threads) {
    return read_any(file, start, kind, to, n, threads);
}
int64_t spoutnik_read_numbers_bfloat16(int64_t file, int64_t start, int64_t kind, bf16* to, int64_t n, int64_t threads) {
    return read_any(file, start, kind, to, n, threads);
}
int64_t spoutnik_read_numbers_float16(int64_t file, int64_t start, int64_t kind, half* to, int64_t n, int64_t threads) {
    return read_any(file, start, kind, to, n, threads);
}

}
