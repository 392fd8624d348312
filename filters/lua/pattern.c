/* find, match, gmatch and gsub (Reference Manual section 6.4), written anew over a matcher that counts its steps and can
 * pause (match.h). The standard library's backtracks in C for as long as it likes ("a*a*a*a*b" on a few hundred letters is
 * minutes), and no hook is called meanwhile; a limit on lengths would refuse honest patterns.
 *
 * The state of a call lies on the C stack. Only when it pauses, or calls a replacement that might, it moves into a
 * userdata in a slot of Lua's stack, and goes on from there. */
#include "lua/match.h"

struct search {
    const char *at; /* where the match begins */
    bool anchored, find;
    struct ep_matcher m; /* last, as its end may not be in use */
};

static void search_init(struct search *w, lua_State *L, struct ep_str s, struct ep_str pattern, size_t from, bool whole)
{
    w->anchored = pattern.n && *pattern.p == '^';
    ep_matcher_init(&w->m, L, s, ep_str_n(pattern.p + w->anchored, pattern.n - w->anchored), whole);
    w->at = s.p + from;
    ep_matcher_start(&w->m, w->at);
}

/* The next match at or behind w->at, where it is then; it ends at w->m.s. */
static enum ep_match seek(struct search *w)
{
    for (;;) {
        enum ep_match found = ep_matcher_run(&w->m);
        if (found != EP_MATCH_FAILS)
            return found;
        if (w->at++ >= w->m.end || w->anchored)
            return EP_MATCH_FAILS;
        ep_matcher_start(&w->m, w->at);
    }
}

/* Puts a copy of the first n of `size` bytes into a userdata in `slot`, unless they are there already. */
static void *keep(lua_State *L, int slot, void *state, size_t n, size_t size)
{
    void *kept = lua_touserdata(L, slot);

    if (kept == state)
        return kept;
    if (!kept) {
        kept = lua_newuserdatauv(L, size, 0);
        lua_replace(L, slot);
    }
    return memcpy(kept, state, n);
}

static void keep_search(lua_State *L, int slot, struct search *w)
{
    keep(L, slot, w, offsetof(struct search, m) + ep_matcher_size(&w->m), sizeof *w);
}

/* --- results --- */

static void push_capture(struct ep_matcher *m, int i, const char *s, const char *e)
{
    if (i >= m->n_captures) {
        if (i != 0)
            luaL_error(m->L, "invalid capture index %%%d", i + 1);
        lua_pushlstring(m->L, s, (size_t)(e - s));
    } else if (m->capture[i].n == EP_CAPTURE_POSITION) {
        lua_pushinteger(m->L, m->capture[i].p - m->begin + 1);
    } else if (m->capture[i].n == EP_CAPTURE_OPEN) {
        luaL_error(m->L, "unfinished capture");
    } else {
        lua_pushlstring(m->L, m->capture[i].p, (size_t)m->capture[i].n);
    }
}

/* All captures, or with none and `whole` the whole match. */
static int push_captures(struct ep_matcher *m, const char *s, const char *e, bool whole)
{
    int n = m->n_captures == 0 && whole ? 1 : m->n_captures;

    luaL_checkstack(m->L, n, "too many captures");
    for (int i = 0; i < n; i++)
        push_capture(m, i, s, e);
    return n;
}

/* --- find, match --- */

/* The offset at which a search begins, or -1 when that is behind the end. */
static ptrdiff_t start_of(lua_State *L, size_t n)
{
    lua_Integer from = luaL_optinteger(L, 3, 1);

    if (from < 0)
        from = -from > (lua_Integer)n ? 1 : (lua_Integer)n + from + 1;
    else if (from == 0)
        from = 1;
    return from > (lua_Integer)n + 1 ? -1 : (ptrdiff_t)(from - 1);
}

static bool is_plain(struct ep_str pattern)
{
    for (size_t i = 0; i < pattern.n; i++)
        if (memchr("^$*+?.([%-", pattern.p[i], 10))
            return false;
    return true;
}

