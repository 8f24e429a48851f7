// The forward pass as Python calls it: a batch, a multi-step draft, and multi-step decoding. Each call checks its indices
// first, and returns what is wrong with them, or null.
#include "forward_pass.h"

#include <numeric>
#include <string>

#include "sample.h"

SPOUTNIK_LAYOUT(Layer, uses)
SPOUTNIK_LAYOUT(LowRank, half)
SPOUTNIK_LAYOUT(LayerAdapter, values)
SPOUTNIK_LAYOUT(Model, low)
SPOUTNIK_LAYOUT(Batch, adapters)
extern "C" const int64_t spoutnik_constants[] = {FLOAT32, BFLOAT16, INT8, INT4, BF12, GROUP_SIZE, BLOCK_SIZE};

extern "C" const char* spoutnik_instruction_set() {
    static const std::string name = std::string(instruction_set()) + (amx::granted() ? " AMX" : "");
    return name.c_str();
}

namespace {

// Whether `count` new positions after `context` others fit the blocks and the rotary table.
bool fits(const Model& m, const int64_t* table, int64_t table_width, int64_t context, int64_t count) {
    const int64_t most = std::min(table_width * BLOCK_SIZE, m.positions);
    if (context < 0 || count < 1 || count > most || context > most - count) return false;
    for (int64_t block = 0; block <= (context + count - 1) / BLOCK_SIZE; block++)
        if (table[block] < 0 || table[block] >= m.blocks) return false;
    return true;
}

bool below(const int64_t* numbers, int64_t n, int64_t limit) {
    return std::all_of(numbers, numbers + n, [limit](int64_t number) { return number >= 0 && number < limit; });
}

// Whether each of these is -1 or the number of an adapter.
bool have_adapters(const Model& m, const int64_t* numbers, int64_t n) {
    return !numbers || std::all_of(numbers, numbers + n, [&m](int64_t number) {
        return number == -1 || (number >= 0 && number < m.n_adapters && m.adapters[number]);
    });
}

const char* find_error(const Model& m, const Batch& b) {
    int64_t tokens = 0;
    for (int64_t s = 0; s < b.sequences; tokens += b.counts[s++])
        if (!fits(m, b.tables + s * b.table_width, b.table_width, b.contexts[s], b.counts[s]))
            return "a sequence's contexts + counts pass its blocks or the model's positions, or its block is not in the cache";
    if (tokens != b.n_tokens) return "counts do not add up to the number of tokens";
    if (!below(b.tokens, tokens, m.vocabulary)) return "a token is not in the vocabulary";
    if (!below(b.wanted, b.n_wanted, tokens) || !std::is_sorted(b.wanted, b.wanted + b.n_wanted))
        return "wanted must be ascending indices of tokens";
    if (m.enorm && !b.states) return "the MTP module needs states";
    if (!have_adapters(m, b.adapters, b.sequences)) return "a sequence's adapter is not set";
    return nullptr;
}

// A batch in parts of whole sequences, each of about `most` tokens or one sequence.
std::vector<BatchPart> split_batch(const Batch& b, int64_t most) {
    std::vector<BatchPart> parts;
    int64_t token = 0, wanted = 0;
    for (int64_t s = 0; s < b.sequences; s++) {
        if (parts.empty() || parts.back().tokens + b.counts[s] > most) parts.push_back({s, s, token, wanted, wanted, 0});
        BatchPart& part = parts.back();
        part.end = s + 1;
        part.tokens += b.counts[s];
        token += b.counts[s];
        while (wanted < b.n_wanted && b.wanted[wanted] < token) wanted++;
        part.wanted_end = wanted;
    }
    return parts;
}

template <typename C>
void forward(const Model& m, const Batch& b) {
    const int64_t tokens = b.n_tokens;
    if (!tokens) return;
    if (!m.small) {
        static Workspace workspace;
        static std::mutex one_at_a_time;
        std::lock_guard<std::mutex> lock(one_at_a_time);
        ThreadGroup group(b.threads);
        std::unique_ptr<ForwardPass<C>> pass;
        const BatchPart part = split_batch(b, tokens)[0];
        ThreadPool::run(b.threads, [&](int thread) {
            if (!thread) pass.reset(new ForwardPass<C>(m, b, part, group, workspace));
            group.barrier();
            pass->run();
        });
        return;
    }
    // Few tokens are not worth waking a thread; many are split so that the activations of a part stay in the caches.
    const int threads = tokens < 16 ? 1 : b.threads;
    const int64_t share = ceil_div(tokens, threads), most = std::max<int64_t>(1, std::min<int64_t>(share, 256));
    const std::vector<BatchPart> parts = split_batch(b, most);
    ThreadGroup group(threads);
    ThreadPool::run(threads, [&](int) {
        static thread_local Workspace workspace;
        group.parallel_for(parts.size(), 1, [&](int64_t i) {
            ThreadGroup alone(1);
            ForwardPass<C>(m, b, parts[i], alone, workspace).run();
        });
    });
}

// Whether no number is NaN or infinite. By their bits: -ffast-math removes such comparisons.
bool all_finite(const float* x, int64_t n) {
    uint32_t odd = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        std::memcpy(&bits, x + i, 4);
        odd |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !odd;
}

// The random number of the token at `position` of a sequence. Plain twin: uniforms_below_1 in engine/sampler.py.
float uniform(int64_t seed, int64_t position) {
    uint64_t z = static_cast<uint64_t>(seed) + (static_cast<uint64_t>(position) + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return std::min(static_cast<float>(static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53), 1 - 0x1p-24f);
}

}  // namespace

extern "C" {

// Sequences that decode several steps in one call; mirrored by structs.py. Each has a last token, which is not in the cache,
// and `contexts` tokens that are; settings (4, S): temperature, top_p, top_k, min_p. A sequence ends with one of its `ends`
// (padded with -1), or when it has generated `limits` tokens. Results: up to `steps` tokens of each, how many, and whether
// its logits were not finite.
struct MultiStep {
    const int64_t *tokens, *contexts, *tables, *ends, *seeds, *generated, *limits;
    const float* settings;
    int64_t sequences, table_width, ends_width, steps, threads;
    int64_t* output_tokens;  // (S, steps)
    float* log_probs;        // (S, steps)
    int64_t* counts;         // (S)
    uint8_t* broken;         // (S)
    const int64_t* adapters;  // as Batch's
};

}

SPOUTNIK_LAYOUT(MultiStep, adapters)

namespace {

const char* find_error(const Model& m, const MultiStep& a) {
    if (!below(a.tokens, a.sequences, m.vocabulary)) return "a token is not in the vocabulary";
    for (int64_t s = 0; s < a.sequences; s++) {
        const int64_t count = std::max<int64_t>(1, std::min(a.steps, a.limits[s] - a.generated[s]));
        if (!fits(m, a.tables + s * a.table_width, a.table_width, a.contexts[s], count))
            return "a sequence would pass its blocks or the model's positions, or its block is not in the cache";
    }
    if (!have_adapters(m, a.adapters, a.sequences)) return "a sequence's adapter is not set";
    return nullptr;
}

// Sequences [begin, end), by one thread.
template <typename C>
class MultiStepDecoder {
   public:
    MultiStepDecoder(const Model& m, const MultiStep& a, int64_t begin, int64_t end) : m(m), a(a) {
        const int64_t n = end - begin;
        for (int64_t s = begin; s < end; s++) live.push_back(s);
        tokens.resize(n);
        contexts.resize(n);
        tables.resize(n * a.table_width);
        adapters.resize(n);
        counts.assign(n, 1);
        prompt.assign(n, 0);
        wanted.resize(n);
        std::iota(wanted.begin(), wanted.end(), 0);
        logits.resize(n * m.vocabulary);
    }

