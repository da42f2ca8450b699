// What the kernels are called with. The Python side, worker/engine/arguments.py, has the same structs with the same
// names; structs.cpp tells it where each field lies. A tensor is where it begins.

#pragma once

#include "vectors.h"

struct Strides {
    int64_t token, head;  // in elements; the last dimension is contiguous
};

struct Attention {
    const void *query, *key, *value;  // [tokens, heads, dim] and [tokens, key_heads, dim], by their strides
    void *out;                        // [tokens, heads, dim], contiguous
    void *keys, *values;              // [slots, capacity, key_heads, dim]
    const int32_t *slots, *positions;  // [tokens]
    int64_t tokens, heads, key_heads, capacity, dim, window;
    Strides of_query, of_key, of_value;
    float scale, softcap;  // softcap 0 is none
    int32_t threads;
};

struct Linear {
    const BFloat16 *x, *weight, *bias;  // [rows, inputs], packed, [outs] or null
    BFloat16 *out;                      // [rows, outs]
    int64_t rows, inputs, outs;
    int32_t post, threads;
};

struct Norm {
    const void *one, *other, *weight, *bias;  // [rows, width] twice, [width] twice; other and bias may be null
    void *sum, *normed;                       // [rows, width]
    int64_t rows, width;
    float epsilon;
    int32_t threads;
};

struct Rotation {
    const void *x, *cosine, *sine;  // [tokens, heads, dim] by its strides, [tokens, dim] twice
    void *out;                      // [tokens, heads, dim]
    int64_t tokens, heads, dim;
    Strides of_x;
    int32_t threads;
};

struct Product {
    const void *one, *other;  // [count]
    void *out;
    int64_t count;
    int32_t threads;
};

struct Lookup {
    const char *table;   // [known, width], or a packed weight
    const int64_t *ids;  // [rows]
    char *out;           // [rows, width]
    int64_t rows, known, width;
    int32_t size, threads;  // bytes of a number
};

struct DrawRow {
    const int32_t *tokens;  // read so far; null where neither penalty nor n-gram asks for them
    int64_t count;
    uint64_t seed, position;
    float temperature, top_p, penalty;
    int32_t top_k, ngram, wants_logprob;
};

struct Step {
    int32_t (*kernel)(const void *);
    const void *call;
};
