/* JSON for scripts: text to Lua values and back.
 *
 * null is a light userdata (json.null), so that a member that is null is not a member that is absent; arrays carry a
 * metatable, so that an empty one stays an array on the way back. An object with the same key twice is refused, as
 * two parsers would read two calls out of it (DESIGN.md section 9). RFC 8259; nested 64 deep at most. */
#include "lua/host.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define DEPTH_MAX   64
#define NUMBER_COST 20 /* instructions: a number that is written */
#define ARRAY_CLASS "ephor.json.array"

struct reader {
    lua_State *L;
    const char *begin, *p, *end;
    int depth;
};

static int bad(struct reader *r, const char *what)
{
    return luaL_error(r->L, "json: %s at byte %d", what, (int)(r->p - r->begin) + 1);
}

static void skip_space(struct reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r'))
        r->p++;
}

static void mark_array(lua_State *L)
{
    if (luaL_newmetatable(L, ARRAY_CLASS)) {
        lua_pushboolean(L, false);
        lua_setfield(L, -2, "__metatable");
    }
    lua_setmetatable(L, -2);
}

static unsigned hex4(struct reader *r)
{
    unsigned v = 0;

    if (r->end - r->p < 4)
        bad(r, "short \\u escape");
    for (int i = 0; i < 4; i++) {
        char c = *r->p, l = ep_lower(c);
        if (c >= '0' && c <= '9')
            v = v * 16 + (unsigned)(c - '0');
        else if (l >= 'a' && l <= 'f')
            v = v * 16 + (unsigned)(l - 'a' + 10);
        else
            bad(r, "bad \\u escape");
        r->p++;
    }
    return v;
}

static void add_utf8(luaL_Buffer *b, unsigned c)
{
    if (c < 0x80) {
        luaL_addchar(b, (char)c);
        return;
    }
    if (c < 0x800) {
        luaL_addchar(b, (char)(0xc0 | c >> 6));
    } else {
        if (c < 0x10000) {
            luaL_addchar(b, (char)(0xe0 | c >> 12));
        } else {
            luaL_addchar(b, (char)(0xf0 | c >> 18));
            luaL_addchar(b, (char)(0x80 | ((c >> 12) & 0x3f)));
        }
        luaL_addchar(b, (char)(0x80 | ((c >> 6) & 0x3f)));
    }
    luaL_addchar(b, (char)(0x80 | (c & 0x3f)));
}

static void read_escape(struct reader *r, luaL_Buffer *b)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *hit;
    unsigned c;

    if (r->p == r->end)
        bad(r, "unfinished string");
    if (*r->p != 'u') {
        hit = *r->p ? strchr(from, *r->p) : NULL;
        if (!hit)
            bad(r, "bad escape");
        else
            luaL_addchar(b, to[hit - from]);
        r->p++;
        return;
    }
    r->p++;
    c = hex4(r);
    if (c >= 0xdc00 && c <= 0xdfff)
        bad(r, "lone surrogate");
    if (c >= 0xd800 && c <= 0xdbff) {
        if (r->end - r->p < 6 || r->p[0] != '\\' || r->p[1] != 'u')
            bad(r, "lone surrogate");
        r->p += 2;
        unsigned low = hex4(r);
        if (low < 0xdc00 || low > 0xdfff)
            bad(r, "lone surrogate");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    add_utf8(b, c);
}

static void read_string(struct reader *r)
{
    const char *start = ++r->p;
    luaL_Buffer b;

    while (r->p < r->end && *r->p != '"' && *r->p != '\\' && (unsigned char)*r->p >= 0x20)
        r->p++;
    if (r->p < r->end && *r->p == '"') { /* most have no escape */
        lua_pushlstring(r->L, start, (size_t)(r->p++ - start));
        return;
    }
    luaL_buffinit(r->L, &b);
    for (;;) {
        luaL_addlstring(&b, start, (size_t)(r->p - start));
        if (r->p == r->end)
            bad(r, "unfinished string");
        if ((unsigned char)*r->p < 0x20)
            bad(r, "control character in a string");
        if (*r->p++ == '"')
            break;
        read_escape(r, &b);
        start = r->p;
        while (r->p < r->end && *r->p != '"' && *r->p != '\\' && (unsigned char)*r->p >= 0x20)
            r->p++;
    }
    luaL_pushresult(&b);
}

static size_t digits(struct reader *r)
{
    const char *start = r->p;

    while (r->p < r->end && *r->p >= '0' && *r->p <= '9')
        r->p++;
    return (size_t)(r->p - start);
}

