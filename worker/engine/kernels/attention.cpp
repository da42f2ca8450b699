// Attention of a step's tokens over the slot cache.
//
// Keys and values lie as [slots, capacity, heads, dim]. A token costs one reading of the keys and values up to its own
// position: no padding, no mask; neighbouring tokens of a prompt share it. Sums are kept in float whatever the cache
// holds, and none depends on the other tokens of the step.

#include <algorithm>
#include <atomic>
#include <vector>

#include "arguments.h"
#include "head.h"

namespace {

constexpr float LEAST = -3.0e38f;
constexpr int64_t TILE = 8;  // tokens that go through keys and values together

// Some key heads of neighbouring tokens of a slot. The last token sees `count` positions from `start` on, each before it
// one less.
struct Part {
    int64_t token, tokens, first, last, start, count;

    Part(const Attention &call, int64_t token, int64_t tokens, int64_t first, int64_t last)
        : token(token), tokens(tokens), first(first), last(last) {
        const int64_t end = call.positions[token + tokens - 1] + 1;
        start = call.window && end > call.window ? end - call.window : 0;
        count = end - start;
    }

    template <typename T>
    const T *in(const void *states, const Attention &call) const {
        const int64_t position = call.slots[token] * call.capacity + start;
        return static_cast<const T *>(states) + position * call.key_heads * call.dim;
    }

    int64_t blocks() const { return (count + LANES - 1) / LANES; }
    int64_t rows(int64_t block) const { return std::min<int64_t>(count - block * LANES, LANES); }

    // A block of keys or values: all heads as they lie in memory, or one head of position after position.
    template <typename T>
    Ahead<T> ahead(const T *states, int64_t block, int64_t head, const Attention &call) const {
        const int64_t row = call.key_heads * call.dim, heads = last - first;
        const T *from = states + block * LANES * row;
        if (heads < call.key_heads) return {from + head * call.dim, row};
        return {from + head * rows(block) * call.dim, rows(block) * call.dim / LANES};
    }
};

// The heads of a part's tokens that read the same key head, one key head after the other: each a query.
struct Queries {
    const Attention &call;
    const Part &part;
    const int64_t shares = call.heads / call.key_heads, each = part.tokens * shares;  // of a key head
    const int64_t count = (part.last - part.first) * each;

    int64_t key_head(int64_t query) const { return part.first + query / each; }
    int64_t token(int64_t query) const { return query % each / shares; }
    int64_t head(int64_t query) const { return key_head(query) * shares + query % shares; }
    bool is_first(int64_t query) const { return query % each == 0; }
};

// As many sums as fit into the registers, and then the rest.
template <typename T, int VECTORS, int N>
void add_weighted(float *to, const T *values, int64_t row, const float *weights, int64_t length, int64_t queries,
                  int count, Ahead<T> ahead) {
    for (; queries >= N; queries -= N, to += N * VECTORS * LANES, weights += N * length, ahead.step = 0)
        WeightedSum<T, VECTORS>::template add<N>(to, values, row, weights, length, count, ahead);
    if constexpr (N > 1)
        if (queries > 0) add_weighted<T, VECTORS, N - 1>(to, values, row, weights, length, queries, count, ahead);
}

// Keys and values are read block by block, in the order in which they lie; what is read next is fetched meanwhile. A
// position that a token does not see has the weight 0, so that its sums are the same whatever other tokens there are.
template <typename T, int VECTORS>
void attend_part(const Attention &call, const Part &part, const Part *following) {
    constexpr int DIM = VECTORS * LANES, AT_ONCE = VECTORS < 4 ? 6 : VECTORS < 24 ? 24 / VECTORS : 1;
    static thread_local std::vector<float> memory;
    const Queries queries{call, part};
    const int64_t blocks = part.blocks(), length = blocks * LANES, row = call.key_heads * DIM;
    if (static_cast<int64_t>(memory.size()) < queries.count * (length + DIM))
        memory.resize(queries.count * (2 * length + DIM));
    float *scores = memory.data(), *summed = scores + queries.count * length;
    const T *keys = part.in<T>(call.keys, call), *values = part.in<T>(call.values, call);
    for (int64_t block = 0; block < blocks; block++) {
        int64_t offsets[LANES];
        for (int i = 0; i < LANES; i++) offsets[i] = (block * LANES + std::min<int64_t>(i, part.rows(block) - 1)) * row;
        for (int64_t at = 0; at < queries.count; at++) {
            const int64_t key_head = queries.key_head(at), token = queries.token(at);
            const QueryOf<T, VECTORS> query(static_cast<const T *>(call.query) +
                                            (part.token + token) * call.of_query.token +
                                            queries.head(at) * call.of_query.head);
            Ahead<T> ahead{keys, 0};
            if (queries.is_first(at))
                ahead = block + 1 < blocks ? part.ahead(keys, block + 1, key_head, call)
                                           : part.ahead(values, 0, key_head, call);
            Vector products[LANES];
            for (int i = 0; i < LANES; i++) {
                products[i] = query * (keys + offsets[i] + key_head * DIM);
                ahead.template fetch<DIM>(i);
            }
            Vector found = sums(products) * call.scale;
            if (call.softcap) found = capped(found, call.softcap);
            const int64_t seen = part.count - (part.tokens - 1 - token) - block * LANES;
            const Integers is_seen = ORDER < static_cast<int32_t>(std::clamp<int64_t>(seen, 0, LANES));
            store(scores + at * length + block * LANES, is_seen ? found : all(LEAST));
        }
    }
    std::fill_n(summed, queries.count * DIM, 0.0f);
    for (int64_t at = 0; at < queries.count; at++) softmax(scores + at * length, blocks);
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t at = 0; at < queries.count; at += queries.each) {
            const int64_t key_head = queries.key_head(at);
            Ahead<T> ahead{values, 0};
            if (block + 1 < blocks)
                ahead = part.ahead(values, block + 1, key_head, call);
            else if (following)
                ahead = following->ahead(
                    following->in<T>(call.keys, call), 0,
                    following->first + (key_head - part.first) % (following->last - following->first), call);
            add_weighted<T, VECTORS, AT_ONCE>(summed + at * DIM, values + block * LANES * row + key_head * DIM, row,
                                              scores + at * length + block * LANES, length, queries.each,
                                              part.rows(block), ahead);
        }
    for (int64_t at = 0; at < queries.count; at++) {
        const int64_t token = part.token + queries.token(at);
        T *out = static_cast<T *>(call.out) + (token * call.heads + queries.head(at)) * DIM;
        WeightedSum<T, VECTORS>::finish(summed + at * DIM, out);
    }
}

