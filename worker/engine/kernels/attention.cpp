// Attention of a step's tokens over the slot cache.
//
// Keys and values lie as [slots, capacity, heads, dim]. A token costs one reading of the keys and values up to its own
// position: no padding, no mask. Sums are kept in float whatever the cache holds, and none depends on the other tokens
// of the step.

#include <algorithm>
#include <atomic>
#include <type_traits>
#include <vector>

#include "vectors.h"

namespace {

constexpr float LEAST = -3.0e38f;

struct Strides {
    int64_t token, head;  // in elements; the last dimension is contiguous
};

}  // namespace

struct Attention {
    const void *query, *key, *value;  // [tokens, heads, dim] and [tokens, key_heads, dim], by their strides
    void *out;                        // [tokens, heads, dim], contiguous
    void *keys, *values;              // [slots, capacity, key_heads, dim]
    const int32_t *slots, *positions;  // [tokens]
    int64_t tokens, heads, key_heads, capacity, dim, window;
    Strides of_query, of_key, of_value;
    float scale;
    int32_t threads;
};

namespace {

// Lane i of the outcome is the sum over vector i's lanes.
inline Vector sums(Vector (&of)[LANES]) {
    constexpr Integers EVEN = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    constexpr Integers ODD = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
    for (int count = LANES; count > 1; count /= 2)
        for (int i = 0; i < count / 2; i++)
            of[i] = __builtin_shuffle(of[2 * i], of[2 * i + 1], EVEN) + __builtin_shuffle(of[2 * i], of[2 * i + 1], ODD);
    return of[0];
}

template <typename T, int VECTORS>
struct Query {
    Vector parts[VECTORS];

    explicit Query(const T *from) {
        for (int v = 0; v < VECTORS; v++) parts[v] = load(from + v * LANES);
    }

    // A product whose lanes add up to that of query and key.
    Vector operator*(const T *key) const {
        Vector product = parts[0] * load(key);
        for (int v = 1; v < VECTORS; v++) product += parts[v] * load(key + v * LANES);
        return product;
    }
};

#ifdef __AVX512BF16__
template <int VECTORS>
struct PairedQuery {
    __m512bh parts[VECTORS / 2];

    explicit PairedQuery(const BFloat16 *from) {
        for (int v = 0; v < VECTORS / 2; v++) parts[v] = pairs(from + 2 * v * LANES);
    }

    Vector operator*(const BFloat16 *key) const {
        __m512 product = _mm512_setzero_ps();
        for (int v = 0; v < VECTORS / 2; v++)
            product = _mm512_dpbf16_ps(product, parts[v], pairs(key + 2 * v * LANES));
        return reinterpret_cast<Vector>(product);
    }
};

template <typename T, int VECTORS>
using QueryOf = std::conditional_t<std::is_same_v<T, BFloat16> && VECTORS % 2 == 0, PairedQuery<VECTORS>, Query<T, VECTORS>>;
#else
template <typename T, int VECTORS>
using QueryOf = Query<T, VECTORS>;
#endif

// Keys or values that are needed soon, in sixteen steps, each a head of one position. It is never nothing: with no
// branch in their loops the products are a tenth faster.
template <typename T>
struct Ahead {
    const T *from;
    int64_t step;

    template <int DIM>
    void fetch(int64_t at) const {
        for (size_t byte = 0; byte < DIM * sizeof(T); byte += 64)
            __builtin_prefetch(reinterpret_cast<const char *>(from + at * step) + byte, 0, 0);
    }
};

// Where a sum of weighted values grows: [dim] floats, in the order that `finish` undoes.
template <typename T, int VECTORS, typename = void>
struct Mixture {
    static void add(float *to, const T *values, int64_t row, const float *weights, int count,
                    const Ahead<T> &ahead) {
        Vector parts[VECTORS];
        for (int v = 0; v < VECTORS; v++) parts[v] = load(to + v * LANES);
        for (int i = 0; i < count; i++) {
            ahead.template fetch<VECTORS * LANES>(i);
            for (int v = 0; v < VECTORS; v++) parts[v] += weights[i] * load(values + i * row + v * LANES);
        }
        for (int v = 0; v < VECTORS; v++) store(to + v * LANES, parts[v]);
    }