    void run(Workspace& workspace) {
        for (int64_t step = 0; step < a.steps && !live.empty(); step++) {
            const int64_t n = live.size();
            for (int64_t i = 0; i < n; i++) {
                const int64_t s = live[i], done = a.counts[s];
                tokens[i] = done ? a.output_tokens[s * a.steps + done - 1] : a.tokens[s];
                contexts[i] = a.contexts[s] + done;
                if (a.adapters) adapters[i] = a.adapters[s];
                std::copy_n(a.tables + s * a.table_width, a.table_width, tables.data() + i * a.table_width);
            }
            const Batch b{tokens.data(), counts.data(), contexts.data(), tables.data(), wanted.data(), prompt.data(),
                          n, n, a.table_width, n, 1, nullptr, nullptr, logits.data(),
                          a.adapters ? adapters.data() : nullptr};
            ThreadGroup alone(1);
            ForwardPass<C>(m, b, {0, n, 0, 0, n, n}, alone, workspace).run();
            int64_t left = 0;
            for (int64_t i = 0; i < n; i++)
                if (sample_next(live[i], logits.data() + i * m.vocabulary)) live[left++] = live[i];
            live.resize(left);
        }
    }

   private:
    const Model& m;
    const MultiStep& a;
    std::vector<int64_t> live, tokens, contexts, tables, counts, wanted, adapters;
    std::vector<uint8_t> prompt;
    std::vector<float> logits;