static void read_number(struct reader *r)
{
    const char *start = r->p;
    char text[64];
    bool integral = true;

    if (*r->p == '-')
        r->p++;
    const char *first = r->p;
    size_t n = digits(r);
    if (n == 0 || (n > 1 && *first == '0'))
        bad(r, "bad number");
    if (r->p < r->end && *r->p == '.') {
        integral = false;
        r->p++;
        if (digits(r) == 0)
            bad(r, "bad number");
    }
    if (r->p < r->end && (*r->p == 'e' || *r->p == 'E')) {
        integral = false;
        r->p++;
        if (r->p < r->end && (*r->p == '+' || *r->p == '-'))
            r->p++;
        if (digits(r) == 0)
            bad(r, "bad number");
    }
    n = (size_t)(r->p - start);
    if (n >= sizeof text) {
        bad(r, "number of more than 63 digits");
        return;
    }
    memcpy(text, start, n);
    text[n] = '\0';
    if (integral && n <= 18)
        lua_pushinteger(r->L, strtoll(text, NULL, 10));
    else if (!integral || !lua_stringtonumber(r->L, text))
        lua_pushnumber(r->L, strtod(text, NULL));
}

static void read_value(struct reader *r);

static void read_array(struct reader *r)
{
    lua_Integer n = 0;

    r->p++;
    lua_newtable(r->L);
    mark_array(r->L);
    skip_space(r);
    if (r->p < r->end && *r->p == ']') {
        r->p++;
        return;
    }
    for (;;) {
        read_value(r);
        lua_rawseti(r->L, -2, ++n);
        skip_space(r);
        if (r->p == r->end)
            bad(r, "unfinished array");
        char c = *r->p++;
        if (c == ']')
            return;
        if (c != ',')
            bad(r, "expected , or ]");
    }
}

static void read_object(struct reader *r)
{
    lua_State *L = r->L;

    r->p++;
    lua_newtable(L);
    skip_space(r);
    if (r->p < r->end && *r->p == '}') {
        r->p++;
        return;
    }
    for (;;) {
        skip_space(r);
        if (r->p == r->end || *r->p != '"')
            bad(r, "expected a key");
        read_string(r);
        lua_pushvalue(L, -1);
        if (lua_rawget(L, -3) != LUA_TNIL)
            bad(r, "the same key twice");
        lua_pop(L, 1);
        skip_space(r);
        if (r->p == r->end || *r->p++ != ':')
            bad(r, "expected :");
        read_value(r);
        lua_rawset(L, -3);
        skip_space(r);
        if (r->p == r->end)
            bad(r, "unfinished object");
        char c = *r->p++;
        if (c == '}')
            return;
        if (c != ',')
            bad(r, "expected , or }");
    }
}

static bool word(struct reader *r, const char *w, size_t n)
{
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, w, n) != 0)
        return false;
    r->p += n;
    return true;
}

static void read_value(struct reader *r)
{
    luaL_checkstack(r->L, 6, "json: too deep");
    if (++r->depth > DEPTH_MAX)
        bad(r, "nested deeper than 64");
    skip_space(r);
    if (r->p == r->end)
        bad(r, "unexpected end");
    if (*r->p == '{')
        read_object(r);
    else if (*r->p == '[')
        read_array(r);
    else if (*r->p == '"')
        read_string(r);
    else if (*r->p == '-' || (*r->p >= '0' && *r->p <= '9'))
        read_number(r);
    else if (word(r, "true", 4))
        lua_pushboolean(r->L, true);
    else if (word(r, "false", 5))
        lua_pushboolean(r->L, false);
    else if (word(r, "null", 4))
        lua_pushlightuserdata(r->L, NULL);
    else
        bad(r, "unexpected character");
    r->depth--;
}

void ep_lua_json_decode(lua_State *L, struct ep_str text)
{
    struct reader r = {L, text.p, text.p, text.p + text.n, 0};

    ep_lua_charge(L, text.n / 8);
    read_value(&r);
    skip_space(&r);
    if (r.p != r.end)
        bad(&r, "text behind the value");
}

/* --- writing: the text grows in a userdata at a fixed place of the stack --- */

struct writer {
    lua_State *L;
    char *p;
    size_t n, cap;
    int box;
    int depth;
};

static void put(struct writer *w, const void *p, size_t n)
{
    if (w->cap - w->n < n) {
        size_t cap = EP_MAX(w->cap * 2, w->n + n);
        char *bigger = lua_newuserdatauv(w->L, cap, 0);
        memcpy(bigger, w->p, w->n);
        lua_replace(w->L, w->box);
        w->p = bigger;
        w->cap = cap;
        ep_lua_charge(w->L, cap / 64);
    }
    memcpy(w->p + w->n, p, n);
    w->n += n;
}

