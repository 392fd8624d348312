/* link: ep_config */
/* Redaction: by built-in names and patterns over any text.
 *
 *   a text in pieces      comes out as the same text whole (where what may wait is as long as the text)
 *   JSON                  comes out as JSON, with as many messages; or is refused
 *   a string of JSON      says, its escapes undone, what the plain text becomes
 *   the result            is never longer than the job allows, and without a hit it is the text
 *
 * The first byte chooses the names, one a bit; the second a pattern (of the list below, or the first line of the text) and
 * the bound of the result; the third the pieces. */
#include <stdlib.h>

#include "agent/json.h"
#include "lua/host.h"
#include "lua/redact.h"

#define CHECK(x)  ((x) ? (void)0 : abort())
#define TEXT_MAX  2048u
#define BYTES_MAX (16u * TEXT_MAX)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct ep_lua_budget budget = {200000, 4 << 20, 200 * EP_MS, 0};
/* The longest hit is known, or it is a run, which waits where it may go on. */
static const char *const patterns[] = {"%d%d%d%d", "secret%-%w%w", "[abc]+", "%f[%w]x%d%f[%W]", "\xc3\xa4+", "[%z\1-\31]"};

struct input {
    struct ep_lua *lua;
    struct ep_arena *arena;
    struct ep_str text, pattern;
    unsigned kinds;
    struct ep_redaction *rules;
};

/* --- the rules --- */

static int add(lua_State *L)
{
    struct input *in = lua_touserdata(L, 1);

    lua_pushstring(L, "what");
    for (int k = 0; k < EP_SENSITIVE_KINDS; k++) {
        if (!(in->kinds >> k & 1))
            continue;
        lua_pushstring(L, ep_sensitive_name((enum ep_sensitive)k));
        lua_replace(L, 2);
        in->rules = ep_redact_arguments(L, in->arena, in->rules);
    }
    if (in->pattern.n) {
        ep_lua_push(L, in->pattern);
        lua_replace(L, 2);
        in->rules = ep_redact_arguments(L, in->arena, in->rules);
    }
    return 0;
}

static bool make_rules(struct input *in)
{
    lua_State *L = in->lua->thread;
    bool good;

    lua_pushcfunction(L, add);
    lua_pushlightuserdata(L, in);
    good = ep_lua_call(in->lua, L, 1, 0, &budget, ep_clock_ns()) == EP_LUA_OK;
    lua_settop(L, 0);
    return good && in->rules;
}

/* --- one text --- */

static bool redact(struct input *in, struct ep_redact_job *j)
{
    bool good;

    j->arena = in->arena;
    j->rules = in->rules;
    good = ep_redact(in->lua, in->lua->thread, j, &budget);
    lua_settop(in->lua->thread, 0);
    if (!good || j->refused)
        return false;
    CHECK(!j->changed || j->result.n <= j->bytes_max);
    CHECK(j->changed == (j->total > 0));
    CHECK(j->changed || j->as == EP_REDACT_PART || ep_str_eq(j->result, j->text));
    return true;
}

static bool plain(struct input *in, struct ep_str text, size_t bytes_max, struct ep_str *out)
{
    struct ep_redact_job j = {.text = text, .as = EP_REDACT_PLAIN, .bytes_max = bytes_max};

    if (!redact(in, &j))
        return false;
    *out = j.result;
    return true;
}

/* As a channel of a stream does it (lua/watch.c). */
static bool in_pieces(struct input *in, unsigned piece, size_t tail_max, struct ep_str *out)
{
    char *result = ep_arena_alloc(in->arena, BYTES_MAX);
    size_t seen = 0, n = 0;

    for (size_t at = 0; at < in->text.n;) {
        at = EP_MIN(at + 1 + (piece ? (at * 7 + piece) % piece : 0), in->text.n);
        struct ep_redact_job j = {.text = ep_str_n(in->text.p, at),
                                  .as = EP_REDACT_PART,
                                  .from = seen,
                                  .tail_max = tail_max,
                                  .last = at == in->text.n,
                                  .bytes_max = BYTES_MAX};
        if (!redact(in, &j))
            return false;
        CHECK(j.held >= seen && j.held <= at && (!j.last || j.held == at));
        CHECK(n + j.result.n <= BYTES_MAX);
        memcpy(result + n, j.result.p, j.result.n);
        n += j.result.n;
        seen = j.held;
    }
    *out = ep_str_n(result, n);
    return true;
}

/* --- JSON --- */

