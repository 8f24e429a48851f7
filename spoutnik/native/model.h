// The structures that describe a model and a batch to the forward pass; structs.py mirrors them field by field. Letters as in
// model/mla.py: T tokens, W wanted logits, D hidden, V vocabulary, E experts.
#pragma once

#include "low_rank.h"
#include "packed_matrix.h"

extern "C" {

struct Layer {
    const float *input_norm, *post_norm, *q_norm, *k_norm, *kv_norm;  // q_norm: of MLA's low rank, or of each head (Qwen3)
    const float* correction;                                          // (E), V3's bias of the routing
    Matrix first;                        // GQA: q, k, v. MLA: q_a (or q), then kv_a
    Matrix q_b, o;
    const Matrix *absorb_k, *absorb_v;   // per head: latent from nope, value from latent
    Matrix gate_up, down;                // dense feed-forward, or the shared experts
    Matrix router;
    const Matrix *experts_gate_up, *experts_down;
    void* cache;                         // (blocks, BLOCK_SIZE, width)
    int64_t* uses;                       // (E) how often each expert was used, added to
};

struct Model {
    int64_t hidden, heads, groups, layers, vocabulary;
    int64_t q_rank, latent, nope, rope, value;  // MLA; latent 0 means grouped-query attention, with nope 0
    int64_t experts, chosen, n_group, topk_group, two_best, normalize, softmax;
    int64_t half_cache, half_embedding, small;  // bfloat16 cache, embedding; small: each thread computes whole sequences
    int64_t blocks, positions;                  // of the cache, of the rotary table
    double routed_scale, softmax_scale, eps;
    const float *rotary, *final_norm;           // (positions, 2, rope/2), (D)
    Matrix head;
    const void* embedding;                      // (V, D)
    const float *enorm, *hnorm;                 // of the MTP module; null in the main model
    Matrix eh_proj;
    const Layer* layer;
    const LayerAdapter* const* adapters;        // by number: (layers) each, or null
    int64_t n_adapters, low;                    // low: the most numbers that A x has of a row, over all of them
};

struct Batch {
    const int64_t *tokens, *counts, *contexts, *tables, *wanted;
    const uint8_t* prompt;
    int64_t n_tokens, sequences, table_width, n_wanted, threads;
    const float* states;  // (T, D): what the MTP module reads
    float* hidden;        // (T, D), or null if not wanted
    float* logits;        // (W, V)
    const int64_t* adapters;  // (S) the number of each sequence's adapter, -1 for none; null: nobody has one
};

}