    static void finish(const float *from, T *to) {
        for (int v = 0; v < VECTORS; v++) store(to + v * LANES, load(from + v * LANES));
    }
};

// Two neighbours are taken apart by a shift and a mask, which is half the work of widening each.
template <int VECTORS>
struct Mixture<BFloat16, VECTORS, std::enable_if_t<VECTORS % 2 == 0>> {
    static void add(float *to, const BFloat16 *values, int64_t row, const float *weights, int count,
                    const Ahead<BFloat16> &ahead) {
        Vector parts[VECTORS];
        for (int v = 0; v < VECTORS; v++) parts[v] = load(to + v * LANES);
        for (int i = 0; i < count; i++) {
            ahead.template fetch<VECTORS * LANES>(i);
            for (int v = 0; v < VECTORS; v += 2) {
                Words both;
                std::memcpy(&both, values + i * row + v * LANES, sizeof both);
                parts[v] += weights[i] * reinterpret_cast<Vector>(both << 16);
                parts[v + 1] += weights[i] * reinterpret_cast<Vector>(both & 0xffff0000u);
            }
        }
        for (int v = 0; v < VECTORS; v++) store(to + v * LANES, parts[v]);
    }

    static void finish(const float *from, BFloat16 *to) {
        for (int v = 0; v < VECTORS; v += 2) {
            Words halves[2];
            for (int i = 0; i < 2; i++) {
                BFloat16 rounded[LANES];
                Halves bits;
                store(rounded, load(from + (v + i) * LANES));
                std::memcpy(&bits, rounded, sizeof bits);
                halves[i] = __builtin_convertvector(bits, Words);
            }
            const Words together = halves[0] | halves[1] << 16;
            std::memcpy(to + v * LANES, &together, sizeof together);
        }
    }
};

// Scores to weights that add up to 1.
inline void soften(float *scores, int64_t blocks) {
    Vector most = load(scores);
    for (int64_t block = 1; block < blocks; block++) {
        const Vector found = load(scores + block * LANES);
        most = found > most ? found : most;
    }
    const Vector top = all(maximum(most));
    Vector total = {};
    for (int64_t block = 0; block < blocks; block++) {
        const Vector weight = exponential(load(scores + block * LANES) - top);
        total += weight;
        store(scores + block * LANES, weight);
    }
    const float factor = 1.0f / sum(total);
    for (int64_t block = 0; block < blocks; block++)
        store(scores + block * LANES, load(scores + block * LANES) * factor);
}

// Some key heads of a token, and the positions that it sees.
struct Part {
    int64_t token, first, last, start, count;