static int find_plain(lua_State *L, struct ep_str s, struct ep_str needle, ptrdiff_t from)
{
    const char *hit;

    ep_lua_charge(L, s.n / 64);
    hit = needle.n ? memmem(s.p + from, s.n - (size_t)from, needle.p, needle.n) : s.p + from;
    if (!hit) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, hit - s.p + 1);
    lua_pushinteger(L, hit - s.p + (ptrdiff_t)needle.n);
    return 2;
}

#define SEARCH_SLOT 5 /* behind the arguments */

static int search_again(lua_State *L, int status, lua_KContext unused);

static int search_on(lua_State *L, struct search *w)
{
    enum ep_match found = seek(w);

    if (found == EP_MATCH_PAUSES) {
        keep_search(L, SEARCH_SLOT, w);
        return ep_lua_pause(L, search_again);
    }
    ep_matcher_settle(&w->m);
    if (found == EP_MATCH_FAILS) {
        lua_pushnil(L);
        return 1;
    }
    if (!w->find)
        return push_captures(&w->m, w->at, w->m.s, true);
    lua_pushinteger(L, w->at - w->m.begin + 1);
    lua_pushinteger(L, w->m.s - w->m.begin);
    return 2 + push_captures(&w->m, w->at, w->m.s, false);
}

static int search_again(lua_State *L, int status, lua_KContext unused)
{
    (void)status, (void)unused;
    return search_on(L, lua_touserdata(L, SEARCH_SLOT));
}

static int search(lua_State *L, bool find)
{
    struct ep_str s = ep_lua_check_str(L, 1), pattern = ep_lua_check_str(L, 2);
    ptrdiff_t from = start_of(L, s.n);
    struct search w;

    if (from < 0) {
        lua_pushnil(L);
        return 1;
    }
    if (find && (lua_toboolean(L, 4) || is_plain(pattern)))
        return find_plain(L, s, pattern, from);
    lua_settop(L, SEARCH_SLOT - 1);
    lua_pushnil(L);
    search_init(&w, L, s, pattern, (size_t)from, false);
    w.find = find;
    return search_on(L, &w);
}

static int string_find(lua_State *L)
{
    return search(L, true);
}

static int string_match(lua_State *L)
{
    return search(L, false);
}

bool ep_lua_pattern_find(lua_State *L, struct ep_str s, struct ep_str pattern, size_t from, size_t *begin, size_t *end)
{
    struct search w;

    if (from > s.n || (pattern.n && *pattern.p == '^' && from > 0))
        return false;
    search_init(&w, L, s, pattern, from, true);
    while (seek(&w) == EP_MATCH_FITS) {
        if (w.m.s > w.at) {
            ep_matcher_settle(&w.m);
            *begin = (size_t)(w.at - s.p);
            *end = (size_t)(w.m.s - s.p);
            return true;
        }
        if (w.at++ >= w.m.end || w.anchored)
            break;
        ep_matcher_start(&w.m, w.at);
    }
    ep_matcher_settle(&w.m);
    return false;
}

/* --- gmatch --- */

struct walk {
    ptrdiff_t at;   /* where the next match may start */
    ptrdiff_t last; /* where the last one ended; -1: none */
};

#define WALK_SLOT 1

static int gmatch_again(lua_State *L, int status, lua_KContext unused);

static int gmatch_on(lua_State *L, struct search *w)
{
    struct walk *walk = lua_touserdata(L, lua_upvalueindex(3));
    enum ep_match found;

    while ((found = seek(w)) == EP_MATCH_FITS && w->m.s - w->m.begin == walk->last) {
        if (w->at++ >= w->m.end) {
            found = EP_MATCH_FAILS;
            break;
        }
        ep_matcher_start(&w->m, w->at);
    }
    if (found == EP_MATCH_PAUSES) {
        keep_search(L, WALK_SLOT, w);
        return ep_lua_pause(L, gmatch_again);
    }
    ep_matcher_settle(&w->m);
    walk->at = w->m.end - w->m.begin + 1;
    if (found == EP_MATCH_FAILS)
        return 0;
    walk->at = walk->last = w->m.s - w->m.begin;
    return push_captures(&w->m, w->at, w->m.s, true);
}

