// Rows of a table by their numbers.

#include <atomic>

#include "arguments.h"
#include "panels.h"

namespace {

template <typename Copy>
int32_t look_up(const Lookup &call, Copy copy) {
    std::atomic<int32_t> outcome{DONE};
#pragma omp parallel for schedule(static) num_threads(call.threads)
    for (int64_t row = 0; row < call.rows; row++) {
        const int64_t id = call.ids[row];
        if (id < 0 || id >= call.known)
            outcome = NO_SUCH_ROW;
        else
            copy(id, call.out + row * call.width * call.size);
    }
    return outcome;
}

}  // namespace

extern "C" int32_t lookup(const Lookup *of) {
    const int64_t bytes = of->width * of->size;
    return look_up(*of, [=](int64_t id, char *to) { std::memcpy(to, of->table + id * bytes, bytes); });
}

// The same for a packed weight, whose outputs are the rows.
extern "C" int32_t lookup_packed(const Lookup *of) {
    return look_up(*of, [=](int64_t id, char *to) {
        const char *from = of->table + (id / WIDTH * WIDTH * of->width + id % WIDTH * 2) * of->size;
        for (int64_t k = 0; k < of->width; k += 2) std::memcpy(to + k * of->size, from + k * WIDTH * of->size, 2 * of->size);
    });
}
