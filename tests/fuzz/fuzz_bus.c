/* link: ep_filters */
/* The agent bus's message, as protobuf and as JSON: nothing is read past the end, each hash told lies in the message, and
 * none that stands in a well-formed JSON object at its top goes untold. */
#include <stdlib.h>

#include "agent/bus.h"

#define CHECK(x) ((x) ? (void)0 : abort())

struct seen {
    struct ep_str text;
    unsigned n;
};

static bool in_place(void *user, struct ep_str given)
{
    struct seen *s = user;

    CHECK(given.p >= s->text.p && given.p + given.n <= s->text.p + s->text.n);
    return ++s->n < 100;
}

static bool told(void *user, struct ep_str given)
{
    struct seen *s = user;
    unsigned sum = 0;

    for (size_t i = 0; i < given.n; i++)
        sum += (unsigned char)given.p[i];
    return ++s->n < 100 || sum == 0;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    char *exact = n ? malloc(n) : NULL;
    struct ep_str impact = {NULL, 0};
    struct seen s = {ep_str_n(exact, n), 0};

    if (!exact)
        return 0;
    memcpy(exact, data, n);
    (void)ep_bus_proto(s.text, in_place, &s);
    s.n = 0;
    if (ep_bus_may_be(s.text))
        (void)ep_bus_json(s.text, told, &s, &impact);
    CHECK(!impact.n || (impact.p >= s.text.p && impact.p + impact.n <= s.text.p + s.text.n));
    free(exact);
    return 0;
}
