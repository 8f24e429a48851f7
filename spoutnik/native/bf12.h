// bf12: bfloat16 in 12 bits, without loss. The upper byte of a weight (its sign and seven bits of its exponent) takes few
// values, since the weights of a network lie within some powers of two of each other. A panel keeps a table of its 16 most
// frequent ones and, for each weight, a code of four bits for the table beside the lower byte as it is; the few weights whose
// upper byte is not in the table are exceptions, stored apart. Decoding is as fast as memory is read, and reads a quarter
// less. (DFloat11, arXiv 2504.11651, goes from 12 to 11 bits with Huffman codes, which vectors cannot decode.)
//
// A panel: the table (64 bytes, of which 16 are used), then its bfloat16 form (packed_matrix.h), padded with zeros, in
// records of 128 weights: 64 bytes of codes, the first half's in their lower bits, and 128 lower bytes. In both, 8 of each 16
// bytes belong to one quarter of the record and 8 to the next, so that interleaving within 16 bytes, which is what vectors
// do, leaves the weights in order. Behind all panels: where the exceptions of each part (PART inputs of a panel) start, and
// the exceptions.
#pragma once

#include "simd.h"

namespace bf12 {

constexpr int64_t RECORD = 128, RECORD_BYTES = 192, TABLE_BYTES = 64, PART = 128;

struct Exception {
    uint32_t index;  // in the panel's bfloat16 form
    bf16 value;
    uint16_t unused;
};

inline int64_t record_count(int64_t inputs, int64_t outputs) { return ceil_div(inputs * outputs, RECORD); }
inline int64_t panel_bytes(int64_t inputs, int64_t outputs) {
    return TABLE_BYTES + record_count(inputs, outputs) * RECORD_BYTES;
}
inline int64_t part_count(int64_t inputs) { return ceil_div(inputs, PART); }

// The index of weight i's lower byte in its record, among 128, and of its code, among 128 of which the second 64 are upper
// nibbles.
inline int64_t index_in_record(int64_t i) { return i / 64 * 64 + i % 32 / 8 * 16 + i / 32 % 2 * 8 + i % 8; }

// `n` consecutive records, to bfloat16.
inline void unpack(const uint8_t* table, const uint8_t* record, int64_t n, bf16* to) {
#if SPOUTNIK_LOOKUP
    constexpr int64_t WIDTH = sizeof(vbytes);
    const vbytes values = broadcast_table(table);
    for (int64_t i = 0; i < n; i++, record += RECORD_BYTES, to += RECORD) {
        prefetch_stream(record, RECORD_BYTES);
        for (int64_t at = 0; at < 64; at += WIDTH) {
            const vbytes codes = load_bytes(record + at);
            for (int64_t half = 0; half < 2; half++) {
                const vbytes high = lookup(values, half ? high_nibbles(codes) : low_nibbles(codes));
                const vbytes low = load_bytes(record + 64 + half * 64 + at);
                store_bytes(to + half * 64 + at / 2, interleave_low(low, high));
                store_bytes(to + half * 64 + 32 + at / 2, interleave_high(low, high));
            }
        }
    }
#else
    for (int64_t i = 0; i < n; i++, record += RECORD_BYTES, to += RECORD)
        for (int64_t j = 0; j < RECORD; j++) {
            const int64_t index = index_in_record(j);
            const uint8_t code = record[index % 64] >> (index / 64 * 4) & 15;
            to[j] = static_cast<bf16>(table[code] << 8 | record[64 + index]);
        }
#endif
}

// The 16 most frequent upper bytes of a panel's weights, and the code of each byte; OTHER: it has none.
struct Table {
    static constexpr uint8_t OTHER = 255;
    uint8_t values[16] = {};
    uint8_t code[256];

    Table(const bf16* weights, int64_t n) {
        int64_t count[256] = {};
        const int64_t step = n < 1 << 16 ? 1 : 7;  // a sample of many finds the frequent ones
        for (int64_t i = 0; i < n; i += step) count[weights[i] >> 8]++;
        std::fill(code, code + 256, OTHER);
        for (uint8_t c = 0; c < 16; c++) {
            const int64_t best = std::max_element(count, count + 256) - count;
            if (count[best] == 0) break;
            values[c] = static_cast<uint8_t>(best);
            code[best] = c;
            count[best] = 0;
        }
    }
};

// Packs a record of 128 weights; returns whether one of them is not in the table.
inline bool pack(const Table& table, const bf16* from, uint8_t* record) {
    uint8_t codes[RECORD], all = 0;
    for (int64_t i = 0; i < RECORD; i++) {
        const int64_t index = index_in_record(i);
        const uint8_t code = table.code[from[i] >> 8];
        all |= code;
        codes[index] = code & 15;
        record[64 + index] = static_cast<uint8_t>(from[i]);
    }
    for (int64_t i = 0; i < 64; i++) record[i] = static_cast<uint8_t>(codes[i] | codes[64 + i] << 4);
    return all & 128;
}

}  // namespace bf12
