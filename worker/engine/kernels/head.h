// One head of attention: products of a query with keys, their weights, and weighted sums of values.

#pragma once

#include <type_traits>

#include "vectors.h"

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

// Where sums of weighted values grow, N at once over the same values: [N, dim] floats, in the order that `finish`
// undoes. Weights are [N, length].
template <typename T, int VECTORS, typename = void>
struct WeightedSum {
    template <int N>
    static void add(float *to, const T *values, int64_t row, const float *weights, int64_t length, int count,
                    const Ahead<T> &ahead) {
        Vector parts[N][VECTORS];
        for (int at = 0; at < N * VECTORS; at++) parts[at / VECTORS][at % VECTORS] = load(to + at * LANES);
        for (int i = 0; i < count; i++) {
            ahead.template fetch<VECTORS * LANES>(i);
            for (int v = 0; v < VECTORS; v++) {
                const Vector value = load(values + i * row + v * LANES);
#pragma GCC unroll 8
                for (int n = 0; n < N; n++) parts[n][v] += weights[n * length + i] * value;
            }
        }
        for (int at = 0; at < N * VECTORS; at++) store(to + at * LANES, parts[at / VECTORS][at % VECTORS]);
    }

    static void finish(const float *from, T *to) {
        for (int v = 0; v < VECTORS; v++) store(to + v * LANES, load(from + v * LANES));
    }
};

// Two neighbours are taken apart by a shift and a mask, which is half the work of widening each.
template <int VECTORS>
struct WeightedSum<BFloat16, VECTORS, std::enable_if_t<VECTORS % 2 == 0>> {
    template <int N>
    static void add(float *to, const BFloat16 *values, int64_t row, const float *weights, int64_t length, int count,
                    const Ahead<BFloat16> &ahead) {
        Vector parts[N][VECTORS];
        for (int at = 0; at < N * VECTORS; at++) parts[at / VECTORS][at % VECTORS] = load(to + at * LANES);
        for (int i = 0; i < count; i++) {
            ahead.template fetch<VECTORS * LANES>(i);
            for (int v = 0; v < VECTORS; v += 2) {
                Words both;
                std::memcpy(&both, values + i * row + v * LANES, sizeof both);
                const Vector low = reinterpret_cast<Vector>(both << 16);
                const Vector high = reinterpret_cast<Vector>(both & 0xffff0000u);
#pragma GCC unroll 8
                for (int n = 0; n < N; n++) {
                    parts[n][v] += weights[n * length + i] * low;
                    parts[n][v + 1] += weights[n * length + i] * high;
                }
            }
        }
        for (int at = 0; at < N * VECTORS; at++) store(to + at * LANES, parts[at / VECTORS][at % VECTORS]);
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

// cap * tanh(x / cap). Near 0 by a series, as a difference of numbers near 1 would lose digits there.
inline Vector capped(Vector x, float cap) {
    const Vector y = x / cap, square = y * y;
    Vector series = all(62.0f / 2835.0f);
    series = series * square - 17.0f / 315.0f;
    series = series * square + 2.0f / 15.0f;
    series = series * square - 1.0f / 3.0f;
    series = (series * square + 1.0f) * y;
    return cap * (square < 0.0625f ? series : 1.0f - 2.0f / (1.0f + exponential(2.0f * y)));
}

// Scores to weights that add up to 1.
inline void softmax(float *scores, int64_t blocks) {
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
