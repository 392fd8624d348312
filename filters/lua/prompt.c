/* The text that a language model is asked, out of the JSON of `messages`, `input` or `prompt`: all that is said, by whomever, in
 * its order, one piece a line. Strings under the names below, or in lists under them; pictures and other data are left out. */
#include "lua/policy.h"
#include "lua/redact.h"

#define DEPTH_MAX 64

struct text {
    char *p;
    size_t n;
};

static bool is_wanted(struct ep_str key)
{
    static const char *const keys[] = {"content", "text", "input", "output", "arguments", "system", "instructions"};

    for (size_t i = 0; i < EP_COUNT(keys); i++)
        if (ep_str_eq(key, ep_str(keys[i])))
            return true;
    return false;
}

static const char *string_end(const char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++)
        p += *p == '\\';
    return p < end ? p + 1 : NULL;
}

static bool is_key(const char *p, const char *end)
{
    while (p < end && (unsigned char)*p <= ' ')
        p++;
    return p < end && *p == ':';
}

static void add(struct text *t, struct ep_str s)
{
    if (t->n)
        t->p[t->n++] = '\n';
    memcpy(t->p + t->n, s.p, s.n);
    t->n += s.n;
}

struct ep_str ep_policy_prompt(struct ep_str json, struct ep_arena *arena)
{
    struct text t = {.p = ep_arena_alloc(arena, json.n + 1)}; /* a string loses its quotes, and gets one line break */
    struct ep_redact_job scratch = {.arena = arena};
    bool wanted[DEPTH_MAX + 1] = {true};
    unsigned depth = 0;
    const char *p = json.p, *end = json.p + json.n;

    while (p < end) {
        if (*p == '[' || *p == '{') {
            if (depth == DEPTH_MAX)
                break; /* the scan has let nothing deeper in */
            wanted[depth + 1] = *p == '[' && wanted[depth];
            depth++;
        } else if ((*p == ']' || *p == '}') && depth > 0) {
            depth--;
        } else if (*p == '"') {
            const char *e = string_end(p, end);
            if (!e)
                break;
            struct ep_str s = ep_str_n(p + 1, (size_t)(e - p) - 2);
            if (is_key(e, end))
                wanted[depth] = is_wanted(s);
            else if (wanted[depth] && ep_redact_unescape(&scratch, s, &s))
                add(&t, s);
            p = e;
            continue;
        }
        p++;
    }
    return ep_str_n(t.p, t.n);
}