static void write_string(struct writer *w, struct ep_str s)
{
    size_t from = 0;

    ep_lua_charge(w->L, s.n / 4 + 2);
    put(w, "\"", 1);
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        char escape[8];
        int n;

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        put(w, s.p + from, i - from);
        from = i + 1;
        if (c >= 0x20)
            n = snprintf(escape, sizeof escape, "\\%c", c);
        else if (c == '\n')
            n = snprintf(escape, sizeof escape, "\\n");
        else
            n = snprintf(escape, sizeof escape, "\\u%04x", c);
        put(w, escape, (size_t)n);
    }
    put(w, s.p + from, s.n - from);
    put(w, "\"", 1);
}

static void write_number(struct writer *w)
{
    lua_State *L = w->L;
    char text[40];
    int n;

    if (lua_isinteger(L, -1)) {
        n = snprintf(text, sizeof text, "%lld", (long long)lua_tointeger(L, -1));
    } else {
        double x = lua_tonumber(L, -1);
        if (!isfinite(x))
            luaL_error(L, "json: %f is no number in JSON", x);
        n = snprintf(text, sizeof text, "%.15g", x);
        if (strtod(text, NULL) < x || strtod(text, NULL) > x)
            n = snprintf(text, sizeof text, "%.17g", x);
    }
    put(w, text, (size_t)n);
}

static bool is_array(lua_State *L)
{
    bool marked;
    size_t n = lua_rawlen(L, -1), members = 0;

    if (lua_getmetatable(L, -1)) {
        luaL_getmetatable(L, ARRAY_CLASS);
        marked = lua_rawequal(L, -1, -2);
        lua_pop(L, 2);
        if (marked)
            return true;
    }
    if (n == 0)
        return false;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
        members++;
    return members == n;
}

static void write_value(struct writer *w);

static void write_table(struct writer *w)
{
    lua_State *L = w->L;
    bool first = true;

    ep_lua_charge(L, 2 * lua_rawlen(L, -1) + 8);
    if (is_array(L)) {
        lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
        put(w, "[", 1);
        for (lua_Integer i = 1; i <= n; i++) {
            if (i > 1)
                put(w, ",", 1);
            lua_rawgeti(L, -1, i);
            write_value(w);
            lua_pop(L, 1);
        }
        put(w, "]", 1);
        return;
    }
    put(w, "{", 1);
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "json: a key of an object must be a string, not a %s", luaL_typename(L, -2));
        if (!first)
            put(w, ",", 1);
        first = false;
        struct ep_str key;
        key.p = lua_tolstring(L, -2, &key.n);
        write_string(w, key);
        put(w, ":", 1);
        write_value(w);
    }
    put(w, "}", 1);
}

static void write_value(struct writer *w)
{
    lua_State *L = w->L;
    struct ep_str s;

    luaL_checkstack(L, 6, "json: too deep");
    if (++w->depth > DEPTH_MAX)
        luaL_error(L, "json: nested deeper than 64");
    switch (lua_type(L, -1)) {
    case LUA_TNIL:
        put(w, "null", 4);
        break;
    case LUA_TBOOLEAN:
        if (lua_toboolean(L, -1))
            put(w, "true", 4);
        else
            put(w, "false", 5);
        break;
    case LUA_TNUMBER:
        ep_lua_charge(L, NUMBER_COST);
        write_number(w);
        break;
    case LUA_TSTRING:
        s.p = lua_tolstring(L, -1, &s.n);
        write_string(w, s);
        break;
    case LUA_TTABLE:
        write_table(w);
        break;
    case LUA_TLIGHTUSERDATA:
        if (!lua_touserdata(L, -1)) {
            put(w, "null", 4);
            break;
        }
        /* fall through */
    default:
        luaL_error(L, "json: a %s can't be written", luaL_typename(L, -1));
    }
    w->depth--;
}

void ep_lua_json_encode(lua_State *L, int index)
{
    struct writer w = {.L = L, .cap = 256};

    index = lua_absindex(L, index);
    w.p = lua_newuserdatauv(L, w.cap, 0);
    w.box = lua_gettop(L);
    lua_pushvalue(L, index);
    write_value(&w);
    lua_pop(L, 1);
    lua_pushlstring(L, w.p, w.n);
    lua_replace(L, w.box);
}

static int decode(lua_State *L)
{
    ep_lua_json_decode(L, ep_lua_check_str(L, 1));
    return 1;
}

static int encode(lua_State *L)
{
    luaL_checkany(L, 1);
    ep_lua_json_encode(L, 1);
    return 1;
}

static int array(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    if (lua_getmetatable(L, 1))
        return luaL_error(L, "the table has a metatable already");
    mark_array(L);
    return 1;
}

int ep_lua_json_native(lua_State *L)
{
    static const luaL_Reg functions[] = {{"decode", decode}, {"encode", encode}, {"array", array}, {NULL, NULL}};

    luaL_newlib(L, functions);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    return 1;
}
