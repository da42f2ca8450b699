// Sixteen floats at a time, in GNU's vector types; bfloat16 in and out.

#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

constexpr int LANES = 16;
using Vector = float __attribute__((vector_size(LANES * sizeof(float))));
using Words = uint32_t __attribute__((vector_size(LANES * sizeof(uint32_t))));
using Integers = int32_t __attribute__((vector_size(LANES * sizeof(int32_t))));
using Halves = uint16_t __attribute__((vector_size(LANES * sizeof(uint16_t))));

constexpr Integers ORDER = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

struct BFloat16 {
    uint16_t bits;
};

// What a kernel returns.
enum Outcome : int32_t { DONE, NO_SUCH_ROW, NO_CODE };

inline Vector all(float value) { return Vector{} + value; }

inline Vector load(const float *from) {
    Vector out;
    std::memcpy(&out, from, sizeof out);
    return out;
}

inline Vector load(const BFloat16 *from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    return reinterpret_cast<Vector>(__builtin_convertvector(halves, Words) << 16);
}

// The first `count` lanes; the rest is 0.
template <typename T>
inline Vector load_some(const T *from, int count) {
    if (count == LANES) return load(from);
    T lanes[LANES] = {};
    std::memcpy(lanes, from, count * sizeof(T));
    return load(lanes);
}

inline void store(float *to, Vector value) { std::memcpy(to, &value, sizeof value); }

// Rounded to the nearest, ties to even; a NaN stays one.
inline void store(BFloat16 *to, Vector value) {
#ifdef __AVX512BF16__
    const __m256bh halves = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(value));
    std::memcpy(to, &halves, sizeof halves);
#else
    const Words bits = reinterpret_cast<Words>(value);
    const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const Words quiet = (bits >> 16) | 0x40u;
    const Integers is_nan = value != value;
    const Halves halves = __builtin_convertvector(is_nan ? quiet : rounded, Halves);
    std::memcpy(to, &halves, sizeof halves);
#endif
}

// What is left of a number that is stored as a T.
template <typename T>
inline Vector rounded(Vector value) {
    T lanes[LANES];
    store(lanes, value);
    return load(lanes);
}

template <typename T>
inline void store_some(T *to, Vector value, int count) {
    if (count == LANES) return store(to, value);
    T lanes[LANES];
    store(lanes, value);
    std::memcpy(to, lanes, count * sizeof(T));
}

using Eight = float __attribute__((vector_size(32)));
using Four = float __attribute__((vector_size(16)));

inline float sum(Vector value) {
    Eight halves[2];
    Four quarters[2];
    std::memcpy(halves, &value, sizeof value);
    const Eight half = halves[0] + halves[1];
    std::memcpy(quarters, &half, sizeof half);
    const Four quarter = quarters[0] + quarters[1];
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

inline bool any(Integers mask) {
    int found = 0;
    for (int i = 0; i < LANES; i++) found |= mask[i];
    return found != 0;
}

inline float maximum(Vector value) {
    Eight halves[2];
    Four quarters[2];
    std::memcpy(halves, &value, sizeof value);
    const Eight half = halves[0] > halves[1] ? halves[0] : halves[1];
    std::memcpy(quarters, &half, sizeof half);
    const Four quarter = quarters[0] > quarters[1] ? quarters[0] : quarters[1];
    const float one = quarter[0] > quarter[2] ? quarter[0] : quarter[2];
    const float other = quarter[1] > quarter[3] ? quarter[1] : quarter[3];
    return one > other ? one : other;
}

#ifdef __AVX512F__
// e^x: 2^n by the processor's scaling and 2^f by a polynomial at Chebyshev points, error about 3e-7 near 0 and 5e-6 at
// -87 and 88. Farther below it becomes 0, above it stays what it is at 88; a NaN stays one.
inline Vector exponential(Vector x) {
    // Where x is no number the second operand is returned, which is x.
    const __m512 above = _mm512_max_ps(_mm512_set1_ps(-150.0f), reinterpret_cast<__m512>(x));
    const __m512 power = _mm512_min_ps(_mm512_set1_ps(88.0f), above) * _mm512_set1_ps(1.44269504088896341f);
    const __m512 whole = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Vector f = reinterpret_cast<Vector>(power - whole);
    Vector p = all(1.338130254e-03f);
    p = p * f + 9.666368515e-03f;
    p = p * f + 5.550381014e-02f;
    p = p * f + 2.402234904e-01f;
    p = p * f + 6.931471806e-01f;
    p = p * f + 1.0f;
    return reinterpret_cast<Vector>(_mm512_scalef_ps(reinterpret_cast<__m512>(p), whole));
}
#else
// e^x: 2^n by the exponent's bits and e^f by a polynomial (Cephes' expf, error about 2e-7). 0 below -87, the largest
// power of two above 88; a NaN stays one.
inline Vector exponential(Vector x) {
    const Integers gone = x < -87.0f, huge = x > 88.0f;
    const Vector bounded = gone ? all(-87.0f) : huge ? all(88.0f) : x;
    const Vector shifted = bounded * 1.44269504088896341f + 128.5f;  // positive, so that the cut below rounds down
    const Integers n = __builtin_convertvector(shifted, Integers) - 128;
    const Vector whole = __builtin_convertvector(n, Vector);
    const Vector f = bounded - whole * 0.693359375f + whole * 2.12194440e-4f;
    Vector p = all(1.9875691500e-4f);
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    p *= reinterpret_cast<Vector>((n + 127) << 23);
    return gone ? Vector{} : x != x ? x : p;
}
#endif

#ifdef __AVX512BF16__
// 32 bfloat16 side by side, as the processor multiplies them.
inline __m512bh pairs(const void *from) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(from)); }
#endif
