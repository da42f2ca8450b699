// Rotary position embedding, the halves of a head against each other.

#include <algorithm>

#include "vectors.h"

struct Rotation {
    const BFloat16 *x, *cosine, *sine;  // [tokens, heads, dim] by its strides, [tokens, dim] twice
    BFloat16 *out;                      // [tokens, heads, dim]
    int64_t tokens, heads, dim;
    int64_t token_stride, head_stride;  // of x, in elements
    int32_t threads;
};

namespace {

// `sign` * from the other half. Each product is rounded, as models round them.
inline void half(const BFloat16 *own, const BFloat16 *other, const BFloat16 *cosine, const BFloat16 *sine, float sign,
                 BFloat16 *to, int64_t width) {
    for (int64_t at = 0; at < width; at += LANES) {
        const int count = static_cast<int>(std::min<int64_t>(LANES, width - at));
        const Vector straight = rounded(load_some(own + at, count) * load_some(cosine + at, count));
        const Vector crossed = rounded(sign * load_some(other + at, count) * load_some(sine + at, count));
        store_some(to + at, straight + crossed, count);
    }
}

}  // namespace

extern "C" int32_t rotate_bfloat16(const Rotation *of) {
    const Rotation &call = *of;
    const int64_t width = call.dim / 2;
#pragma omp parallel for schedule(static) num_threads(call.threads)
    for (int64_t token = 0; token < call.tokens; token++) {
        const BFloat16 *cosine = call.cosine + token * call.dim, *sine = call.sine + token * call.dim;
        for (int64_t head = 0; head < call.heads; head++) {
            const BFloat16 *x = call.x + token * call.token_stride + head * call.head_stride;
            BFloat16 *out = call.out + (token * call.heads + head) * call.dim;
            half(x, x + width, cosine, sine, -1.0f, out, width);
            half(x + width, x, cosine + width, sine + width, 1.0f, out + width, width);
        }
    }
    return 0;
}
