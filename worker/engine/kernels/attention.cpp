// Attention of a step's tokens over the slot cache.
//
// Keys and values lie as [slots, heads, capacity, dim]. A token costs one reading of the keys and values up to its own
// position: no padding, no mask. Sums are kept in float whatever the cache holds, and none depends on the other tokens
// of the step.

#include <algorithm>
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
    void *keys, *values;              // [slots, key_heads, capacity, dim]
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

template <int DIM, typename T>
inline void prefetch(const T *row) {  // once: keys and values are not used again in a step
    for (size_t byte = 0; byte < DIM * sizeof(T); byte += 64)
        __builtin_prefetch(reinterpret_cast<const char *>(row) + byte, 0, 0);
}

template <typename T>
inline T *history(void *states, const Attention &call, int64_t token, int64_t head) {
    return static_cast<T *>(states) + (call.slots[token] * call.key_heads + head) * call.capacity * call.dim;
}

template <typename T, int VECTORS>
void attend_one(const Attention &call, int64_t token, int64_t head) {
    constexpr int DIM = VECTORS * LANES;
    static thread_local std::vector<float> scores;
    const int64_t end = call.positions[token] + 1;
    const int64_t start = call.window && end > call.window ? end - call.window : 0;
    const int64_t count = end - start;
    if (static_cast<int64_t>(scores.size()) < count + LANES) scores.resize(2 * count + LANES);
    const T *keys = history<T>(call.keys, call, token, head) + start * DIM;
    const T *values = history<T>(call.values, call, token, head) + start * DIM;
    const int64_t shares = call.heads / call.key_heads;
    for (int64_t share = 0; share < shares; share++) {
        const int64_t query_head = head * shares + share;
        const QueryOf<T, VECTORS> query(static_cast<const T *>(call.query) + token * call.of_query.token +
                                        query_head * call.of_query.head);
        Vector most = all(LEAST);
        for (int64_t at = 0; at < count; at += LANES) {
            Vector products[LANES];
            for (int i = 0; i < LANES; i++) {
                const int64_t row = std::min(at + i, count - 1) * DIM;
                products[i] = query * (keys + row);
                prefetch<DIM>(values + row);
            }
            Vector found = sums(products) * call.scale;
            const Integers real = ORDER < static_cast<int32_t>(count - at);
            found = real ? found : all(LEAST);
            store(&scores[at], found);
            most = found > most ? found : most;
        }
        const Vector top = all(maximum(most));
        Vector total = {};
        for (int64_t at = 0; at < count; at += LANES) {
            const Vector weight = exponential(load(&scores[at]) - top);
            total += weight;
            store(&scores[at], weight);
        }
        Vector mixed[VECTORS] = {};
        for (int64_t at = 0; at < count; at++) {
            for (int v = 0; v < VECTORS; v++) mixed[v] += scores[at] * load(values + at * DIM + v * LANES);
            prefetch<DIM>(keys + (call.capacity + at) * DIM);  // of the next head, where there is one
        }
        const float whole = 1.0f / sum(total);
        T *to = static_cast<T *>(call.out) + (token * call.heads + query_head) * DIM;
        for (int v = 0; v < VECTORS; v++) store(to + v * LANES, mixed[v] * whole);
    }
}

template <typename T, int VECTORS>
void attend_all(const Attention &call) {
    constexpr int DIM = VECTORS * LANES;
#pragma omp parallel num_threads(call.threads)
    {
#pragma omp for schedule(static)
        for (int64_t token = 0; token < call.tokens; token++)
            for (int64_t head = 0; head < call.key_heads; head++) {
                const int64_t at = static_cast<int64_t>(call.positions[token]) * DIM;
                std::memcpy(history<T>(call.keys, call, token, head) + at,
                            static_cast<const T *>(call.key) + token * call.of_key.token + head * call.of_key.head,
                            DIM * sizeof(T));
                std::memcpy(history<T>(call.values, call, token, head) + at,
                            static_cast<const T *>(call.value) + token * call.of_value.token + head * call.of_value.head,
                            DIM * sizeof(T));
            }
#pragma omp for schedule(dynamic, 4)
        for (int64_t item = 0; item < call.tokens * call.key_heads; item++)
            attend_one<T, VECTORS>(call, item / call.key_heads, item % call.key_heads);
    }
}

template <typename T>
int attend(const Attention &call) {
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
extern "C" int attend_float32(const Attention *call) { return attend<float>(*call); }
extern "C" int attend_bfloat16(const Attention *call) { return attend<BFloat16>(*call); }
