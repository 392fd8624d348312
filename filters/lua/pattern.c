/* Lua's patterns (Reference Manual section 6.4.1), with every step of the matcher charged to the caller's budget.
 *
 * The standard library's matcher backtracks in C for as long as it likes ("a*a*a*a*b" on a few hundred letters is
 * minutes), and no hook is called meanwhile. A limit on lengths would refuse honest patterns, so find, match, gmatch
 * and gsub are written anew here, same in results and errors, over a matcher that counts. */
#include "lua/host.h"

#include <ctype.h>

#define CAPTURES_MAX     32
#define DEPTH_MAX        200
#define STEPS_PER_CHARGE 2048u

enum { CAPTURE_OPEN = -1, CAPTURE_POSITION = -2 };

struct matcher {
    lua_State *L;
    const char *begin, *end; /* the subject */
    const char *pattern_end;
    unsigned steps;
    int depth;
    int n_captures;
    struct {
        const char *p;
        ptrdiff_t n; /* or CAPTURE_… */
    } capture[CAPTURES_MAX];
};

static void step(struct matcher *m, unsigned n)
{
    m->steps += n;
    if (m->steps >= STEPS_PER_CHARGE) {
        ep_lua_charge(m->L, m->steps / 2);
        m->steps = 0;
    }
}

/* --- one character against one item --- */

static bool in_class(int c, int letter)
{
    bool in;

    switch (tolower(letter)) {
    case 'a':
        in = isalpha(c);
        break;
    case 'c':
        in = iscntrl(c);
        break;
    case 'd':
        in = isdigit(c);
        break;
    case 'g':
        in = isgraph(c);
        break;
    case 'l':
        in = islower(c);
        break;
    case 'p':
        in = ispunct(c);
        break;
    case 's':
        in = isspace(c);
        break;
    case 'u':
        in = isupper(c);
        break;
    case 'w':
        in = isalnum(c);
        break;
    case 'x':
        in = isxdigit(c);
        break;
    case 'z':
        in = c == 0; /* of 5.1; gone from the manual, not from the library */
        break;
    default:
        return letter == c;
    }
    return isupper(letter) ? !in : in;
}

/* Where the item that starts at p ends: after "x", "%x" or "[...]". */
static const char *item_end(struct matcher *m, const char *p)
{
    char first = *p++;

    if (first == '%') {
        if (p == m->pattern_end)
            luaL_error(m->L, "malformed pattern (ends with '%%')");
        return p + 1;
    }
    if (first != '[')
        return p;
    if (p < m->pattern_end && *p == '^')
        p++;
    for (bool at_start = true;; at_start = false) { /* a ']' at the start stands for itself */
        if (p >= m->pattern_end)
            luaL_error(m->L, "malformed pattern (missing ']')");
        char c = *p++;
        if (c == '%') {
            if (p >= m->pattern_end)
                luaL_error(m->L, "malformed pattern (missing ']')");
            p++;
        } else if (c == ']' && !at_start) {
            return p;
        }
    }
}

/* p is the '[', last the ']'. */
static bool in_set(int c, const char *p, const char *last)
{
    bool found = true;

    if (*++p == '^') {
        found = false;
        p++;
    }
    for (; p < last; p++) {
        if (*p == '%') {
            p++;
            if (in_class(c, (unsigned char)*p))
                return found;
        } else if (p[1] == '-' && p + 2 < last) {
            if ((unsigned char)p[0] <= c && c <= (unsigned char)p[2])
                return found;
            p += 2;
        } else if ((unsigned char)*p == c) {
            return found;
        }
    }
    return !found;
}

static bool one(struct matcher *m, const char *s, const char *p, const char *p_end)
{
    if (s >= m->end)
        return false;
    int c = (unsigned char)*s;
    switch (*p) {
    case '.':
        return true;
    case '%':
        return in_class(c, (unsigned char)p[1]);
    case '[':
        step(m, (unsigned)(p_end - p) / 4);
        return in_set(c, p, p_end - 1);
    default:
        return (unsigned char)*p == c;
    }
}

/* --- the matcher: where the match of p at s ends, or NULL --- */

static const char *match(struct matcher *m, const char *s, const char *p);