// The step's keys or values go to their places.
template <typename T>
void keep(const Attention &call, const void *from, const Strides &strides, void *states, int64_t token) {
    const int64_t position = call.slots[token] * call.capacity + call.positions[token];
    for (int64_t head = 0; head < call.key_heads; head++)
        std::memcpy(static_cast<T *>(states) + (position * call.key_heads + head) * call.dim,
                    static_cast<const T *>(from) + token * strides.token + head * strides.head, call.dim * sizeof(T));
}

// Tokens from `token` on that follow one another in a slot and see its positions from the first on.
int64_t run_from(const Attention &call, int64_t token) {
    int64_t end = token + 1;
    while (end < call.tokens && call.slots[end] == call.slots[token] &&
           call.positions[end] == call.positions[end - 1] + 1 && (!call.window || call.positions[end] < call.window))
        end++;
    return end - token;
}

// A run is cut into tiles of tokens, which go through one key head after the other, so that its keys stay near.
std::vector<Part> parts_of(const Attention &call) {
    const int64_t cuts = call.tokens < 4 * call.threads ? call.key_heads : 1;
    std::vector<Part> parts;
    for (int64_t token = 0, run; token < call.tokens; token += run) {
        run = run_from(call, token);
        for (int64_t cut = 0, of = run > 1 ? call.key_heads : cuts; cut < of; cut++)
            for (int64_t at = 0; at < run; at += TILE)
                parts.emplace_back(call, token + at, std::min(TILE, run - at), call.key_heads * cut / of,
                                   call.key_heads * (cut + 1) / of);
    }
    return parts;
}

template <typename T, int VECTORS>
void attend_all(const Attention &call) {
    const std::vector<Part> parts = parts_of(call);
    const int64_t count = parts.size();
    std::atomic<int64_t> taken{0};
#pragma omp parallel num_threads(call.threads)
    {
#pragma omp for schedule(static)
        for (int64_t token = 0; token < call.tokens; token++) {
            keep<T>(call, call.key, call.of_key, call.keys, token);
            keep<T>(call, call.value, call.of_value, call.values, token);
        }
        for (int64_t at = taken++, next; at < count; at = next) {
            next = taken++;
            attend_part<T, VECTORS>(call, parts[at], next < count ? &parts[next] : nullptr);
        }
    }
}

template <typename T>
int32_t attend(const Attention &call) {
    switch (call.dim) {
        case 16: attend_all<T, 1>(call); return DONE;
        case 32: attend_all<T, 2>(call); return DONE;
        case 48: attend_all<T, 3>(call); return DONE;
        case 64: attend_all<T, 4>(call); return DONE;
        case 80: attend_all<T, 5>(call); return DONE;
        case 96: attend_all<T, 6>(call); return DONE;
        case 128: attend_all<T, 8>(call); return DONE;
        case 256: attend_all<T, 16>(call); return DONE;
        default: return NO_CODE;
    }
}

}  // namespace

// Write the step's keys and values into the cache, then let every token attend to its slot up to itself, to the last
// `window` positions if that is not 0.
extern "C" int32_t attend_float32(const Attention *call) { return attend<float>(*call); }
extern "C" int32_t attend_bfloat16(const Attention *call) { return attend<BFloat16>(*call); }