static void *from_arena(void *user, size_t n)
{
    return ep_arena_alloc(user, n);
}

static bool scan(struct input *in, struct ep_str text, struct ep_scan *out)
{
    static struct ep_scanner *scanner;
    char *copy = ep_arena_alloc(in->arena, text.n + EP_SCAN_PADDING);

    if (!scanner)
        CHECK(scanner = ep_scanner_new(1));
    memcpy(copy, text.p, text.n);
    memset(copy + text.n, 0, EP_SCAN_PADDING);
    return ep_scan_json(scanner, copy, text.n, from_arena, in->arena, out) == EP_SCAN_OK;
}

static void whole_json(struct input *in, size_t bytes_max)
{
    struct ep_redact_job j = {.text = in->text, .as = EP_REDACT_JSON, .bytes_max = bytes_max};
    struct ep_scan before, after;

    if (!scan(in, in->text, &before))
        before.n = 0;
    if (!redact(in, &j) || !before.n)
        return;
    CHECK(scan(in, j.result, &after));
    CHECK(before.n == after.n && before.batch == after.batch && before.duplicate == after.duplicate);
}

/* The text as a string of JSON with some of its characters escaped; empty: it is no UTF-8. */
static struct ep_str quoted(struct input *in, unsigned choice)
{
    static const char hex[] = "0123456789aBcDeF";
    char *out = ep_arena_alloc(in->arena, 6 * in->text.n + 32);
    size_t n = 0;

    memcpy(out, "{\"params\":[{\"x\":\"", 16);
    n = 16;
    for (size_t i = 0; i < in->text.n; i++) {
        unsigned char c = (unsigned char)in->text.p[i];
        if (c < 0x80 && (c < 0x20 || c == '"' || c == '\\' || (i * 5 + choice) % 7 < choice % 4)) {
            memcpy(out + n, "\\u00", 4);
            out[n + 4] = hex[c >> 4];
            out[n + 5] = hex[c & 15];
            n += 6;
        } else {
            out[n++] = (char)c;
        }
    }
    memcpy(out + n, "\"}]}", 4);
    return ep_str_n(out, n + 4);
}

static void string_of_json(struct input *in, unsigned choice)
{
    struct ep_redact_job j = {.text = quoted(in, choice), .as = EP_REDACT_JSON, .bytes_max = BYTES_MAX};
    struct ep_str expected, inside;
    struct ep_scan json;

    if (!scan(in, j.text, &json) || !plain(in, in->text, BYTES_MAX, &expected) || !redact(in, &j))
        return;
    CHECK(scan(in, j.result, &json) && j.result.n >= 20);
    inside = ep_str_n(j.result.p + 16, j.result.n - 20);
    CHECK(ep_redact_unescape(&j, inside, &inside));
    CHECK(ep_str_eq(inside, expected));
}

/* --- */

static void play(struct input *in, const uint8_t *head)
{
    static const size_t bounds[] = {BYTES_MAX, 0, 64, 512};
    size_t bytes_max = bounds[head[1] >> 4 & 3];
    struct ep_str whole, pieces;

    if (!make_rules(in))
        return;
    if (plain(in, in->text, BYTES_MAX, &whole) && in_pieces(in, head[2], TEXT_MAX, &pieces))
        CHECK(ep_str_eq(whole, pieces));
    in_pieces(in, head[2], head[2] % 32, &pieces);
    plain(in, in->text, bytes_max, &whole);
    whole_json(in, bytes_max);
    string_of_json(in, head[2]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct ep_worker worker; /* one state for the whole run */
    struct ep_chunk_pool chunks;
    struct ep_arena arena;
    struct input in = {.lua = worker.lua, .arena = &arena};
    unsigned which;

    if (!in.lua) {
        ep_log_set_level(EP_LOG_OFF);
        in.lua = ep_lua_ref(&worker, NULL);
    }
    if (n < 4 || n > TEXT_MAX)
        return 0;
    ep_chunk_pool_init(&chunks, 64);
    ep_arena_init(&arena, &chunks);
    in.kinds = data[0];
    in.text = ep_str_n(data + 3, n - 3);
    which = data[1] & 15;
    if (which >= 1 && which <= EP_COUNT(patterns))
        in.pattern = ep_str(patterns[which - 1]);
    else if (which == 15 && ep_str_next(&in.text, '\n', &in.pattern))
        in.kinds &= 3;
    play(&in, data);
    ep_arena_fini(&arena);
    ep_chunk_pool_fini(&chunks);
    return 0;
}
