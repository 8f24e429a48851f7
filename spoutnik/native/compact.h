// bfloat16 in 12 bits, without loss. The upper byte of a weight (its sign and seven of its exponent's bits) takes few values: a
// network's weights lie within some powers of two of each other. A panel keeps a table of its 16 most frequent ones and, for each
// weight, four bits that say which, beside the lower byte as it is; the few weights whose upper byte is another are written down
// apart. Decoding is as fast as memory is read, which here is a quarter less. (DFloat11, arXiv 2504.11651, goes from 12 to 11 bits
// with Huffman codes, which a processor's vectors cannot read.)
//
// A panel: the table (64 bytes, of which 16 are used), then its bfloat16 form (matrix.h), filled up with zeros, in records of 128
// weights: 64 bytes of codes, the first half's in their lower bits, and 128 lower bytes. In both, of each 16 bytes 8 belong to one
// quarter of the record and 8 to the next: so that joining bytes, which processors do within 16, leaves weights in order.
// Behind all panels: where the exceptions of each part (PART inputs of a panel) start, and the exceptions.
#pragma once

#include "basics.h"
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace compact {

constexpr int64_t RECORD = 128, RECORD_BYTES = 192, TABLE_BYTES = 64, PART = 128;

struct Exception {
    uint32_t place;  // in the panel's bfloat16 form
    bf16 value;
    uint16_t unused;
};

inline int64_t records_of(int64_t inputs, int64_t outputs) { return (inputs * outputs + RECORD - 1) / RECORD; }
inline int64_t panel_bytes(int64_t inputs, int64_t outputs) { return TABLE_BYTES + records_of(inputs, outputs) * RECORD_BYTES; }
inline int64_t parts_of(int64_t inputs) { return (inputs + PART - 1) / PART; }

// Where weight i of a record has its lower byte, among 128, and its code, among 128 of which the second 64 are upper halves.
inline int64_t place_in_record(int64_t i) { return i / 64 * 64 + i % 32 / 8 * 16 + i / 32 % 2 * 8 + i % 8; }

// A register of bytes; table lookup and joining go by 16 of them.
#if defined(__AVX512BW__)
#define SPOUTNIK_COMPACT 1
using bytes = __m512i;
inline bytes read(const uint8_t* from) { return _mm512_loadu_si512(from); }
inline void write(bf16* to, bytes x) { _mm512_storeu_si512(to, x); }
inline bytes table_of(const uint8_t* from) { return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))); }
inline bytes lookup(bytes table, bytes codes) { return _mm512_shuffle_epi8(table, codes); }
inline bytes lower(bytes codes) { return _mm512_and_si512(codes, _mm512_set1_epi8(15)); }
inline bytes upper(bytes codes) { return _mm512_and_si512(_mm512_srli_epi16(codes, 4), _mm512_set1_epi8(15)); }
inline bytes join_first(bytes low, bytes high) { return _mm512_unpacklo_epi8(low, high); }
inline bytes join_second(bytes low, bytes high) { return _mm512_unpackhi_epi8(low, high); }
#elif defined(__AVX2__)
#define SPOUTNIK_COMPACT 1
using bytes = __m256i;
inline bytes read(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
inline void write(bf16* to, bytes x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x); }
inline bytes table_of(const uint8_t* from) { return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))); }
inline bytes lookup(bytes table, bytes codes) { return _mm256_shuffle_epi8(table, codes); }
inline bytes lower(bytes codes) { return _mm256_and_si256(codes, _mm256_set1_epi8(15)); }
inline bytes upper(bytes codes) { return _mm256_and_si256(_mm256_srli_epi16(codes, 4), _mm256_set1_epi8(15)); }
inline bytes join_first(bytes low, bytes high) { return _mm256_unpacklo_epi8(low, high); }
inline bytes join_second(bytes low, bytes high) { return _mm256_unpackhi_epi8(low, high); }
#elif defined(__ARM_NEON) && defined(__aarch64__)
#define SPOUTNIK_COMPACT 1
using bytes = uint8x16_t;
inline bytes read(const uint8_t* from) { return vld1q_u8(from); }
inline void write(bf16* to, bytes x) { vst1q_u8(reinterpret_cast<uint8_t*>(to), x); }
inline bytes table_of(const uint8_t* from) { return vld1q_u8(from); }
inline bytes lookup(bytes table, bytes codes) { return vqtbl1q_u8(table, codes); }
inline bytes lower(bytes codes) { return vandq_u8(codes, vdupq_n_u8(15)); }
inline bytes upper(bytes codes) { return vshrq_n_u8(codes, 4); }
inline bytes join_first(bytes low, bytes high) { return vzip1q_u8(low, high); }
inline bytes join_second(bytes low, bytes high) { return vzip2q_u8(low, high); }
#else
#define SPOUTNIK_COMPACT 0  // nothing here looks up 16 bytes at once: weights stay plain
#endif

// `n` records after one another, to bfloat16.
inline void unpack(const uint8_t* table, const uint8_t* record, int64_t n, bf16* to) {
#if SPOUTNIK_COMPACT
    constexpr int64_t WIDTH = sizeof(bytes);
    const bytes values = table_of(table);
    for (int64_t i = 0; i < n; i++, record += RECORD_BYTES, to += RECORD) {
        fetch_ahead(record, RECORD_BYTES);
        for (int64_t at = 0; at < 64; at += WIDTH) {
            const bytes codes = read(record + at);
            for (int64_t half = 0; half < 2; half++) {
                const bytes high = lookup(values, half ? upper(codes) : lower(codes));
                const bytes low = read(record + 64 + half * 64 + at);
                write(to + half * 64 + at / 2, join_first(low, high));
                write(to + half * 64 + 32 + at / 2, join_second(low, high));
            }
        }
    }
#else
    for (int64_t i = 0; i < n; i++, record += RECORD_BYTES, to += RECORD)
        for (int64_t j = 0; j < RECORD; j++) {
            const int64_t place = place_in_record(j);
            const uint8_t code = record[place % 64] >> (place / 64 * 4) & 15;
            to[j] = static_cast<bf16>(table[code] << 8 | record[64 + place]);
        }
#endif
}

// The 16 most frequent upper bytes of a panel's weights, and each byte's code; OTHER: it has none.
struct Table {
    static constexpr uint8_t OTHER = 255;
    uint8_t values[16] = {};
    uint8_t code[256];

    Table(const bf16* weights, int64_t n) {
        int64_t count[256] = {};
        const int64_t step = n < 1 << 16 ? 1 : 7;  // what few of many would change does not matter
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

// A record of 128 weights; returns whether one of them is in no table.
inline bool pack(const Table& table, const bf16* from, uint8_t* record) {
    uint8_t codes[RECORD], all = 0;
    for (int64_t i = 0; i < RECORD; i++) {
        const int64_t place = place_in_record(i);
        const uint8_t code = table.code[from[i] >> 8];
        all |= code;
        codes[place] = code & 15;
        record[64 + place] = static_cast<uint8_t>(from[i]);
    }
    for (int64_t i = 0; i < 64; i++) record[i] = static_cast<uint8_t>(codes[i] | codes[64 + i] << 4);
    return all & 128;
}

}  // namespace compact
