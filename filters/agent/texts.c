/* Reading events. texts.h has the picture. */
#include "agent/texts.h"

#include "observe/json.h"

static const struct {
    const char *protocol;
    ep_texts_reader *read;
} readers[] = {
    {"openai", ep_texts_openai},
    {"anthropic", ep_texts_anthropic},
    {"mcp", ep_texts_mcp},
    {"a2a", ep_texts_a2a},
};

const char *ep_text_kind_name(enum ep_text_kind k)
{
    static const char *const names[] = {"text", "arguments", "reasoning"};

    return names[k];
}

/* --- JSON, as far as needed: whoever reads it after us checks the rest --- */

struct ep_str ep_texts_trim(struct ep_str s)
{
    while (s.n && (unsigned char)*s.p <= ' ')
        s = ep_str_n(s.p + 1, s.n - 1);
    return s;
}

/* Takes one value off the front. False: there is none, or it has no end. */
static bool take(struct ep_str *rest, struct ep_str *value)
{
    struct ep_str s = ep_texts_trim(*rest);
    const char *p = s.p, *end = s.p + s.n;
    unsigned depth = 0;

    while (p && p < end) {
        if (*p == '"') {
            p = ep_json_string_end(p, end);
        } else if (*p == '{' || *p == '[') {
            depth++;
            p++;
        } else if (depth && (*p == '}' || *p == ']')) {
            depth--;
            p++;
        } else if (depth) {
            p++;
            continue;
        } else {
            while (p < end && !memchr(",}] \t\r\n", *p, 7))
                p++;
        }
        if (!depth)
            break;
    }
    if (!p || p == s.p || depth)
        return false;
    *value = ep_str_n(s.p, (size_t)(p - s.p));
    *rest = ep_str_n(p, (size_t)(end - p));
    return true;
}

static bool take_byte(struct ep_str *rest, char c)
{
    struct ep_str s = ep_texts_trim(*rest);

    if (!s.n || *s.p != c)
        return false;
    *rest = ep_str_n(s.p + 1, s.n - 1);
    return true;
}

static void member(struct ep_event_texts *t, struct ep_str key, struct ep_str value, struct ep_texts_member *m, size_t n)
{
    if (memchr(key.p, '\\', key.n)) {
        t->unsure = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (!ep_str_eq(m[i].key, key))
            continue;
        t->unsure |= m[i].value.n > 0;
        m[i].value = value;
    }
}

void ep_texts_members(struct ep_event_texts *t, struct ep_str object, struct ep_texts_member *m, size_t n)
{
    struct ep_str key, value;

    for (size_t i = 0; i < n; i++)
        m[i].value = (struct ep_str){NULL, 0};
    if (!take_byte(&object, '{'))
        return;
    if (take_byte(&object, '}')) {
        t->unsure |= ep_texts_trim(object).n > 0;
        return;
    }
    do {
        if (!take(&object, &key) || key.p[0] != '"' || !take_byte(&object, ':') || !take(&object, &value)) {
            t->unsure = true;
            return;
        }
        member(t, ep_str_n(key.p + 1, key.n - 2), value, m, n);
    } while (take_byte(&object, ','));
    t->unsure |= !take_byte(&object, '}') || ep_texts_trim(object).n > 0;
}

bool ep_texts_element(struct ep_event_texts *t, struct ep_str *rest, struct ep_str *value)
{
    if (!take_byte(rest, '[') && !take_byte(rest, ','))
        return false;
    if (take(rest, value))
        return true;
    t->unsure |= !take_byte(rest, ']');
    return false;
}

uint64_t ep_texts_number(struct ep_str value)
{
    uint64_t n;

    return ep_str_u64(value, &n) ? n : 0;
}

struct ep_str ep_texts_string(struct ep_str value)
{
    return value.n >= 2 && value.p[0] == '"' ? ep_str_n(value.p + 1, value.n - 2) : (struct ep_str){NULL, 0};
}

/* --- what was found --- */

uint64_t ep_texts_channel(struct ep_str what, uint64_t a, uint64_t b, uint64_t c)
{
    const uint64_t parts[] = {ep_hash(what.p, what.n), a, b, c};

    return ep_hash(parts, sizeof parts) | 1; /* never 0 */
}

struct ep_event_text *ep_texts_add(struct ep_event_texts *t, struct ep_str data, struct ep_str raw, enum ep_text_kind kind,
                                   uint64_t channel, uint64_t group, uint64_t index)
{
    struct ep_event_text *x;

    if (raw.n && raw.p[0] != '"')
        return NULL;
    if (t->n == EP_EVENT_TEXTS_MAX) {
        t->unsure = true;
        return NULL;
    }
    x = &t->v[t->n++];
    x->kind = kind;
    x->raw = raw;
    x->plain = x->last = false;
    x->channel = channel;
    x->group = group;
    x->index = index;
    x->tool = (struct ep_str){NULL, 0};
    x->head = x->tail = (struct ep_str){NULL, 0};
    x->open[0] = '\0';
    x->close = "";
    if (raw.n) {
        x->head = ep_str_n(data.p, (size_t)(raw.p - data.p));
        x->tail = ep_str_n(raw.p + raw.n, (size_t)(data.p + data.n - (raw.p + raw.n)));
    }
    return x;
}

void ep_texts_end(struct ep_event_texts *t, uint64_t group)
{
    if (t->n_ends == EP_EVENT_ENDS_MAX)
        t->ends_all = true;
    else
        t->ends[t->n_ends++] = group;
}

void ep_event_texts(struct ep_str protocol, struct ep_str method, const struct ep_event *e, struct ep_event_texts *out)
{
    struct ep_str data = ep_texts_trim(e->data);
    struct ep_event_text *x;

    out->n = out->n_ends = 0;
    out->ends_all = out->unsure = false;
    if (ep_str_eq(data, EP_STR("[DONE]"))) {
        out->ends_all = true;
        return;
    }
    if (!data.n)
        return;
    if (data.p[0] == '{') {
        for (size_t i = 0; i < EP_COUNT(readers); i++)
            if (ep_str_eq(protocol, ep_str(readers[i].protocol)))
                readers[i].read(out, method, e);
    } else if (data.p[0] != '[' && data.p[0] != '"') {
        x = ep_texts_add(out, e->data, (struct ep_str){NULL, 0}, EP_TEXT_CONTENT, 0, 0, 0);
        x->raw = e->data;
        x->plain = true;
    }
}
