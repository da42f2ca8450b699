// y = post(x W' + b) in bfloat16, for processors that multiply it themselves.
//
// Eight rows of x against one panel of the weight fill the registers. While a panel is used, the next one is fetched:
// with few rows the time is that of reading the weight from memory once, with many that of multiplying. A row's sum
// does not depend on other rows.

#include "arguments.h"
#include "panels.h"

constexpr int ROWS = 8;

#ifdef __AVX512BF16__

namespace {

constexpr int LINE = 64;     // bytes
constexpr int AHEAD = 16384;  // bytes that a stream is fetched ahead, where it is not the next panel that is fetched
constexpr int FEWEST = 3, MOST = 6;  // blocks of rows that share the fetching of the next panel
constexpr int STREAMED = 2;     // rows up to which the processor sees by itself what comes next

enum Post { NONE, RELU, GELU_TANH, GELU, SILU };

// 1 / x for the sums of exponentials below: an estimate and one step of Newton's, four times as fast as a division.
inline Vector reciprocal(Vector x) {
    const Vector estimate = reinterpret_cast<Vector>(_mm512_rcp14_ps(reinterpret_cast<__m512>(x)));
    return estimate * (2.0f - x * estimate);
}

inline Vector sigmoid(Vector x) { return reciprocal(1.0f + exponential(-x)); }

// Abramowitz and Stegun 7.1.26, error below 1.5e-7.
inline Vector error_function(Vector x) {
    const Integers negative = x < 0.0f;
    const Vector distance = negative ? -x : x, size = distance > 9.0f ? all(9.0f) : distance;  // from 4 on it is 1
    const Vector t = reciprocal(1.0f + 0.3275911f * size);
    Vector p = all(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const Vector found = 1.0f - p * t * exponential(-size * size);
    return negative ? -found : found;
}

inline Vector apply(int post, Vector x) {
    switch (post) {
        case RELU: return x < 0.0f ? Vector{} : x;  // a NaN stays one
        case GELU_TANH: return x * sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));
        case GELU: return 0.5f * x * (1.0f + error_function(x * 0.70710678118654752f));
        case SILU: return x * sigmoid(x);
        default: return x;
    }
}

// Two inputs of a row, beside every pair of the weight.
inline __m512bh spread(const BFloat16 *from) {
    int32_t both;
    std::memcpy(&both, from, sizeof both);
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(both));
}

// `fetched` lines from `fetch` on come with each pair of inputs.
template <int N, int FETCHED>
void tile(const Linear &call, int64_t row, int64_t panel, const char *fetch) {
    __m512 sums[N][VECTORS];
    for (int r = 0; r < N; r++)
        for (int v = 0; v < VECTORS; v++) sums[r][v] = _mm512_setzero_ps();
    const BFloat16 *weight = call.weight + panel * call.inputs * WIDTH, *x = call.x + row * call.inputs;
    for (int64_t k = 0; k < call.inputs; k += 2, weight += 2 * WIDTH, fetch += FETCHED * LINE) {
        __m512bh columns[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) columns[v] = pairs(weight + 2 * v * LANES);
#pragma GCC unroll 8
        for (int line = 0; line < FETCHED; line++) __builtin_prefetch(fetch + line * LINE);
#pragma GCC unroll 8
        for (int r = 0; r < N; r++) {
            const __m512bh inputs = spread(x + r * call.inputs + k);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], inputs, columns[v]);
        }
    }
    for (int v = 0; v < VECTORS; v++) {
        const int64_t at = panel * WIDTH + v * LANES, left = call.outs - at;
        if (left <= 0) return;
        const int count = left < LANES ? static_cast<int>(left) : LANES;
        const Vector bias = call.bias ? load_some(call.bias + at, count) : Vector{};
        for (int r = 0; r < N; r++)
            store_some(call.out + (row + r) * call.outs + at,
                       apply(call.post, reinterpret_cast<Vector>(sums[r][v]) + bias), count);
    }
}

template <int FETCHED, int N = ROWS>
void rows_by_panel(const Linear &call, int64_t row, int64_t count, int64_t panel, const char *fetch) {
    if (count == N)
        tile<N, FETCHED>(call, row, panel, fetch);
    else if constexpr (N > 1)
        rows_by_panel<FETCHED, N - 1>(call, row, count, panel, fetch);
}

}  // namespace

extern "C" int multiplies_bfloat16() { return 1; }

extern "C" int32_t linear_bfloat16(const Linear *of) {
    const Linear &call = *of;
    const int64_t panels = (call.outs + WIDTH - 1) / WIDTH, blocks = (call.rows + ROWS - 1) / ROWS;
    const int64_t bytes = call.inputs * WIDTH * sizeof(BFloat16), fetching = blocks < MOST ? blocks : MOST;
#pragma omp parallel for schedule(static) num_threads(call.threads)
    for (int64_t panel = 0; panel < panels; panel++) {
        const char *start = reinterpret_cast<const char *>(call.weight) + panel * bytes;
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t row = call.rows * block / blocks, count = call.rows * (block + 1) / blocks - row;
            if (call.rows > STREAMED && blocks < FEWEST && block == 0)
                rows_by_panel<VECTORS>(call, row, count, panel, start + AHEAD);
            else if (blocks >= FEWEST && block < fetching)
                rows_by_panel<1>(call, row, count, panel, start + bytes + block * (bytes / fetching));
            else
                rows_by_panel<0>(call, row, count, panel, start);
        }
    }
    return DONE;
}

#else

extern "C" int multiplies_bfloat16() { return 0; }
extern "C" int32_t linear_bfloat16(const Linear *) { return NO_CODE; }

#endif

// Elements of a packed weight.
extern "C" int64_t packed_size(int64_t outs, int64_t in) { return (outs + WIDTH - 1) / WIDTH * WIDTH * in; }

// `weight` [outs, in], `in` even, to panels; outputs that fill up the last panel are 0.
extern "C" void pack_bfloat16(const BFloat16 *weight, BFloat16 *to, int64_t outs, int64_t in, int32_t threads) {
    const int64_t panels = (outs + WIDTH - 1) / WIDTH;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t panel = 0; panel < panels; panel++)
        for (int64_t k = 0; k < in; k += 2)
            for (int64_t o = 0; o < WIDTH; o++) {
                const int64_t out = panel * WIDTH + o;
                BFloat16 *pair = to + (panel * in + k) * WIDTH + 2 * o;
                for (int i = 0; i < 2; i++) pair[i] = out < outs ? weight[out * in + k + i] : BFloat16{0};
            }
}
