/* The redaction of whole bodies. redact.h has the picture. */
#include "lua/redact.h"

#include "filter/call.h"
#include "filter/refusal.h"
#include "http/headers.h"
#include "lua/host.h"
#include "observe/json.h"

static const char not_json[] = "it is not JSON";

/* --- what was asked for --- */

static struct ep_redaction *add(lua_State *L, struct ep_arena *arena, struct ep_redaction *tail, struct ep_str what,
                                struct ep_str with)
{
    const char *names[EP_SENSITIVE_KINDS];
    struct ep_redaction *r, wanted = {.next = tail, .kind = EP_SENSITIVE_KINDS, .pattern = what, .with = with};
    unsigned n = 0;

    for (int k = 0; k < EP_SENSITIVE_KINDS; k++) {
        names[k] = ep_sensitive_name((enum ep_sensitive)k);
        if (!ep_str_eq(what, ep_str(names[k])))
            continue;
        wanted.kind = (enum ep_sensitive)k;
        wanted.pattern = (struct ep_str){NULL, 0};
    }
    for (const struct ep_redaction *i = tail; i; i = i->next, n++)
        if (i->kind == wanted.kind && ep_str_eq(i->pattern, wanted.pattern) && i->with_given == (with.p != NULL) &&
            (!with.p || ep_str_eq(i->with, with)))
            return tail;
    if (n >= EP_REDACT_RULES_MAX)
        luaL_error(L, "more than %d things to redact", (int)EP_REDACT_RULES_MAX);
    r = EP_ARENA_NEW(arena, struct ep_redaction);
    *r = wanted;
    r->with_given = with.p != NULL;
    if (with.p)
        r->with = ep_arena_str(arena, with);
    if (r->kind != EP_SENSITIVE_KINDS) {
        if (!with.p)
            r->with = ep_arena_printf(arena, "[%s]", names[r->kind]);
        return r;
    }
    if (!strpbrk(what.p, "^$*+?.([%-") || what.n > 256) {
        const char *near = ep_nearest(what, names, EP_SENSITIVE_KINDS);
        luaL_error(L, "redact: '%.64s' is neither a known name nor a pattern%s%s%s", what.p, near ? "; did you mean '" : "",
                   near ? near : "", near ? "'?" : "");
    }
    r->pattern = ep_arena_str(arena, what);
    if (!with.p)
        r->with = EP_STR("[redacted]");
    size_t begin, end;
    ep_lua_pattern_find(L, EP_STR("x"), r->pattern, 0, &begin, &end); /* a malformed one raises here */
    return r;
}

struct ep_redaction *ep_redact_arguments(lua_State *L, struct ep_arena *arena, struct ep_redaction *tail)
{
    struct ep_str with = {NULL, 0};

    ep_lua_charge(L, 50);
    if (!lua_isnoneornil(L, 3)) {
        luaL_checktype(L, 3, LUA_TTABLE);
        if (lua_getfield(L, 3, "with") != LUA_TNIL) {
            with = ep_lua_check_str(L, -1);
            if (with.n > EP_REDACT_WITH_MAX)
                luaL_error(L, "redact: `with` has at most %d bytes", (int)EP_REDACT_WITH_MAX);
        } /* it stays on the stack as long as it is looked at */
    }
    if (lua_type(L, 2) != LUA_TTABLE)
        return add(L, arena, tail, ep_lua_check_str(L, 2), with);
    size_t n = lua_rawlen(L, 2);
    if (n == 0 || n > EP_REDACT_RULES_MAX)
        luaL_error(L, "redact: a list must have 1 to %d members", (int)EP_REDACT_RULES_MAX);
    for (size_t i = 1; i <= n; i++) {
        lua_rawgeti(L, 2, (lua_Integer)i);
        tail = add(L, arena, tail, ep_lua_check_str(L, -1), with);
        lua_pop(L, 1);
    }
    return tail;
}

/* --- the result --- */

static void put(struct ep_redact_job *j, const char *p, size_t n)
{
    if (n == 0)
        return;
    if (n > j->cap - j->n) {
        size_t cap = EP_MAX(j->cap * 2, j->n + n + 256);
        char *more = ep_arena_alloc(j->arena, cap);
        if (j->n)
            memcpy(more, j->out, j->n);
        j->out = more;
        j->cap = cap;
    }
    memcpy(j->out + j->n, p, n);
    j->n += n;
    if (j->n > j->bytes_max)
        j->refused = "it would grow beyond what may be held";
}

