// A residual and the norm of the sum, in one reading; or the norm alone.

#include <cmath>

#include "vectors.h"

struct Norm {
    const BFloat16 *one, *other, *weight, *bias;  // [rows, width] twice, [width] twice; other and bias may be null
    BFloat16 *sum, *normed;                       // [rows, width]
    int64_t rows, width;
    float epsilon;
    int32_t threads;
};

// `width` is a multiple of the lanes. As torch does, the norm is that of the rounded sum, computed in float; without a
// bias it is the root-mean-square norm, whose models round before they weigh.
extern "C" int32_t norm_bfloat16(const Norm *of) {
    const Norm &call = *of;
#pragma omp parallel for schedule(static) num_threads(call.threads)
    for (int64_t row = 0; row < call.rows; row++) {
        const int64_t start = row * call.width;
        const BFloat16 *x = call.one + start;
        BFloat16 *normed = call.normed + start;
        if (call.other) {
            for (int64_t at = 0; at < call.width; at += LANES)
                store(call.sum + start + at, load(x + at) + load(call.other + start + at));
            x = call.sum + start;
        }
        float mean = 0;
        if (call.bias) {
            Vector total = {};
            for (int64_t at = 0; at < call.width; at += LANES) total += load(x + at);
            mean = sum(total) / static_cast<float>(call.width);
        }
        Vector squares = {};
        for (int64_t at = 0; at < call.width; at += LANES) {
            const Vector distance = load(x + at) - mean;
            squares += distance * distance;
        }
        const float scale = 1.0f / std::sqrt(sum(squares) / static_cast<float>(call.width) + call.epsilon);
        if (call.bias)
            for (int64_t at = 0; at < call.width; at += LANES)
                store(normed + at, (load(x + at) - mean) * scale * load(call.weight + at) + load(call.bias + at));
        else
            for (int64_t at = 0; at < call.width; at += LANES)
                store(normed + at, rounded(load(x + at) * scale) * load(call.weight + at));
    }
    return 0;
}
