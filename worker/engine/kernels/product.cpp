// Two tensors, number by number.

#include <algorithm>

#include "vectors.h"

struct Product {
    const BFloat16 *one, *other;
    BFloat16 *out;
    int64_t count;
    int32_t threads;
};

extern "C" int32_t product_bfloat16(const Product *of) {
    const Product &call = *of;
#pragma omp parallel for schedule(static) num_threads(call.threads)
    for (int64_t at = 0; at < call.count; at += LANES) {
        const int count = static_cast<int>(std::min<int64_t>(LANES, call.count - at));
        store_some(call.out + at, load_some(call.one + at, count) * load_some(call.other + at, count), count);
    }
    return 0;
}