static int gmatch_again(lua_State *L, int status, lua_KContext unused)
{
    (void)status, (void)unused;
    return gmatch_on(L, lua_touserdata(L, WALK_SLOT));
}

static int gmatch_next(lua_State *L)
{
    struct walk *walk = lua_touserdata(L, lua_upvalueindex(3));
    struct ep_str s, pattern;
    struct search w;

    s.p = lua_tolstring(L, lua_upvalueindex(1), &s.n);
    pattern.p = lua_tolstring(L, lua_upvalueindex(2), &pattern.n);
    if (walk->at > (ptrdiff_t)s.n)
        return 0;
    lua_settop(L, 0);
    lua_pushnil(L);
    w.anchored = false; /* a ^ has no meaning here */
    ep_matcher_init(&w.m, L, s, pattern, false);
    w.at = s.p + walk->at;
    ep_matcher_start(&w.m, w.at);
    return gmatch_on(L, &w);
}

static int string_gmatch(lua_State *L)
{
    struct ep_str s = ep_lua_check_str(L, 1);
    struct walk *w;

    ep_lua_check_str(L, 2);
    ptrdiff_t from = start_of(L, s.n);
    lua_settop(L, 2);
    w = lua_newuserdatauv(L, sizeof *w, 0);
    w->at = from < 0 ? (ptrdiff_t)s.n + 1 : from;
    w->last = -1;
    lua_pushcclosure(L, gmatch_next, 3);
    return 1;
}

/* --- gsub --- */

/* What it has beside its search. The slots are behind the arguments; behind them is the buffer's. */
enum { SUB_SEARCH_SLOT = 5, SUB_SLOT };

struct sub {
    lua_Integer n, limit;
    const char *at, *end; /* of the match whose replacement is asked for */
    const char *last;     /* where the last match ended; NULL: there was none */
    int kind;             /* of the replacement */
    bool changed;
    luaL_Buffer b; /* last, as its end may not be in use */
};

static void keep_sub(lua_State *L, struct sub *g)
{
    bool inside = g->b.b == g->b.init.b; /* short text is in the struct itself */
    struct sub *kept = keep(L, SUB_SLOT, g, offsetof(struct sub, b.init) + (inside ? g->b.n : 0), sizeof *g);

    if (inside)
        kept->b.b = kept->b.init.b;
}

static void add_template(struct sub *g, struct ep_matcher *m, const char *s, const char *e)
{
    size_t n;
    const char *t = lua_tolstring(m->L, 3, &n);

    ep_matcher_spend(m, n / 8 + 1);
    for (size_t i = 0; i < n; i++) {
        if (t[i] != '%') {
            luaL_addchar(&g->b, t[i]);
            continue;
        }
        char c = ++i < n ? t[i] : '\0';
        if (c == '%') {
            luaL_addchar(&g->b, c);
        } else if (c == '0') {
            luaL_addlstring(&g->b, s, (size_t)(e - s));
        } else if (c >= '1' && c <= '9') {
            push_capture(m, c - '1', s, e);
            luaL_tolstring(m->L, -1, NULL); /* a position becomes its digits */
            lua_remove(m->L, -2);
            luaL_addvalue(&g->b);
        } else {
            luaL_error(m->L, "invalid use of '%%' in replacement string");
        }
    }
    g->changed = true;
}

/* What a table or a function gave for g->at to g->end is on top. */
static void add_value(lua_State *L, struct sub *g)
{
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        luaL_addlstring(&g->b, g->at, (size_t)(g->end - g->at)); /* keeps the original */
        return;
    }
    if (!lua_isstring(L, -1))
        luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    luaL_addvalue(&g->b);
    g->changed = true;
}

static int gsub_again(lua_State *L, int status, lua_KContext called);

