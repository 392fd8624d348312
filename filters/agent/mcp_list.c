/* Taking entries out of MCP's lists: results of tools/list, prompts/list, resources/list and resources/templates/list.
 *
 * They are known by their shape, an array of that name in a result, since an answer may come on another stream than its
 * request (after Last-Event-ID). What goes on is the text that came, less what was cut out of it: cursors, order, white
 * space and what a later revision adds stay. The text was scanned before (agent/json.h), so it is JSON; what is looked
 * for here is whether a lenient reader could find another list in it than we do. */
#include "agent/mcp.h"

#include "agent/agent.h"
#include "observe/json.h"

#define NAME_MAX_BYTES 4096u /* a longer name is cut, and so is none that anybody's rule has */

/* A piece of the text with something in its place. */
struct cut {
    struct cut *next;
    const char *p;
    size_t n;
    struct ep_str with;
};

struct edit {
    ep_mcp_keep *keep;
    void *user;
    struct ep_arena *arena;
    struct cut *first, **last;
    size_t grown; /* bytes that the cuts add */
};

static const struct {
    const char *member, *name; /* of the result, of an entry */
} lists[EP_MCP_LISTS] = {
    [EP_MCP_TOOLS] = {"tools", "name"},
    [EP_MCP_PROMPTS] = {"prompts", "name"},
    [EP_MCP_RESOURCES] = {"resources", "uri"},
    [EP_MCP_TEMPLATES] = {"resourceTemplates", "uriTemplate"},
};

const char *ep_mcp_list_name(enum ep_mcp_list list)
{
    return lists[list].member;
}

static void cut(struct edit *e, const char *p, size_t n, struct ep_str with)
{
    struct cut *c = EP_ARENA_NEW(e->arena, struct cut);

    *c = (struct cut){.p = p, .n = n, .with = with};
    *e->last = c;
    e->last = &c->next;
    e->grown += with.n;
}

/* --- keys --- */

enum key { KEY_OTHER, KEY_SAME, KEY_DOUBTFUL };

struct ep_str ep_mcp_key(struct ep_str raw, char room[EP_MCP_KEY_MAX])
{
    if (!memchr(raw.p, '\\', raw.n)) /* ep_json_plain takes the quotes that stand around it */
        return raw;
    return ep_str_n(room, ep_json_plain(ep_str_n(raw.p - 1, raw.n + 2), room, EP_MCP_KEY_MAX));
}

/* DOUBTFUL: another key to us, and the same one to a parser without case. To Go's, the long s (U+017F) is an s and the
 * Kelvin sign (U+212A) a k: a key with one of these is doubtful whatever it says. */
static enum key key_is(struct ep_str key, const char *wanted)
{
    char room[EP_MCP_KEY_MAX];

    key = ep_mcp_key(key, room);
    if (ep_str_eq(key, ep_str(wanted)))
        return KEY_SAME;
    if (ep_str_search(key, EP_STR("\xc5\xbf")) >= 0 || ep_str_search(key, EP_STR("\xe2\x84\xaa")) >= 0)
        return KEY_DOUBTFUL;
    return ep_str_caseeq(key, ep_str(wanted)) ? KEY_DOUBTFUL : KEY_OTHER;
}

/* Without JSON's white space in front. */
static struct ep_str unspaced(struct ep_str s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t' || s.p[0] == '\n' || s.p[0] == '\r'))
        s = ep_str_n(s.p + 1, s.n - 1);
    return s;
}

bool ep_mcp_is_blank(struct ep_str json)
{
    return unspaced(json).n == 0;
}

bool ep_mcp_at_end(struct ep_str rest, char bracket)
{
    rest = unspaced(rest);
    return rest.n == 1 && rest.p[0] == bracket;
}

bool ep_mcp_is_empty(struct ep_str container)
{
    return ep_mcp_is_blank(ep_str_n(container.p + 1, container.n - 2));
}

/* --- entries --- */

static bool name_of(struct edit *e, struct ep_str entry, const char *wanted, struct ep_str *name)
{
    struct ep_str rest = entry, key, value;

    *name = (struct ep_str){NULL, 0};
    if (entry.p[0] != '{' || ep_mcp_is_empty(entry))
        return true;
    while (ep_json_next(&rest, &key, &value)) {
        enum key is = key_is(key, wanted);
        if (is == KEY_DOUBTFUL)
            return false;
        if (is == KEY_SAME && value.p[0] == '"') {
            char *p = ep_arena_alloc(e->arena, EP_MIN(value.n, NAME_MAX_BYTES) + 1);
            *name = ep_str_n(p, ep_json_plain(value, p, EP_MIN(value.n, NAME_MAX_BYTES)));
        }
    }
    return ep_mcp_at_end(rest, '}');
}

