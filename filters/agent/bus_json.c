/* The agent bus's message in JSON: where it names a constitution. Source: ACGS-2's AgentMessage. */
#include "agent/bus.h"

#include "observe/json.h"

#define KEY_MAX 64u /* longer keys are none of ours */

struct json_walk {
    ep_bus_hash *each;
    void *user;
    struct ep_str *impact; /* NULL: not wanted */
    unsigned told;
};

static bool key_is(struct ep_str key, struct ep_str name)
{
    char plain[KEY_MAX];

    if (!key.n || !memchr(key.p, '\\', key.n))
        return ep_str_caseeq(key, name);
    /* With its quotes again, which stand around it. */
    return ep_str_caseeq(ep_str_n(plain, ep_json_plain(ep_str_n(key.p - 1, key.n + 2), plain, sizeof plain)), name);
}

static enum ep_bus_result tell(struct json_walk *w, struct ep_str value)
{
    char plain[256];

    if (ep_str_eq(value, EP_STR("null")))
        return EP_BUS_OK;
    w->told++;
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

static enum ep_bus_result object(struct json_walk *w, struct ep_str text, bool inner)
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

enum ep_bus_result ep_bus_json(struct ep_str text, ep_bus_hash *each, void *user, struct ep_str *impact, bool *unnamed)
{
    struct json_walk w = {each, user, impact, 0};
    struct ep_str rest = without_space(text), key, value;
    enum ep_bus_result r = EP_BUS_OK;
    unsigned told;

    *unnamed = false;
    if (rest.n && rest.p[0] == '{')
        return object(&w, rest, false);
    if (!rest.n || rest.p[0] != '[')
        return EP_BUS_MALFORMED;
    if (is_empty(rest))
        return EP_BUS_OK;
    w.impact = NULL;
    while (r == EP_BUS_OK && ep_json_next(&rest, &key, &value)) {
        told = w.told;
        if (value.p[0] == '{')
            r = object(&w, value, false);
        *unnamed |= w.told == told;
    }
    return r != EP_BUS_OK || ended(rest) ? r : EP_BUS_MALFORMED;
}