static const char *greedy(struct matcher *m, const char *s, const char *p, const char *after, ptrdiff_t least)
{
    ptrdiff_t n = 0;

    while (one(m, s + n, p, after)) {
        step(m, 1);
        n++;
    }
    for (; n >= least; n--) {
        const char *e = match(m, s + n, after + 1);
        if (e)
            return e;
    }
    return NULL;
}

static const char *lazy(struct matcher *m, const char *s, const char *p, const char *after)
{
    for (;; s++) {
        const char *e = match(m, s, after + 1);
        if (e)
            return e;
        if (!one(m, s, p, after))
            return NULL;
        step(m, 1);
    }
}

static const char *open_capture(struct matcher *m, const char *s, const char *p, ptrdiff_t kind)
{
    const char *e;

    if (m->n_captures >= CAPTURES_MAX)
        luaL_error(m->L, "too many captures");
    m->capture[m->n_captures].p = s;
    m->capture[m->n_captures].n = kind;
    m->n_captures++;
    e = match(m, s, p);
    if (!e)
        m->n_captures--;
    return e;
}

static const char *close_capture(struct matcher *m, const char *s, const char *p)
{
    int i = m->n_captures;
    const char *e;

    while (i > 0 && m->capture[i - 1].n != CAPTURE_OPEN)
        i--;
    if (i == 0)
        luaL_error(m->L, "invalid pattern capture");
    m->capture[i - 1].n = s - m->capture[i - 1].p;
    e = match(m, s, p);
    if (!e)
        m->capture[i - 1].n = CAPTURE_OPEN;
    return e;
}

/* %1 … %9: the same text again. */
static const char *same_again(struct matcher *m, const char *s, char digit)
{
    int i = digit - '1';

    if (i < 0 || i >= m->n_captures || m->capture[i].n == CAPTURE_OPEN)
        luaL_error(m->L, "invalid capture index %%%d", i + 1);
    if (m->capture[i].n == CAPTURE_POSITION) /* a place has no text */
        return NULL;
    size_t n = (size_t)m->capture[i].n;
    step(m, (unsigned)(n / 16) + 1);
    if ((size_t)(m->end - s) < n || memcmp(s, m->capture[i].p, n) != 0)
        return NULL;
    return s + n;
}

/* %bxy: balanced. */
static const char *balanced(struct matcher *m, const char *s, const char *p)
{
    size_t depth = 1;

    if (p + 1 >= m->pattern_end)
        luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
    if (s >= m->end || *s != p[0])
        return NULL;
    while (++s < m->end) {
        step(m, 1);
        if (*s == p[1]) {
            if (--depth == 0)
                return s + 1;
        } else if (*s == p[0]) {
            depth++;
        }
    }
    return NULL;
}

/* %f[set]: a border. Returns where the pattern goes on, or NULL. */
static const char *frontier(struct matcher *m, const char *s, const char *p)
{
    const char *p_end;
    int before = s == m->begin ? 0 : (unsigned char)s[-1], here = s < m->end ? (unsigned char)*s : 0;

    if (p >= m->pattern_end || *p != '[')
        luaL_error(m->L, "missing '[' after '%%f' in pattern");
    p_end = item_end(m, p);
    return !in_set(before, p, p_end - 1) && in_set(here, p, p_end - 1) ? p_end : NULL;
}

static const char *match(struct matcher *m, const char *s, const char *p)
{
    if (++m->depth > DEPTH_MAX)
        luaL_error(m->L, "pattern too complex");
    while (s && p != m->pattern_end) {
        step(m, 1);
        if (*p == '(') {
            bool position = p + 1 < m->pattern_end && p[1] == ')';
            s = open_capture(m, s, p + (position ? 2 : 1), position ? CAPTURE_POSITION : CAPTURE_OPEN);
            break;
        }
        if (*p == ')') {
            s = close_capture(m, s, p + 1);
            break;
        }
        if (*p == '$' && p + 1 == m->pattern_end) {
            s = s == m->end ? s : NULL;
            break;
        }
        if (*p == '%' && p + 1 < m->pattern_end && p[1] == 'b') {
            s = balanced(m, s, p + 2);
            p += 4;
            continue;
        }
        if (*p == '%' && p + 1 < m->pattern_end && p[1] == 'f') {
            p = frontier(m, s, p + 2);
            if (!p) {
                s = NULL;
                break;
            }
            continue;
        }
        if (*p == '%' && p + 1 < m->pattern_end && p[1] >= '0' && p[1] <= '9') {
            s = same_again(m, s, p[1]);
            p += 2;
            continue;
        }
        const char *after = item_end(m, p);
        char suffix = after < m->pattern_end ? *after : '\0';
        if (suffix == '*' || suffix == '+') {
            s = greedy(m, s, p, after, suffix == '+');
            break;
        }
        if (suffix == '-') {
            s = lazy(m, s, p, after);
            break;
        }
        bool hit = one(m, s, p, after);
        if (suffix == '?') {
            const char *e = hit ? match(m, s + 1, after + 1) : NULL;
            if (e) {
                s = e;
                break;
            }
            p = after + 1;
            continue;
        }
        s = hit ? s + 1 : NULL;
        p = after;
    }
    m->depth--;
    return s;
}