/* What was not changed, up to `at` of the text. */
static void keep_up_to(struct ep_redact_job *j, const char *at)
{
    put(j, j->text.p + j->copied, (size_t)(at - j->text.p) - j->copied);
}

static void put_escaped(struct ep_redact_job *j, struct ep_str s)
{
    static const char hex[] = "0123456789abcdef";
    size_t from = 0;

    for (size_t i = 0; i < s.n && !j->refused; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        put(j, s.p + from, i - from);
        if (c >= 0x20)
            put(j, (const char[]){'\\', (char)c}, 2);
        else
            put(j, (const char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
        from = i + 1;
    }
    if (!j->refused)
        put(j, s.p + from, s.n - from);
}

/* --- searching --- */

struct hit {
    size_t begin, end;
    bool none;
};

struct search {
    lua_State *L;
    struct ep_redact_job *j;
    struct ep_str s;
    struct hit hit[EP_REDACT_RULES_MAX];
};

static void look(struct search *x, unsigned i, const struct ep_redaction *r, size_t from)
{
    struct hit *h = &x->hit[i];
    bool found = r->kind == EP_SENSITIVE_KINDS
                     ? ep_lua_pattern_find(x->L, x->s, r->pattern, from, &h->begin, &h->end)
                     : ep_sensitive_find(r->kind, x->s, from, &h->begin, &h->end);

    h->none = !found;
}

/* The first hit of any rule at or after `from`, the longest of those; NULL: none. */
static const struct ep_redaction *next(struct search *x, size_t from, bool first, struct hit *out)
{
    const struct ep_redaction *best = NULL;
    unsigned i = 0;

    for (const struct ep_redaction *r = x->j->rules; r; r = r->next, i++) {
        struct hit *h = &x->hit[i];
        if (first || (!h->none && h->begin < from))
            look(x, i, r, from);
        if (h->none || (best && (h->begin > out->begin || (h->begin == out->begin && h->end <= out->end))))
            continue;
        *out = *h;
        best = r;
    }
    return best;
}

static bool is_name_of_call(const struct ep_call *c, struct ep_str s)
{
    for (; c; c = c->next) {
        const struct ep_str names[] = {c->method,      c->tool, c->uri,     c->prompt_name, c->model,
                                       c->agent,       c->task, c->session, c->id_text, c->recipient, c->conversation,     c->service};
        for (size_t i = 0; i < EP_COUNT(names); i++)
            if (names[i].n && ep_str_eq(names[i], s))
                return true;
    }
    return false;
}

/* Replaces all hits in s, which lies (or lay, with escapes) from `begin` to `end` of the text. */
static void replace(lua_State *L, struct ep_redact_job *j, struct ep_str s, const char *begin, const char *end, bool json)
{
    struct search x = {.L = L, .j = j, .s = s};
    const struct ep_redaction *r;
    size_t from = 0;
    struct hit h;

    for (bool first = true; (r = next(&x, from, first, &h)) && !j->refused; first = false) {
        if (first) {
            keep_up_to(j, begin);
            if (json)
                put(j, "\"", 1);
        }
        j->found[r->kind]++;
        j->total++;
        if (json) {
            put_escaped(j, ep_str_n(s.p + from, h.begin - from));
            put_escaped(j, r->with);
        } else {
            put(j, s.p + from, h.begin - from);
            put(j, r->with.p, r->with.n);
        }
        from = h.end;
    }
    if (j->refused || from == 0)
        return;
    j->changed = true;
    if (json) {
        put_escaped(j, ep_str_n(s.p + from, s.n - from));
        put(j, "\"", 1);
    } else {
        put(j, s.p + from, s.n - from);
    }
    j->copied = (size_t)(end - j->text.p);
}

static bool has_hit(lua_State *L, struct ep_redact_job *j, struct ep_str s)
{
    struct search x = {.L = L, .j = j, .s = s};
    struct hit h;

    return next(&x, 0, true, &h);
}

/* --- JSON --- */

static int hex_value(char c)
{
    c = ep_lower(c);
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits at p; -1: they are none. */
static int hex4(const char *p, const char *end)
{
    int v = 0;

    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int d = hex_value(p[i]);
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

bool ep_redact_unescape(struct ep_redact_job *j, struct ep_str raw, struct ep_str *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *p = raw.p, *end = raw.p + raw.n;
    size_t n = 0;

    if (raw.n > j->scratch_cap) {
        j->scratch_cap = EP_MAX(raw.n, 4096u);
        j->scratch = ep_arena_alloc(j->arena, j->scratch_cap);
    }
    while (p < end) {
        const char *which;
        int c, low;
        if (*p != '\\') {
            j->scratch[n++] = *p++;
            continue;
        }
        if (++p == end)
            return false;
        if (*p != 'u') {
            which = memchr(from, *p++, sizeof from - 1);
            if (!which)
                return false;
            j->scratch[n++] = to[which - from];
            continue;
        }
        c = hex4(p + 1, end);
        if (c < 0)
            return false;
        p += 5;
        if (c >= 0xd800 && c < 0xdc00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u' &&
            (low = hex4(p + 2, end)) >= 0xdc00 && low < 0xe000) {
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
            p += 6;
        } else if (c >= 0xd800 && c < 0xe000) {
            c = 0xfffd;
        }
        n += ep_utf8_encode((uint32_t)c, j->scratch + n); /* at most as long as the escape */
    }
    *out = ep_str_n(j->scratch, n);
    return true;
}

static void redact_string(lua_State *L, struct ep_redact_job *j, const char *p, const char *e)
{
    const char *end = j->text.p + j->text.n, *after = e;
    struct ep_str s = ep_str_n(p + 1, (size_t)(e - p) - 2);

    for (unsigned i = 0; i < j->n_given; i++) {
        if (j->given[i].raw.p != p)
            continue;
        if (!j->given[i].text.p)
            return;
        keep_up_to(j, p);
        put(j, "\"", 1);
        put_escaped(j, j->given[i].text);
        put(j, "\"", 1);
        j->copied = (size_t)(e - j->text.p);
        j->changed = true;
        return;
    }
    if (memchr(s.p, '\\', s.n) && !ep_redact_unescape(j, s, &s)) {
        j->refused = not_json;
        return;
    }
    if (!has_hit(L, j, s))
        return;
    while (after < end && (unsigned char)*after <= ' ')
        after++;
    if (after < end && *after == ':')
        j->refused = "a key of an object is to be redacted";
    else if (is_name_of_call(j->call, s))
        j->refused = "a name of what is called is to be redacted";
    else
        replace(L, j, s, p, e, true);
}

static void redact_json(lua_State *L, struct ep_redact_job *j)
{
    const char *p = j->text.p, *end = p + j->text.n;

    while (p < end && !j->refused) {
        const char *e = p + 1;
        if (*p == '"') {
            e = ep_json_string_end(p, end);
            if (e)
                redact_string(L, j, p, e);
        } else if ((*p >= '0' && *p <= '9') || *p == '-') {
            while (e < end && memchr("0123456789+-.eE", *e, 15))
                e++;
            replace(L, j, ep_str_n(p, (size_t)(e - p)), p, e, true);
        } else if (!memchr(" \t\r\n{}[],:", *p, 11) && !(*p >= 'a' && *p <= 'z')) {
            e = NULL;
        }
        if (!e)
            j->refused = not_json;
        p = e;
    }
}

/* --- a text that goes on --- */

/* From where on the text may be the beginning of what some rule looks for. */
static size_t open_from(const struct ep_redact_job *j)
{
    size_t max = EP_MIN(j->tail_max, j->text.n - j->from), open = j->text.n;

    for (const struct ep_redaction *r = j->rules; r; r = r->next)
        open = EP_MIN(open, r->kind == EP_SENSITIVE_KINDS ? j->text.n - max : ep_sensitive_open(r->kind, j->text, max));
    while (open > j->from && open < j->text.n && ((unsigned char)j->text.p[open] & 0xc0) == 0x80)
        open--; /* no character is cut */
    return EP_MAX(open, j->from);
}

/* A hit that reaches the end may be longer when more comes: it waits as a whole. */
static void replace_part(lua_State *L, struct ep_redact_job *j)
{
    struct search x = {.L = L, .j = j, .s = j->text};
    size_t from = j->from, limit = j->last ? j->text.n : open_from(j);
    const struct ep_redaction *r;
    struct hit h;

    for (bool first = true; (r = next(&x, from, first, &h)) && !j->refused; first = false) {
        if (!j->last && (h.end > limit || h.end == j->text.n)) {
            limit = EP_MIN(limit, h.begin);
            break;
        }
        j->found[r->kind]++;
        j->total++;
        put(j, j->text.p + from, h.begin - from);
        put(j, r->with.p, r->with.n);
        from = h.end;
        j->changed = true;
    }
    put(j, j->text.p + from, limit - from);
    j->held = limit;
}

/* --- the whole --- */

static void start(struct ep_redact_job *j)
{
    j->refused = NULL;
    j->n = j->cap = j->copied = j->total = 0;
    j->changed = false;
    memset(j->found, 0, sizeof j->found);
}

static int run(lua_State *L)
{
    struct ep_redact_job *j = lua_touserdata(L, 1);

    if (j->as == EP_REDACT_PART) {
        replace_part(L, j);
        return 0;
    }
    if (j->as != EP_REDACT_PLAIN)
        redact_json(L, j);
    if (j->as == EP_REDACT_MAYBE_JSON && j->refused == not_json)
        start(j);
    else if (j->as != EP_REDACT_PLAIN)
        return 0;
    if (!j->refused)
        replace(L, j, j->text, j->text.p, j->text.p + j->text.n, false);
    return 0;
}

bool ep_redact(struct ep_lua *l, lua_State *L, struct ep_redact_job *j, const struct ep_lua_budget *b)
{
    struct ep_lua_budget budget = *b;

    budget.instructions += 16 * j->text.n;
    budget.time_ns += 100 * j->text.n;
    start(j);
    if (!j->text.n) { /* which may be NULL */
        j->result = j->text;
        j->held = 0;
        return true;
    }
    lua_pushcfunction(L, run);
    lua_pushlightuserdata(L, j);
    if (ep_lua_call(l, L, 1, 0, &budget, ep_clock_ns()) != EP_LUA_OK)
        return false;
    if (j->as == EP_REDACT_PART) {
        j->result = j->n ? ep_str_n(j->out, j->n) : EP_STR("");
        return true;
    }
    if (j->changed && !j->refused)
        keep_up_to(j, j->text.p + j->text.n);
    j->result = j->changed ? ep_str_n(j->out, j->n) : j->text;
    return true;
}

static bool is_ascii_like(struct ep_str content_type)
{
    static const char *const good[] = {"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252"};
    struct ep_str part;

    ep_str_next(&content_type, ';', &part);
    while (ep_str_next(&content_type, ';', &part)) {
        bool known = false;
        if (!ep_str_casestarts(part, EP_STR("charset")))
            continue;
        ptrdiff_t equals = ep_str_find(part, '=', 0);
        if (equals < 0)
            return false;
        struct ep_str value = ep_str_trim(ep_str_n(part.p + equals + 1, part.n - (size_t)equals - 1));
        if (value.n >= 2 && value.p[0] == '"')
            value = ep_str_n(value.p + 1, value.n - 2);
        for (size_t i = 0; i < EP_COUNT(good); i++)
            known |= ep_str_caseeq(value, ep_str(good[i]));
        if (!known)
            return false;
    }
    return true;
}

bool ep_redact_readable(const struct ep_headers *h, struct ep_str body, enum ep_redact_text *as)
{
    static const char *const texts[] = {"application/xml", "application/javascript", "application/yaml"};
    struct ep_str given = ep_headers_get_id(h, EP_HDR_CONTENT_TYPE), type = ep_media_type(given), suffix;
    size_t first = 0;
    bool text = type.n == 0 || ep_str_casestarts(type, EP_STR("text/"));

    suffix = type.n > 5 ? ep_str_n(type.p + type.n - 5, 5) : (struct ep_str){NULL, 0};
    while (first < body.n && (unsigned char)body.p[first] <= ' ')
        first++;
    *as = EP_REDACT_PLAIN;
    if (!is_ascii_like(given) || (body.n && memchr(body.p, '\0', body.n)))
        return false;
    if (ep_str_caseeq(type, EP_STR("application/json")) || ep_str_caseeq(suffix, EP_STR("+json")) ||
        ep_str_caseeq(type, EP_STR("application/x-ndjson")) || ep_str_caseeq(type, EP_STR("application/jsonl")) ||
        (text && first < body.n && (body.p[first] == '{' || body.p[first] == '['))) {
        *as = text ? EP_REDACT_MAYBE_JSON : EP_REDACT_JSON;
        return true;
    }
    for (size_t i = 0; i < EP_COUNT(texts); i++)
        text |= ep_str_caseeq(type, ep_str(texts[i]));
    return text || (type.n > 4 && ep_str_caseeq(ep_str_n(type.p + type.n - 4, 4), EP_STR("+xml")));
}
