// How fast this machine reads memory when nothing is computed: the limit of decoding, which reads every weight for every
// token.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "numerics.h"

namespace {

uint64_t sum(const uint64_t* data, int64_t n) {
    uint64_t sums[64] = {};  // enough independent sums to hide the latency of additions
    for (int64_t i = 0; i + 64 <= n; i += 64) {
        // A page ahead; past the end is harmless.
        for (int64_t line = 0; line < 64; line += 8) __builtin_prefetch(data + i + 512 + line);
        for (int64_t j = 0; j < 64; j++) sums[j] += data[i + j];
    }
    uint64_t total = 0;
    for (uint64_t part : sums) total += part;
    return total;
}

}  // namespace

// Bytes per second of the fastest of `runs` reads of a block of `bytes`, an equal part to each of `threads`; 0 if there is
// no memory for it. *checksum keeps the compiler from removing the reads.
extern "C" double spoutnik_read_bandwidth(int64_t bytes, int64_t threads, int64_t runs, uint64_t* checksum) {
    const int64_t part = bytes / threads / 4096 * 4096, page = 2 << 20;
    const int64_t whole = round_up(part * threads, page);
    auto* data = static_cast<uint64_t*>(std::aligned_alloc(page, whole));
    if (data == nullptr) return 0;
#if defined(__linux__)
    madvise(data, whole, MADV_HUGEPAGE);
#endif
    std::memset(data, 1, whole);
    double best = 0;
    for (int64_t run = 0; run < runs; run++) {
        std::vector<uint64_t> sums(threads);
        std::vector<std::thread> readers;
        const auto began = std::chrono::steady_clock::now();
        for (int64_t t = 0; t < threads; t++)
            readers.emplace_back([&, t] { sums[t] = sum(data + t * part / 8, part / 8); });
        for (auto& reader : readers) reader.join();
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - began;
        best = std::max(best, static_cast<double>(part * threads) / seconds.count());
        for (uint64_t s : sums) *checksum += s;
    }
    std::free(data);
    return best;
}
