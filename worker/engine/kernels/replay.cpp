// Kernel calls that are known beforehand, one after the other.

#include "arguments.h"

// DONE, or what the first kernel to fail returned.
extern "C" int32_t replay(const Step *steps, int64_t count) {
    for (int64_t at = 0; at < count; at++)
        if (const int32_t failed = steps[at].kernel(steps[at].call)) return failed;
    return 0;
}