/* Adds the replacement of the match from w->at to its end. */
static void replace(lua_State *L, struct sub *g, struct search *w)
{
    g->n++;
    g->at = w->at;
    g->end = w->m.s;
    switch (g->kind) {
    case LUA_TFUNCTION:
        keep_sub(L, g); /* what it calls may pause */
        lua_pushvalue(L, 3);
        lua_callk(L, push_captures(&w->m, g->at, g->end, true), 1, 1, gsub_again);
        add_value(L, g);
        break;
    case LUA_TTABLE:
        push_capture(&w->m, 0, g->at, g->end);
        lua_gettable(L, 3);
        add_value(L, g);
        break;
    default:
        add_template(g, &w->m, g->at, g->end);
    }
}

static int gsub_end(lua_State *L, struct sub *g, struct search *w)
{
    ep_matcher_settle(&w->m);
    if (g->changed) {
        luaL_addlstring(&g->b, w->at, (size_t)(w->m.end - w->at));
        luaL_pushresult(&g->b);
    } else {
        lua_pushvalue(L, 1);
    }
    lua_pushinteger(L, g->n);
    return 2;
}

/* Whether the search goes on, and from where; `end`: of the match there, NULL when there is none. */
static bool gsub_next(struct sub *g, struct search *w, const char *end)
{
    if (end)
        w->at = g->last = end;
    else if (w->at < w->m.end)
        luaL_addchar(&g->b, *w->at++);
    else
        return false;
    if (w->anchored || g->n >= g->limit)
        return false;
    ep_matcher_start(&w->m, w->at);
    return true;
}

static int gsub_on(lua_State *L, struct sub *g, struct search *w)
{
    const char *end;

    do {
        enum ep_match found = ep_matcher_run(&w->m);
        if (found == EP_MATCH_PAUSES) {
            keep_sub(L, g);
            keep_search(L, SUB_SEARCH_SLOT, w);
            return ep_lua_pause(L, gsub_again);
        }
        end = found == EP_MATCH_FITS && w->m.s != g->last ? w->m.s : NULL;
        if (end)
            replace(L, g, w);
    } while (gsub_next(g, w, end));
    return gsub_end(L, g, w);
}

/* After a pause, or (called) with what the replacement function gave on top. */
static int gsub_again(lua_State *L, int status, lua_KContext called)
{
    struct sub *g = lua_touserdata(L, SUB_SLOT);
    struct search fresh, *w = lua_touserdata(L, SUB_SEARCH_SLOT);

    (void)status;
    if (!called)
        return gsub_on(L, g, w);
    if (!w) {
        w = &fresh;
        search_init(w, L, ep_lua_check_str(L, 1), ep_lua_check_str(L, 2), 0, false);
    }
    add_value(L, g);
    return gsub_next(g, w, g->end) ? gsub_on(L, g, w) : gsub_end(L, g, w);
}

static int string_gsub(lua_State *L)
{
    struct ep_str s = ep_lua_check_str(L, 1), pattern = ep_lua_check_str(L, 2);
    struct search w;
    struct sub g;

    g.kind = lua_type(L, 3);
    luaL_argexpected(L, g.kind == LUA_TNUMBER || g.kind == LUA_TSTRING || g.kind == LUA_TFUNCTION || g.kind == LUA_TTABLE,
                     3, "string/function/table");
    g.limit = luaL_optinteger(L, 4, (lua_Integer)s.n + 1);
    if (g.limit <= 0) {
        lua_settop(L, 1);
        lua_pushinteger(L, 0);
        return 2;
    }
    g.n = 0;
    g.changed = false;
    g.last = NULL;
    lua_settop(L, SUB_SEARCH_SLOT - 1);
    lua_settop(L, SUB_SLOT);
    search_init(&w, L, s, pattern, 0, false);
    luaL_buffinit(L, &g.b);
    return gsub_on(L, &g, &w);
}

void ep_lua_pattern_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"find", string_find}, {"match", string_match}, {"gmatch", string_gmatch}, {"gsub", string_gsub}, {NULL, NULL},
    };

    luaL_setfuncs(L, functions, 0);
}
