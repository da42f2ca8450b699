// A residual and the norm of the sum, in one reading; or the norm alone.

#include <cmath>

#include "arguments.h"

namespace {

// `width` is a multiple of the lanes. As torch does, the norm is that of the rounded sum, computed in float; without a
// bias it is the root-mean-square norm, whose models round before they weigh.
template <typename T>
int32_t norm(const Norm &call) {
    const T *weight = static_cast<const T *>(call.weight), *bias = static_cast<const T *>(call.bias);
#pragma omp parallel for schedule(static) num_threads(call.threads)
    for (int64_t row = 0; row < call.rows; row++) {
        const int64_t start = row * call.width;
        const T *x = static_cast<const T *>(call.one) + start;
        T *normed = static_cast<T *>(call.normed) + start;
        if (call.other) {
            const T *other = static_cast<const T *>(call.other) + start;
            T *total = static_cast<T *>(call.sum) + start;
            for (int64_t at = 0; at < call.width; at += LANES) store(total + at, load(x + at) + load(other + at));
            x = total;
        }
        float mean = 0;
        if (bias) {
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
        if (bias)
            for (int64_t at = 0; at < call.width; at += LANES)
                store(normed + at, (load(x + at) - mean) * scale * load(weight + at) + load(bias + at));
        else
            for (int64_t at = 0; at < call.width; at += LANES)
                store(normed + at, rounded<T>(load(x + at) * scale) * load(weight + at));
    }
    return DONE;
}

}  // namespace

extern "C" int32_t norm_float32(const Norm *call) { return norm<float>(*call); }
extern "C" int32_t norm_bfloat16(const Norm *call) { return norm<BFloat16>(*call); }
