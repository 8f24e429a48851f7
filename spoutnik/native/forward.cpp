// The forward pass as Python calls it: whole batches, drafts, and generated tokens several at a time. Each call checks its indices
// first, and returns what is wrong with them, or null.
#include "pass.h"
#include "sample.h"

SPOUTNIK_LAYOUT(Layer, uses)
SPOUTNIK_LAYOUT(Model, layer)
SPOUTNIK_LAYOUT(Batch, logits)
extern "C" const int64_t spoutnik_constants[] = {FLOAT32, BFLOAT16, INT8, INT4, COMPACT, GROUP, BLOCK};

extern "C" const char* spoutnik_instructions() {
    return ""
#if defined(__AVX512F__)
           "AVX-512"
#elif defined(__AVX2__)
           "AVX2"
#elif defined(__AVX__)
           "AVX"
#elif defined(__x86_64__)
           "SSE"
#elif defined(__ARM_NEON)
           "NEON"
#else
           "portable"
#endif
#if defined(__AVX512BF16__)
           " BF16"
#endif
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
           " VNNI"
#elif defined(__ARM_FEATURE_DOTPROD)
           " dotprod"
#endif
        ;
}

namespace {

// Whether `count` new positions behind `context` others have places in the cache and in the rotary table.
bool fits(const Model& m, const int64_t* table, int64_t table_width, int64_t context, int64_t count) {
    const int64_t most = std::min(table_width * BLOCK, m.positions);
    if (context < 0 || count < 1 || count > most || context > most - count) return false;
    for (int64_t block = 0; block <= (context + count - 1) / BLOCK; block++)
        if (table[block] < 0 || table[block] >= m.blocks) return false;
    return true;
}

bool below(const int64_t* numbers, int64_t n, int64_t limit) {
    return std::all_of(numbers, numbers + n, [limit](int64_t number) { return number >= 0 && number < limit; });
}

const char* wrong_with(const Model& m, const Batch& b) {
    int64_t tokens = 0;
    for (int64_t s = 0; s < b.sequences; tokens += b.counts[s++])
        if (!fits(m, b.tables + s * b.table_width, b.table_width, b.contexts[s], b.counts[s]))
            return "a sequence's contexts + counts pass its blocks or the model's positions, or its block is not in the cache";
    if (tokens != b.n_tokens) return "counts do not add up to the number of tokens";
    if (!below(b.tokens, tokens, m.vocabulary)) return "a token is not in the vocabulary";
    if (!below(b.wanted, b.n_wanted, tokens) || !std::is_sorted(b.wanted, b.wanted + b.n_wanted))
        return "wanted must be ascending indices of tokens";
    if (m.enorm && !b.states) return "the MTP module needs states";
    return nullptr;
}

// A batch in parts of whole sequences, of about `most` tokens or one sequence each.
std::vector<Part> parts_of(const Batch& b, int64_t most) {
    std::vector<Part> parts;
    int64_t token = 0, wanted = 0;
    for (int64_t s = 0; s < b.sequences; s++) {
        if (parts.empty() || parts.back().tokens + b.counts[s] > most) parts.push_back({s, s, token, wanted, wanted, 0});
        Part& part = parts.back();
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
        static Buffers buffers;
        static std::mutex one_at_a_time;
        std::lock_guard<std::mutex> turn(one_at_a_time);
        Team team(b.threads);
        std::unique_ptr<Pass<C>> passes;
        const Part part = parts_of(b, tokens)[0];
        Threads::run(b.threads, [&](int member) {
            if (!member) passes.reset(new Pass<C>(m, b, part, team, buffers));
            team.barrier();
            passes->run();
        });
        return;
    }
    // Few tokens are not worth waking anybody; many are cut so that a part's activations stay in the caches.
    const int threads = tokens < 16 ? 1 : b.threads;
    const int64_t share = (tokens + threads - 1) / threads, most = std::max<int64_t>(1, std::min<int64_t>(share, 256));
    const std::vector<Part> parts = parts_of(b, most);
    Team team(threads);
    Threads::run(threads, [&](int) {
        static thread_local Buffers buffers;
        team.each(parts.size(), 1, [&](int64_t i) {
            Team alone(1);
            Pass<C>(m, b, parts[i], alone, buffers).run();
        });
    });
}

// Where numbers with such bits are, nothing can be chosen; the comparison that -ffast-math would leave out.
bool finite(const float* x, int64_t n) {
    uint32_t odd = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        std::memcpy(&bits, x + i, 4);
        odd |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !odd;
}

// The random number of a sequence's token at `position`: engine/sampler.py's `uniforms_below_1`.
float uniform(int64_t seed, int64_t position) {
    uint64_t z = static_cast<uint64_t>(seed) + (static_cast<uint64_t>(position) + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return std::min(static_cast<float>(static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53), 1 - 0x1p-24f);
}

}  // namespace

extern "C" {

// Sequences that generate on their own; mirrored by structs.py. Each has a last token, which is not in the cache, and
// `contexts` tokens that are; settings (4, S): temperature, top_p, top_k, min_p. A sequence is over with one of its ends (filled
// up with -1), or when it has generated `limits` tokens. Out come, for each, up to `steps` tokens, how many, and whether its
// logits were no numbers.
struct Ahead {
    const int64_t *tokens, *contexts, *tables, *ends, *seeds, *generated, *limits;
    const float* settings;
    int64_t sequences, table_width, ends_width, steps, threads;
    int64_t* chosen;   // (S, steps)
    float* log_probs;  // (S, steps)
    int64_t* made;     // (S)
    uint8_t* broken;   // (S)
};

}

SPOUTNIK_LAYOUT(Ahead, broken)

namespace {

const char* wrong_with(const Model& m, const Ahead& a) {
    if (!below(a.tokens, a.sequences, m.vocabulary)) return "a token is not in the vocabulary";
    for (int64_t s = 0; s < a.sequences; s++) {
        const int64_t count = std::max<int64_t>(1, std::min(a.steps, a.limits[s] - a.generated[s]));
        if (!fits(m, a.tables + s * a.table_width, a.table_width, a.contexts[s], count))
            return "a sequence would pass its blocks or the model's positions, or its block is not in the cache";
    }
    return nullptr;
}

// Sequences [begin, end), by one thread.
template <typename C>
class Generation {
   public:
    Generation(const Model& m, const Ahead& a, int64_t begin, int64_t end) : m(m), a(a) {
        const int64_t n = end - begin;
        for (int64_t s = begin; s < end; s++) live.push_back(s);
        tokens.resize(n);
        contexts.resize(n);
        tables.resize(n * a.table_width);
        counts.assign(n, 1);
        prompt.assign(n, 0);
        wanted.resize(n);
        std::iota(wanted.begin(), wanted.end(), 0);
        logits.resize(n * m.vocabulary);
    }

