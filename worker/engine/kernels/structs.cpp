// Where the fields of the kernels' arguments lie, for the Python side to compare with its own.

#include <cstddef>

#include "arguments.h"

struct Field {
    const char *of, *name;  // no name: the whole struct
    int64_t offset, size;   // bytes
};

#define TEXT(x) #x
#define NAME(x) TEXT(x)
#define FIELD(name) {NAME(OF), #name, offsetof(OF, name), sizeof(OF::name)}
#define WHOLE {NAME(OF), "", 0, sizeof(OF)}

static const Field FIELDS[] = {
#define OF Strides
    WHOLE, FIELD(token), FIELD(head),
#undef OF
#define OF Attention
    WHOLE, FIELD(query), FIELD(key), FIELD(value), FIELD(out), FIELD(keys), FIELD(values), FIELD(slots),
    FIELD(positions), FIELD(tokens), FIELD(heads), FIELD(key_heads), FIELD(capacity), FIELD(dim), FIELD(window),
    FIELD(of_query), FIELD(of_key), FIELD(of_value), FIELD(scale), FIELD(softcap), FIELD(threads),
#undef OF
#define OF Linear
    WHOLE, FIELD(x), FIELD(weight), FIELD(bias), FIELD(out), FIELD(rows), FIELD(inputs), FIELD(outs), FIELD(post),
    FIELD(threads),
#undef OF
#define OF Norm
    WHOLE, FIELD(one), FIELD(other), FIELD(weight), FIELD(bias), FIELD(sum), FIELD(normed), FIELD(rows), FIELD(width),
    FIELD(epsilon), FIELD(threads),
#undef OF
#define OF Rotation
    WHOLE, FIELD(x), FIELD(cosine), FIELD(sine), FIELD(out), FIELD(tokens), FIELD(heads), FIELD(dim), FIELD(of_x),
    FIELD(threads),
#undef OF
#define OF Product
    WHOLE, FIELD(one), FIELD(other), FIELD(out), FIELD(count), FIELD(threads),
#undef OF
#define OF Lookup
    WHOLE, FIELD(table), FIELD(ids), FIELD(out), FIELD(rows), FIELD(known), FIELD(width), FIELD(size), FIELD(threads),
#undef OF
#define OF DrawRow
    WHOLE, FIELD(tokens), FIELD(count), FIELD(seed), FIELD(position), FIELD(temperature), FIELD(top_p), FIELD(penalty),
    FIELD(top_k), FIELD(ngram), FIELD(wants_logprob),
#undef OF
#define OF Step
    WHOLE, FIELD(kernel), FIELD(call),
#undef OF
};

extern "C" const Field *argument_fields(int64_t *count) {
    *count = sizeof FIELDS / sizeof *FIELDS;
    return FIELDS;
}