    Part(const Attention &call, int64_t item, int64_t parts) {
        token = item / parts;
        first = item % parts * call.key_heads / parts;
        last = (item % parts + 1) * call.key_heads / parts;
        const int64_t end = call.positions[token] + 1;
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

// Keys and values are read block by block, in the order in which they lie; what is read next is fetched meanwhile.
template <typename T, int VECTORS>
void attend_part(const Attention &call, const Part &part, const Part *following) {
    constexpr int DIM = VECTORS * LANES;
    static thread_local std::vector<float> memory;
    const int64_t blocks = part.blocks(), length = blocks * LANES, row = call.key_heads * DIM;
    const int64_t shares = call.heads / call.key_heads, heads = (part.last - part.first) * shares;
    if (static_cast<int64_t>(memory.size()) < heads * (length + DIM)) memory.resize(heads * (2 * length + DIM));
    float *scores = memory.data(), *mixed = scores + heads * length;
    const T *keys = part.in<T>(call.keys, call), *values = part.in<T>(call.values, call);
    for (int64_t block = 0; block < blocks; block++) {
        int64_t offsets[LANES];
        for (int i = 0; i < LANES; i++) offsets[i] = (block * LANES + std::min<int64_t>(i, part.rows(block) - 1)) * row;
        const Integers is_real = ORDER < static_cast<int32_t>(part.rows(block));
        for (int64_t head = 0; head < heads; head++) {
            const int64_t key_head = part.first + head / shares;
            const QueryOf<T, VECTORS> query(static_cast<const T *>(call.query) + part.token * call.of_query.token +
                                            (part.first * shares + head) * call.of_query.head);
            Ahead<T> ahead{keys, 0};
            if (head % shares == 0)
                ahead = block + 1 < blocks ? part.ahead(keys, block + 1, key_head, call)
                                           : part.ahead(values, 0, key_head, call);
            Vector products[LANES];
            for (int i = 0; i < LANES; i++) {
                products[i] = query * (keys + offsets[i] + key_head * DIM);
                ahead.template fetch<DIM>(i);
            }
            const Vector found = sums(products) * call.scale;
            store(scores + head * length + block * LANES, is_real ? found : all(LEAST));
        }
    }
    for (int64_t head = 0; head < heads; head++) {
        float *sum = mixed + head * DIM;
        for (int at = 0; at < DIM; at++) sum[at] = 0.0f;
        soften(scores + head * length, blocks);
    }
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t head = 0; head < heads; head++) {
            const int64_t key_head = part.first + head / shares;
            Ahead<T> ahead{values, 0};
            if (head % shares == 0 && block + 1 < blocks)
                ahead = part.ahead(values, block + 1, key_head, call);
            else if (head % shares == 0 && following)
                ahead = following->ahead(following->in<T>(call.keys, call), 0, following->first + head / shares, call);
            Mixture<T, VECTORS>::add(mixed + head * DIM, values + block * LANES * row + key_head * DIM, row,
                                     scores + head * length + block * LANES, part.rows(block), ahead);
        }
    T *out = static_cast<T *>(call.out) + (part.token * call.heads + part.first * shares) * DIM;
    for (int64_t head = 0; head < heads; head++) Mixture<T, VECTORS>::finish(mixed + head * DIM, out + head * DIM);
}

// The step's keys or values go to their places.
template <typename T>
void keep(const Attention &call, const void *from, const Strides &strides, void *states, int64_t token) {
    const int64_t position = call.slots[token] * call.capacity + call.positions[token];
    for (int64_t head = 0; head < call.key_heads; head++)
        std::memcpy(static_cast<T *>(states) + (position * call.key_heads + head) * call.dim,
                    static_cast<const T *>(from) + token * strides.token + head * strides.head, call.dim * sizeof(T));
}

template <typename T, int VECTORS>
void attend_all(const Attention &call) {
    const int64_t parts = call.tokens < 4 * call.threads ? call.key_heads : 1, items = call.tokens * parts;
    std::atomic<int64_t> taken{0};
#pragma omp parallel num_threads(call.threads)
    {
#pragma omp for schedule(static)
        for (int64_t token = 0; token < call.tokens; token++) {
            keep<T>(call, call.key, call.of_key, call.keys, token);
            keep<T>(call, call.value, call.of_value, call.values, token);
        }
        for (int64_t item = taken++, next; item < items; item = next) {
            next = taken++;
            const Part part(call, item, parts), following(call, std::min(next, items - 1), parts);
            attend_part<T, VECTORS>(call, part, next < items ? &following : nullptr);
        }
    }
}

template <typename T>
int32_t attend(const Attention &call) {
    switch (call.dim) {
        case 16: attend_all<T, 1>(call); return 0;
        case 32: attend_all<T, 2>(call); return 0;
        case 48: attend_all<T, 3>(call); return 0;
        case 64: attend_all<T, 4>(call); return 0;
        case 80: attend_all<T, 5>(call); return 0;
        case 96: attend_all<T, 6>(call); return 0;
        case 128: attend_all<T, 8>(call); return 0;
        case 256: attend_all<T, 16>(call); return 0;
        default: return 1;
    }
}

}  // namespace

// Write the step's keys and values into the cache, then let every token attend to its slot up to itself, to the last
// `window` positions if that is not 0. 0, or 1 for a dim that there is no code for.
extern "C" int32_t attend_float32(const Attention *call) { return attend<float>(*call); }
extern "C" int32_t attend_bfloat16(const Attention *call) { return attend<BFloat16>(*call); }
