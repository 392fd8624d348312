/* The agent bus's message: where it names a constitution. Sources: ACGS-2's AgentMessage; protobuf's encoding
 * (protobuf.dev/programming-guides/encoding). */
#include "agent/bus_hash.h"

#include "observe/json.h"

#define KEY_MAX 64u /* longer keys are none of ours */

bool ep_bus_is_grpc(const struct ep_call *c)
{
    return ep_str_eq(c->protocol, EP_STR("grpc")) && ep_str_eq(c->service, EP_STR(EP_BUS_SERVICE));
}

/* --- JSON --- */

struct json_walk {
    ep_bus_hash *each;
    void *user;
    struct ep_str *impact; /* NULL: not wanted */
};

static bool key_is(struct ep_str key, struct ep_str name)
{
    char plain[KEY_MAX];

    if (!key.n || !memchr(key.p, '\\', key.n))
        return ep_str_caseeq(key, name);
    /* With its quotes again, which stand around it. */
    return ep_str_caseeq(ep_str_n(plain, ep_json_plain(ep_str_n(key.p - 1, key.n + 2), plain, sizeof plain)), name);
}

static enum ep_bus_result tell(const struct json_walk *w, struct ep_str value)
{
    char plain[256];

    if (ep_str_eq(value, EP_STR("null")))
        return EP_BUS_OK;
    if (value.p[0] != '"')
        return w->each(w->user, value) ? EP_BUS_OK : EP_BUS_STOPPED;
    return w->each(w->user, ep_str_n(plain, ep_json_plain(value, plain, sizeof plain))) ? EP_BUS_OK : EP_BUS_STOPPED;
}

/* What is left behind the last member must be the closing bracket: else the walk lost its way. */
static bool ended(struct ep_str rest)
{
    while (rest.n && (rest.p[0] == ' ' || rest.p[0] == '\t' || rest.p[0] == '\n' || rest.p[0] == '\r'))
        rest = ep_str_n(rest.p + 1, rest.n - 1);
    return rest.n && (rest.p[0] == '}' || rest.p[0] == ']');
}

static bool is_empty(struct ep_str text)
{
    return ended(ep_str_n(text.p + 1, text.n - 1));
}

static enum ep_bus_result object(const struct json_walk *w, struct ep_str text, bool inner)
{
    struct ep_str rest = text, key, value;
    enum ep_bus_result r = EP_BUS_OK;

    if (is_empty(text))
        return EP_BUS_OK;
    while (r == EP_BUS_OK && ep_json_next(&rest, &key, &value)) {
        if (key_is(key, EP_STR("constitutional_hash")))
            r = tell(w, value);
        else if (!inner && value.p[0] == '{' && key_is(key, EP_STR("routing")))
            r = object(w, value, true);
        else if (!inner && w->impact && key_is(key, EP_STR("impact_score")) && (value.p[0] == '0' || value.p[0] == '1'))
            *w->impact = value;
    }
    return r != EP_BUS_OK || ended(rest) ? r : EP_BUS_MALFORMED;
}

static struct ep_str without_space(struct ep_str text)
{
    if (ep_str_starts(text, EP_STR("\xef\xbb\xbf")))
        text = ep_str_n(text.p + 3, text.n - 3);
    while (text.n && (text.p[0] == ' ' || text.p[0] == '\t' || text.p[0] == '\n' || text.p[0] == '\r'))
        text = ep_str_n(text.p + 1, text.n - 1);
    return text;
}

bool ep_bus_may_be(struct ep_str text)
{
    text = without_space(text);
    return text.n && (text.p[0] == '{' || text.p[0] == '[');
}

enum ep_bus_result ep_bus_json(struct ep_str text, ep_bus_hash *each, void *user, struct ep_str *impact)
{
    struct json_walk w = {each, user, impact};
    struct ep_str rest = without_space(text), key, value;
    enum ep_bus_result r = EP_BUS_OK;

    if (rest.n && rest.p[0] == '{')
        return object(&w, rest, false);
    if (!rest.n || rest.p[0] != '[')
        return EP_BUS_MALFORMED;
    if (is_empty(rest))
        return EP_BUS_OK;
    w.impact = NULL;
    while (r == EP_BUS_OK && ep_json_next(&rest, &key, &value))
        if (value.p[0] == '{')
            r = object(&w, value, false);
    return r != EP_BUS_OK || ended(rest) ? r : EP_BUS_MALFORMED;
}

/* --- protobuf --- */

static bool varint(struct ep_str *rest, uint64_t *out)
{
    *out = 0;
    for (unsigned i = 0; i < 10 && i < rest->n; i++) {
        uint8_t byte = (uint8_t)rest->p[i];
        *out |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte & 0x80)
            continue;
        *rest = ep_str_n(rest->p + i + 1, rest->n - i - 1);
        return true;
    }
    return false;
}

static bool take(struct ep_str *rest, uint64_t n, struct ep_str *out)
{
    if (n > rest->n)
        return false;
    *out = ep_str_n(rest->p, (size_t)n);
    *rest = ep_str_n(rest->p + n, rest->n - (size_t)n);
    return true;
}

/* The next field. Groups have been gone since proto3 and nobody sends them: malformed. */
static bool field(struct ep_str *rest, uint64_t *number, unsigned *wire, struct ep_str *value)
{
    uint64_t tag, n;

    if (!varint(rest, &tag) || tag >> 3 == 0 || tag >> 32)
        return false;
    *number = tag >> 3;
    *wire = (unsigned)(tag & 7);
    *value = (struct ep_str){NULL, 0};
    switch (*wire) {
    case 0:
        return varint(rest, &n);
    case 1:
        return take(rest, 8, value);
    case 2:
        return varint(rest, &n) && take(rest, n, value);
    case 5:
        return take(rest, 4, value);
    default:
        return false;
    }
}

static enum ep_bus_result message(struct ep_str text, uint64_t hash, uint64_t routing, ep_bus_hash *each, void *user)
{
    enum ep_bus_result r = EP_BUS_OK;
    struct ep_str value;
    uint64_t number;
    unsigned wire;

    while (r == EP_BUS_OK && text.n) {
        if (!field(&text, &number, &wire, &value))
            return EP_BUS_MALFORMED;
        if (number == hash && wire == 2 && value.n) /* an empty string is what absence looks like in proto3 */
            r = each(user, value) ? EP_BUS_OK : EP_BUS_STOPPED;
        else if (routing && number == routing && wire == 2)
            r = message(value, EP_BUS_ROUTING_CONSTITUTIONAL_HASH, 0, each, user);
        else if (number == hash && wire != 2)
            return EP_BUS_MALFORMED;
    }
    return r;
}

enum ep_bus_result ep_bus_proto(struct ep_str text, ep_bus_hash *each, void *user)
{
    return message(text, EP_BUS_MESSAGE_CONSTITUTIONAL_HASH, EP_BUS_MESSAGE_ROUTING, each, user);
}