static const char *match_at(struct matcher *m, const char *s, const char *p)
{
    m->depth = 0;
    m->n_captures = 0;
    step(m, 1);
    return match(m, s, p);
}

static void matcher_init(struct matcher *m, lua_State *L, struct ep_str subject, struct ep_str pattern)
{
    m->L = L;
    m->begin = subject.p;
    m->end = subject.p + subject.n;
    m->pattern_end = pattern.p + pattern.n;
    m->steps = 0;
}

/* --- results --- */

static void push_capture(struct matcher *m, int i, const char *s, const char *e)
{
    if (i >= m->n_captures) {
        if (i != 0)
            luaL_error(m->L, "invalid capture index %%%d", i + 1);
        lua_pushlstring(m->L, s, (size_t)(e - s));
    } else if (m->capture[i].n == CAPTURE_POSITION) {
        lua_pushinteger(m->L, m->capture[i].p - m->begin + 1);
    } else if (m->capture[i].n == CAPTURE_OPEN) {
        luaL_error(m->L, "unfinished capture");
    } else {
        lua_pushlstring(m->L, m->capture[i].p, (size_t)m->capture[i].n);
    }
}

/* All captures, or with none and `whole` the whole match. */
static int push_captures(struct matcher *m, const char *s, const char *e, bool whole)
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

static int search(lua_State *L, bool find)
{
    struct ep_str s = ep_lua_check_str(L, 1), pattern = ep_lua_check_str(L, 2);
    ptrdiff_t from = start_of(L, s.n);
    struct matcher m;

    if (from < 0) {
        lua_pushnil(L);
        return 1;
    }
    if (find && (lua_toboolean(L, 4) || is_plain(pattern)))
        return find_plain(L, s, pattern, from);
    matcher_init(&m, L, s, pattern);
    bool anchored = pattern.n && *pattern.p == '^';
    const char *p = pattern.p + anchored, *at = s.p + from;
    do {
        const char *e = match_at(&m, at, p);
        if (e) {
            ep_lua_charge(L, m.steps / 2);
            if (!find)
                return push_captures(&m, at, e, true);
            lua_pushinteger(L, at - s.p + 1);
            lua_pushinteger(L, e - s.p);
            return 2 + push_captures(&m, at, e, false);
        }
    } while (at++ < m.end && !anchored);
    ep_lua_charge(L, m.steps / 2);
    lua_pushnil(L);
    return 1;
}

bool ep_lua_pattern_find(lua_State *L, struct ep_str s, struct ep_str pattern, size_t from, size_t *begin, size_t *end)
{
    bool anchored = pattern.n && *pattern.p == '^';
    struct matcher m;

    if (from > s.n || (anchored && from > 0))
        return false;
    matcher_init(&m, L, s, pattern);
    const char *at = s.p + from;
    do {
        const char *e = match_at(&m, at, pattern.p + anchored);
        if (e && e > at) {
            ep_lua_charge(L, m.steps / 2);
            *begin = (size_t)(at - s.p);
            *end = (size_t)(e - s.p);
            return true;
        }
    } while (at++ < m.end && !anchored);
    ep_lua_charge(L, m.steps / 2);
    return false;
}

static int string_find(lua_State *L)
{
    return search(L, true);
}

static int string_match(lua_State *L)
{
    return search(L, false);
}

/* --- gmatch --- */

struct walk {
    ptrdiff_t at;   /* where the next match may start */
    ptrdiff_t last; /* where the last one ended; -1: none */
};

