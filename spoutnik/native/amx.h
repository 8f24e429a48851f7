// The tiles of Xeons from Sapphire Rapids on (AMX): eight registers of up to 16 rows of 64 bytes, and instructions that
// multiply two and add to a third. Compiled where the processor has them; a process must ask the kernel before it uses them.
#pragma once

#include <type_traits>
#include <utility>

#include "simd.h"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define SPOUTNIK_AMX 1
#include <sys/syscall.h>
#include <unistd.h>

namespace amx {

constexpr int64_t ROWS = 16;  // of a tile

// Whether the kernel lets this process use tiles. Asked once: what is granted holds for all threads and for forked processes.
inline bool granted() {
    static const bool answer = [] {
        constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
        return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
    }();
    return answer;
}

// The registers by their use: sums of 16 rows with up to four blocks of 16 outputs (or of 32 rows with two), then the factors,
// 32 bfloat16 numbers of each row of activations, and a block of the weights of these inputs, a pair in each row. Two of each
// suffice for four sums.
constexpr int ACTIVATIONS = 4, WEIGHTS = 5, MORE_ACTIVATIONS = 6, MORE_WEIGHTS = 7;

// Shapes the tiles of this thread while it lives, if they may be used. At the end they are released: the kernel saves tiles
// in use at each switch of threads.
class Tiles {
   public:
    Tiles() {
        struct alignas(64) {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } const shapes;
        static_assert(sizeof shapes == 64);
        if (granted()) asm volatile("ldtilecfg %0" : : "m"(shapes));
    }
    ~Tiles() {
        if (granted()) asm volatile("tilerelease");
    }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

// Rows that lie `stride` bytes apart. (Not the compiler's intrinsics: those of g++ do not say that they read memory.)
template <int TILE>
inline void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(TILE) : "memory");
}
template <int TILE>
inline void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(TILE) : "memory");
}
template <int TILE>
inline void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(TILE));
}

// SUM += the products of ACTIVATIONS and WEIGHTS, of 32 bfloat16 numbers of each row: those of even and of odd inputs are
// summed apart from zero on, in order, then added to each other and to SUM.
template <int SUM, int ROWS_OF = ACTIVATIONS, int OUTPUTS_OF = WEIGHTS>
inline void multiply_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUM), "i"(ROWS_OF), "i"(OUTPUTS_OF));
}

// work(0), ..., work(N - 1), as constants.
template <typename Work, int... I>
inline void for_constants(std::integer_sequence<int, I...>, Work work) {
    (work(std::integral_constant<int, I>{}), ...);
}
template <int N, typename Work>
inline void for_constants(Work work) {
    for_constants(std::make_integer_sequence<int, N>{}, work);
}

}  // namespace amx

#else
#define SPOUTNIK_AMX 0
namespace amx {
constexpr bool granted() { return false; }
struct Tiles {
    Tiles() {}
};
}  // namespace amx
#endif
