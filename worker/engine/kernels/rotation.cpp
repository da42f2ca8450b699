// Rotary position embedding, the halves of a head against each other.

#include <algorithm>

#include "arguments.h"

namespace {

// `sign` * from the other half. Each product is rounded, as models round them.
template <typename T>
inline void half(const T *own, const T *other, const T *cosine, const T *sine, float sign, T *to, int64_t width) {
    for (int64_t at = 0; at < width; at += LANES) {
        const int count = static_cast<int>(std::min<int64_t>(LANES, width - at));
        const Vector straight = rounded<T>(load_some(own + at, count) * load_some(cosine + at, count));
        const Vector crossed = rounded<T>(sign * load_some(other + at, count) * load_some(sine + at, count));
        store_some(to + at, straight + crossed, count);
    }
}

template <typename T>
int32_t rotate(const Rotation &call) {
    const int64_t width = call.dim / 2;
#pragma omp parallel for schedule(static) num_threads(call.threads)
    for (int64_t token = 0; token < call.tokens; token++) {
        const T *cosine = static_cast<const T *>(call.cosine) + token * call.dim;
        const T *sine = static_cast<const T *>(call.sine) + token * call.dim;
        for (int64_t head = 0; head < call.heads; head++) {
            const T *x = static_cast<const T *>(call.x) + token * call.of_x.token + head * call.of_x.head;
            T *out = static_cast<T *>(call.out) + (token * call.heads + head) * call.dim;
            half(x, x + width, cosine, sine, -1.0f, out, width);
            half(x + width, x, cosine + width, sine + width, 1.0f, out + width, width);
        }
    }
    return DONE;
}

}  // namespace

extern "C" int32_t rotate_float32(const Rotation *call) { return rotate<float>(*call); }
extern "C" int32_t rotate_bfloat16(const Rotation *call) { return rotate<BFloat16>(*call); }
