// Two tensors, number by number.

#include <algorithm>

#include "arguments.h"

namespace {

template <typename T>
int32_t product(const Product &call) {
    const T *one = static_cast<const T *>(call.one), *other = static_cast<const T *>(call.other);
    T *out = static_cast<T *>(call.out);
#pragma omp parallel for schedule(static) num_threads(call.threads)
    for (int64_t at = 0; at < call.count; at += LANES) {
        const int count = static_cast<int>(std::min<int64_t>(LANES, call.count - at));
        store_some(out + at, load_some(one + at, count) * load_some(other + at, count), count);
    }
    return DONE;
}

}  // namespace

extern "C" int32_t product_float32(const Product *call) { return product<float>(*call); }
extern "C" int32_t product_bfloat16(const Product *call) { return product<BFloat16>(*call); }