struct kept {
    struct kept *next;
    struct ep_str entry;
};

static struct ep_str joined(struct edit *e, const struct kept *first, size_t bytes)
{
    char *p = ep_arena_alloc(e->arena, bytes + 1), *at = p;

    for (const struct kept *k = first; k; k = k->next) {
        if (k != first)
            *at++ = ',';
        memcpy(at, k->entry.p, k->entry.n);
        at += k->entry.n;
    }
    return ep_str_n(p, (size_t)(at - p));
}

static bool edit_list(struct edit *e, enum ep_mcp_list list, struct ep_str array)
{
    struct ep_str rest = array, key, entry, name;
    struct kept *first = NULL, **last = &first;
    size_t bytes = 0;
    bool dropped = false;

    if (array.p[0] != '[' || ep_mcp_is_empty(array))
        return true;
    while (ep_json_next(&rest, &key, &entry)) {
        if (!name_of(e, entry, lists[list].name, &name))
            return false;
        if (!e->keep(e->user, list, name, entry)) {
            dropped = true;
            continue;
        }
        struct kept *k = EP_ARENA_NEW(e->arena, struct kept);
        *k = (struct kept){.entry = entry};
        *last = k;
        last = &k->next;
        bytes += entry.n + 1;
    }
    if (!ep_mcp_at_end(rest, ']'))
        return false;
    if (dropped)
        cut(e, array.p + 1, array.n - 2, joined(e, first, bytes));
    return true;
}

static bool edit_result(struct edit *e, struct ep_str result)
{
    struct ep_str rest = result, key, value;

    if (ep_mcp_is_empty(result))
        return true;
    while (ep_json_next(&rest, &key, &value)) {
        for (int i = 0; i < EP_MCP_LISTS; i++) {
            enum key is = key_is(key, lists[i].member);
            if (is == KEY_DOUBTFUL || (is == KEY_SAME && !edit_list(e, (enum ep_mcp_list)i, value)))
                return false;
        }
        if (key_is(key, "cacheScope") == KEY_SAME && ep_str_eq(value, EP_STR("\"public\"")))
            cut(e, value.p, value.n, EP_STR("\"private\""));
    }
    return ep_mcp_at_end(rest, '}');
}

static struct ep_str apply(const struct edit *e, struct ep_str text)
{
    char *out = ep_arena_alloc(e->arena, text.n + e->grown + EP_SCAN_PADDING), *at = out;
    const char *from = text.p;

    for (const struct cut *c = e->first; c; c = c->next) {
        memcpy(at, from, (size_t)(c->p - from));
        at += c->p - from;
        if (c->with.n)
            memcpy(at, c->with.p, c->with.n);
        at += c->with.n;
        from = c->p + c->n;
    }
    memcpy(at, from, (size_t)(text.p + text.n - from));
    at += text.p + text.n - from;
    return ep_str_n(out, (size_t)(at - out));
}

/* Whether a lenient reader might find a list in it. */
static bool mentions_lists(struct ep_str text)
{
    static const char *const marks[] = {"tools", "prompts", "resource", "\\u"};

    for (size_t i = 0; i < EP_COUNT(marks); i++)
        if (memmem(text.p, text.n, marks[i], strlen(marks[i])))
            return true;
    return false;
}

enum ep_mcp_edit ep_mcp_list_edit(struct ep_str text, const struct ep_scan *json, ep_mcp_keep *keep, void *user,
                                  struct ep_arena *arena, struct ep_str *out)
{
    struct edit e = {.keep = keep, .user = user, .arena = arena};

    e.last = &e.first;
    if (json->duplicate && mentions_lists(text))
        return EP_MCP_UNREADABLE;
    for (const struct ep_scan_message *m = json->first; m; m = m->next)
        if (m->ambiguous || (m->result.kind == EP_SCAN_OBJECT && !edit_result(&e, ep_agent_str(m->result.raw))))
            return EP_MCP_UNREADABLE;
    if (!e.first)
        return EP_MCP_SAME;
    *out = apply(&e, text);
    return EP_MCP_EDITED;
}