    // Samples the next token of a sequence; returns whether it goes on.
    bool sample_next(int64_t s, const float* row) {
        if (!all_finite(row, m.vocabulary)) {
            a.broken[s] = 1;
            return false;
        }
        const int64_t n = a.sequences, at = s * a.steps + a.counts[s], count = a.generated[s] + a.counts[s];
        const SamplingSettings settings{a.settings[s], a.settings[n + s], a.settings[2 * n + s], a.settings[3 * n + s],
                                uniform(a.seeds[s], count)};
        a.output_tokens[at] = sample_token(settings, row, m.vocabulary, a.log_probs + at);
        a.counts[s]++;
        const int64_t* ends = a.ends + s * a.ends_width;
        return count + 1 < a.limits[s] && std::find(ends, ends + a.ends_width, a.output_tokens[at]) == ends + a.ends_width;
    }
};

template <typename C>
void decode_multi_step(const Model& m, const MultiStep& a) {
    const int threads = a.sequences < 16 ? 1 : a.threads;
    // A few shares for each thread: some end sooner, and fewer rows leave more of their cache in the processor's until the
    // next step. Not too few rows: the products read all weights for each share.
    const int64_t even = ceil_div(a.sequences, threads);
    const int64_t share = std::min(even, std::max<int64_t>((even + 3) / 4, 48));
    ThreadGroup group(threads);
    ThreadPool::run(threads, [&](int) {
        static thread_local Workspace workspace;
        group.parallel_for(ceil_div(a.sequences, share), 1, [&](int64_t i) {
            MultiStepDecoder<C>(m, a, i * share, std::min((i + 1) * share, a.sequences)).run(workspace);
        });
    });
}

}  // namespace

extern "C" {

// For small models only: each thread has sequences of its own, and the threads do not wait for each other between steps.
const char* spoutnik_decode_multi_step(const Model* m, const MultiStep* a) {
    if (const char* error = find_error(*m, *a)) return error;
    if (m->half_cache) decode_multi_step<bf16>(*m, *a);
    else decode_multi_step<float>(*m, *a);
    return nullptr;
}

const char* spoutnik_forward(const Model* m, const Batch* b) {
    if (const char* error = find_error(*m, *b)) return error;
    if (m->half_cache) forward<bf16>(*m, *b);
    else forward<float>(*m, *b);
    return nullptr;
}

// The MTP module over its batch, then over its own states, step by step: `steps` tokens for each wanted one of the batch,
// sampled with settings (steps, 5, W; see spoutnik_sample) to tokens (steps, W). Needs b->hidden; b->logits is scratch.
const char* spoutnik_draft_multi_step(const Model* m, const Batch* b, int64_t steps, const float* settings,
                                      int64_t* tokens) {
    const int64_t n = b->n_wanted;
    std::vector<int64_t> counts(n, 1), contexts(n), tables(n * b->table_width), wanted(n);
    std::vector<float> states(n * m->hidden), next_states(n * m->hidden), log_probs(n);
    const std::vector<uint8_t> prompt(n, 0);
    if (const char* error = spoutnik_forward(m, b)) return error;
    for (int64_t i = 0, s = 0, end = b->sequences ? b->counts[0] : 0; i < n; i++) {
        while (b->wanted[i] >= end) end += b->counts[++s];
        contexts[i] = b->contexts[s] + b->counts[s] - (end - b->wanted[i]);
        std::copy_n(b->tables + s * b->table_width, b->table_width, tables.data() + i * b->table_width);
        std::copy_n(b->hidden + b->wanted[i] * m->hidden, m->hidden, states.data() + i * m->hidden);
        wanted[i] = i;
    }
    for (int64_t k = 0; k < steps && n; k++) {
        spoutnik_sample(b->logits, settings + k * 5 * n, tokens + k * n, log_probs.data(), n, m->vocabulary, b->threads);
        if (k + 1 == steps) break;
        for (int64_t& context : contexts) context++;
        const Batch next{tokens + k * n, counts.data(), contexts.data(), tables.data(), wanted.data(), prompt.data(), n, n,
                         b->table_width, n, b->threads, states.data(), next_states.data(), b->logits, nullptr};
        if (const char* error = spoutnik_forward(m, &next)) return error;
        states.swap(next_states);
    }
    return nullptr;
}

}