static int gmatch_next(lua_State *L)
{
    struct walk *w = lua_touserdata(L, lua_upvalueindex(3));
    struct ep_str s, pattern;
    struct matcher m;

    s.p = lua_tolstring(L, lua_upvalueindex(1), &s.n);
    pattern.p = lua_tolstring(L, lua_upvalueindex(2), &pattern.n);
    matcher_init(&m, L, s, pattern);
    for (; w->at <= (ptrdiff_t)s.n; w->at++) {
        const char *e = match_at(&m, s.p + w->at, pattern.p);
        if (e && e - s.p != w->last) {
            const char *at = s.p + w->at;
            w->at = w->last = e - s.p;
            ep_lua_charge(L, m.steps / 2);
            return push_captures(&m, at, e, true);
        }
    }
    ep_lua_charge(L, m.steps / 2);
    return 0;
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

static void add_template(struct matcher *m, luaL_Buffer *b, const char *s, const char *e)
{
    size_t n;
    const char *t = lua_tolstring(m->L, 3, &n);

    step(m, (unsigned)(n / 8) + 1);
    for (size_t i = 0; i < n; i++) {
        if (t[i] != '%') {
            luaL_addchar(b, t[i]);
            continue;
        }
        char c = ++i < n ? t[i] : '\0';
        if (c == '%') {
            luaL_addchar(b, c);
        } else if (c == '0') {
            luaL_addlstring(b, s, (size_t)(e - s));
        } else if (c >= '1' && c <= '9') {
            push_capture(m, c - '1', s, e);
            luaL_tolstring(m->L, -1, NULL); /* a position becomes its digits */
            lua_remove(m->L, -2);
            luaL_addvalue(b);
        } else {
            luaL_error(m->L, "invalid use of '%%' in replacement string");
        }
    }
}

/* Adds the replacement of one match: by a template, a table or a function. */
static bool add_replacement(struct matcher *m, luaL_Buffer *b, const char *s, const char *e, int kind)
{
    lua_State *L = m->L;

    if (kind == LUA_TFUNCTION) {
        lua_pushvalue(L, 3);
        lua_call(L, push_captures(m, s, e, true), 1);
    } else if (kind == LUA_TTABLE) {
        push_capture(m, 0, s, e);
        lua_gettable(L, 3);
    } else {
        add_template(m, b, s, e);
        return true;
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        luaL_addlstring(b, s, (size_t)(e - s)); /* keeps the original */
        return false;
    }
    if (!lua_isstring(L, -1))
        luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    luaL_addvalue(b);
    return true;
}

static int string_gsub(lua_State *L)
{
    struct ep_str s = ep_lua_check_str(L, 1), pattern = ep_lua_check_str(L, 2);
    int kind = lua_type(L, 3);
    lua_Integer limit = luaL_optinteger(L, 4, (lua_Integer)s.n + 1), n = 0;
    bool anchored = pattern.n && *pattern.p == '^', changed = false;
    const char *p = pattern.p + anchored, *at = s.p, *last = NULL;
    struct matcher m;
    luaL_Buffer b;

    luaL_argexpected(L, kind == LUA_TNUMBER || kind == LUA_TSTRING || kind == LUA_TFUNCTION || kind == LUA_TTABLE, 3,
                     "string/function/table");
    matcher_init(&m, L, s, pattern);
    luaL_buffinit(L, &b);
    while (n < limit) {
        const char *e = match_at(&m, at, p);
        if (e && e != last) {
            n++;
            changed |= add_replacement(&m, &b, at, e, kind);
            at = last = e;
        } else if (at < m.end) {
            luaL_addchar(&b, *at++);
        } else {
            break;
        }
        if (anchored)
            break;
    }
    ep_lua_charge(L, m.steps / 2);
    if (changed) {
        luaL_addlstring(&b, at, (size_t)(m.end - at));
        luaL_pushresult(&b);
    } else {
        lua_pushvalue(L, 1);
    }
    lua_pushinteger(L, n);
    return 2;
}

void ep_lua_pattern_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"find", string_find}, {"match", string_match}, {"gmatch", string_gmatch}, {"gsub", string_gsub}, {NULL, NULL},
    };

    luaL_setfuncs(L, functions, 0);
}