    void run(Buffers& buffers) {
        for (int64_t step = 0; step < a.steps && !live.empty(); step++) {
            const int64_t n = live.size();
            for (int64_t i = 0; i < n; i++) {
                const int64_t s = live[i], made = a.made[s];
                tokens[i] = made ? a.chosen[s * a.steps + made - 1] : a.tokens[s];
                contexts[i] = a.contexts[s] + made;
                std::copy_n(a.tables + s * a.table_width, a.table_width, tables.data() + i * a.table_width);
            }
            const Batch b{tokens.data(), counts.data(), contexts.data(), tables.data(), wanted.data(), prompt.data(),
                          n, n, a.table_width, n, 1, nullptr, nullptr, logits.data()};
            Team alone(1);
            Pass<C>(m, b, {0, n, 0, 0, n, n}, alone, buffers).run();
            int64_t left = 0;
            for (int64_t i = 0; i < n; i++)
                if (go_on(live[i], logits.data() + i * m.vocabulary)) live[left++] = live[i];
            live.resize(left);
        }
    }

   private:
    const Model& m;
    const Ahead& a;
    std::vector<int64_t> live, tokens, contexts, tables, counts, wanted;
    std::vector<uint8_t> prompt;
    std::vector<float> logits;

    // Chooses a sequence's next token; false where it is over.
    bool go_on(int64_t s, const float* row) {
        if (!finite(row, m.vocabulary)) {
            a.broken[s] = 1;
            return false;
        }
        const int64_t n = a.sequences, at = s * a.steps + a.made[s], count = a.generated[s] + a.made[s];
        const Settings settings{a.settings[s], a.settings[n + s], a.settings[2 * n + s], a.settings[3 * n + s],
                                uniform(a.seeds[s], count)};
        a.chosen[at] = choose(settings, row, m.vocabulary, a.log_probs + at);
        a.made[s]++;
        const int64_t* ends = a.ends + s * a.ends_width;
        return count + 1 < a.limits[s] && std::find(ends, ends + a.ends_width, a.chosen[at]) == ends + a.ends_width;
    }
};

template <typename C>
void run_ahead(const Model& m, const Ahead& a) {
    const int threads = a.sequences < 16 ? 1 : a.threads;
    // A few pieces for each thread: some are over sooner, and the fewer rows, the more of their cache is still near in the next
    // step. Not too few: the products read all weights for each piece.
    const int64_t even = (a.sequences + threads - 1) / threads;
    const int64_t share = std::min(even, std::max<int64_t>((even + 3) / 4, 48));
    Team team(threads);
    Threads::run(threads, [&](int) {
        static thread_local Buffers buffers;
        team.each((a.sequences + share - 1) / share, 1, [&](int64_t i) {
            Generation<C>(m, a, i * share, std::min((i + 1) * share, a.sequences)).run(buffers);
        });
    });
}

}  // namespace

extern "C" {

// Only for models that are small: each thread has sequences of its own, and waits for nobody until all steps are done.
const char* run_ahead(const Model* m, const Ahead* a) {
    if (const char* wrong = wrong_with(*m, *a)) return wrong;
    if (m->half_cache) run_ahead<bf16>(*m, *a);
    else run_ahead<float>(*m, *a);
    return nullptr;
}

void draw(const float* logits, const float* settings, int64_t* tokens, float* log_probs, int64_t rows, int64_t vocabulary,
          int64_t threads);

const char* forward_batch(const Model* m, const Batch* b) {
    if (const char* wrong = wrong_with(*m, *b)) return wrong;
    if (m->half_cache) forward<bf16>(*m, *b);
    else forward<float>(*m, *b);
    return nullptr;
}

// The MTP module over its batch, then over its own states, token by token: `ahead` tokens for each wanted one of the batch, drawn
// with settings (ahead, 5, W; see draw) to tokens (ahead, W). b's hidden is needed, its logits are scratch.
const char* draft_ahead(const Model* m, const Batch* b, int64_t ahead, const float* settings, int64_t* tokens) {
    const int64_t n = b->n_wanted;
    std::vector<int64_t> counts(n, 1), contexts(n), tables(n * b->table_width), wanted(n);
    std::vector<float> states(n * m->hidden), next_states(n * m->hidden), log_probs(n);
    const std::vector<uint8_t> prompt(n, 0);
    if (const char* wrong = forward_batch(m, b)) return wrong;
    for (int64_t i = 0, s = 0, end = b->sequences ? b->counts[0] : 0; i < n; i++) {
        while (b->wanted[i] >= end) end += b->counts[++s];
        contexts[i] = b->contexts[s] + b->counts[s] - (end - b->wanted[i]);
        std::copy_n(b->tables + s * b->table_width, b->table_width, tables.data() + i * b->table_width);
        std::copy_n(b->hidden + b->wanted[i] * m->hidden, m->hidden, states.data() + i * m->hidden);
        wanted[i] = i;
    }
    for (int64_t k = 0; k < ahead && n; k++) {
        draw(b->logits, settings + k * 5 * n, tokens + k * n, log_probs.data(), n, m->vocabulary, b->threads);
        if (k + 1 == ahead) break;
        for (int64_t& context : contexts) context++;
        const Batch next{tokens + k * n, counts.data(), contexts.data(), tables.data(), wanted.data(), prompt.data(), n, n,
                         b->table_width, n, b->threads, states.data(), next_states.data(), b->logits};
        if (const char* wrong = forward_batch(m, &next)) return wrong;
        states.swap(next_states);
    }
    return nullptr;
}

}
