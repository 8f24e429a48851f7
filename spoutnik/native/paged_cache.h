// The paged cache of keys and values: blocks of BLOCK_SIZE positions.
//
// A latent cache (MLA) holds a row of numbers for each position, which is key and value of all heads. For grouped-query
// attention a block holds, group of heads after group, the keys as packed weights (tile.h), so that the scores of a query are
// a product with them, then the values, a row for each position: what one group reads is contiguous.
#pragma once

#include "tile.h"

constexpr int64_t BLOCK_SIZE = 16;
constexpr int64_t CHUNK = 256;  // positions whose scores are held at a time

// Where the numbers of a position are in its block, of `width` for each position: of MLA, or of one group.
template <typename C>
struct BlockLayout {
    static constexpr int64_t P = Packing<C>::PAIR;
    int64_t width, key_width, value_width, group;
    bool latent;
    int64_t keys() const { return latent ? 0 : group * BLOCK_SIZE * (key_width + value_width); }
    int64_t values() const { return latent ? 0 : keys() + BLOCK_SIZE * key_width; }
    int64_t value_step() const { return latent ? width : value_width; }

    // The offset of packed key number i (a multiple of P) of position s of the block.
    int64_t key(int64_t s, int64_t i) const { return keys() + s / LANES * LANES * key_width + i * LANES + s % LANES * P; }
};

// The cached positions of a sequence, as one group of heads reads them.
template <typename C>
struct CachedSequence : BlockLayout<C> {
    const C* data;
    const int64_t* table;
    CachedSequence(const BlockLayout<C>& layout, const C* data, const int64_t* table)
        : BlockLayout<C>(layout), data(data), table(table) {}
    const C* block(int64_t position) const { return data + table[position / BLOCK_SIZE] * BLOCK_SIZE * this->width; }
    const C* keys_of(int64_t position) const { return block(position) + this->keys(); }
    const C* values_of(int64_t position) const { return block(position) + this->values(); }
};

// Stores keys and values (groups, their width) of position s of a block.
template <typename C>
inline void store_position(C* block, BlockLayout<C> layout, int64_t s, const float* key, const float* value, int64_t groups) {
    constexpr int64_t P = Packing<C>::PAIR, width = 64;
    for (layout.group = 0; layout.group < groups; layout.group++, key += layout.key_width, value += layout.value_width) {
        for (int64_t first = 0; first < layout.key_width; first += width) {
            C part[width];
            const int64_t count = std::min(width, layout.key_width - first);
            store_floats(part, key + first, count);
            for (int64_t i = 0; i < count; i += P) std::memcpy(block + layout.key(s, first + i), part + i, P * sizeof(C));
        }
        store_floats(block + layout.values() + s * layout.value_width, value, layout.value_width);
    }
}

// Prefetches a block; done by its first reader for all groups of heads.
template <typename C>
inline void prefetch_block(const C* block, int64_t width) {
    const char *line = reinterpret_cast<const char*>(block), *end = reinterpret_cast<const char*>(block + BLOCK_SIZE * width);
    for (; line < end; line += 64) __builtin_prefetch(line, 0, 2);
}
