// A residual and the layer norm of the sum, in one reading.

#include <cmath>

#include "vectors.h"

struct AddNorm {
    const BFloat16 *one, *other, *weight, *bias;  // [rows, width] twice, [width] twice
    BFloat16 *sum, *normed;                       // [rows, width]
    int64_t rows, width;
    float epsilon;
    int32_t threads;
};

// `width` is a multiple of the lanes. As torch does, the norm is that of the rounded sum, computed in float.
extern "C" int32_t add_norm_bfloat16(const AddNorm *of) {
    const AddNorm &call = *of;
#pragma omp parallel for schedule(static) num_threads(call.threads)
    for (int64_t row = 0; row < call.rows; row++) {
        const int64_t start = row * call.width;
        BFloat16 *added = call.sum + start;
        Vector total = {};
        for (int64_t at = 0; at < call.width; at += LANES) {
            store(added + at, load(call.one + start + at) + load(call.other + start + at));
            total += load(added + at);
        }
        const float mean = sum(total) / static_cast<float>(call.width);
        Vector squares = {};
        for (int64_t at = 0; at < call.width; at += LANES) {
            const Vector distance = load(added + at) - mean;
            squares += distance * distance;
        }
        const float scale = 1.0f / std::sqrt(sum(squares) / static_cast<float>(call.width) + call.epsilon);
        for (int64_t at = 0; at < call.width; at += LANES)
            store(call.normed + start + at,
                  (load(added + at) - mean) * scale * load(call.weight + at) + load(call.bias + at));
    }
    return 0;
}
