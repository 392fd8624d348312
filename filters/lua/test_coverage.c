/* Coverage of policies by lines.
 *
 * Which lines ran, a hook says. Which lines could have run stands in the compiled code: Lua tells it for functions that
 * it holds (lua_getinfo, "L"), but not for those inside that were never made, and those are what one wants to know of.
 * So the code is dumped and its line tables are read; the form is that of Lua 5.4 (lundump.c, ldebug.c), whose version
 * the dump names. Instructions that Lua adds and that can't be reached are left out, or no function that returns early
 * would ever be covered whole: the return at its `end`, the one behind a tail call, the jump over `else` behind a return. */
#include "lua/testing.h"

#include <stdlib.h>

#define LINES_MAX 65536u

struct ep_test_coverage {
    struct ep_test_coverage_file {
        char *name; /* of the file */
        uint8_t *hit; /* a byte a line */
        unsigned n;
    } *files;
    size_t n_files;
};

static struct ep_test_coverage_file *file_of(struct ep_test_coverage *c, struct ep_str name)
{
    for (size_t i = 0; i < c->n_files; i++)
        if (ep_str_eq(ep_str(c->files[i].name), name))
            return &c->files[i];
    c->files = ep_realloc(c->files, (c->n_files + 1) * sizeof *c->files);
    c->files[c->n_files] = (struct ep_test_coverage_file){.name = ep_strndup(name.p, name.n)};
    return &c->files[c->n_files++];
}

static void on_line(lua_State *L, lua_Debug *ar)
{
    struct ep_test_coverage *c = ep_lua_of(L)->lines;
    struct ep_test_coverage_file *f;

    if (!lua_getinfo(L, "Sl", ar) || ar->source[0] != '@' || ar->currentline <= 0)
        return;
    if ((unsigned)ar->currentline >= LINES_MAX)
        return;
    f = file_of(c, ep_str(ar->source + 1));
    if ((unsigned)ar->currentline >= f->n) {
        unsigned n = EP_MAX((unsigned)ar->currentline + 1, f->n * 2);
        f->hit = ep_realloc(f->hit, n);
        memset(f->hit + f->n, 0, n - f->n);
        f->n = n;
    }
    f->hit[ar->currentline] = 1;
}

struct ep_test_coverage *ep_test_coverage_new(struct ep_lua *l)
{
    struct ep_test_coverage *c = ep_calloc(1, sizeof *c);

    l->lines = c;
    ep_lua_watch_lines(l, on_line);
    return c;
}

void ep_test_coverage_free(struct ep_test_coverage *c, struct ep_lua *l)
{
    if (!c)
        return;
    ep_lua_watch_lines(l, NULL);
    l->lines = NULL;
    for (size_t i = 0; i < c->n_files; i++) {
        free(c->files[i].name);
        free(c->files[i].hit);
    }
    free(c->files);
    free(c);
}

/* --- the lines that could run --- */

struct dump {
    const uint8_t *p, *end;
    uint8_t *lines; /* a byte a line: some instruction is there */
    bool good;
};

static uint8_t byte(struct dump *d)
{
    if (d->p == d->end)
        d->good = false;
    return d->good ? *d->p++ : 0;
}

static void skip(struct dump *d, size_t n)
{
    if ((size_t)(d->end - d->p) < n)
        d->good = false;
    else
        d->p += n;
}

/* Seven bits a byte, the highest first; the last byte has its top bit set. */
static size_t number(struct dump *d)
{
    size_t x = 0;
    uint8_t b = 0;

    while (d->good && !(b & 0x80)) {
        b = byte(d);
        x = x << 7 | (b & 0x7f);
    }
    return x;
}

static void skip_string(struct dump *d)
{
    size_t n = number(d);

    if (n > 1)
        skip(d, n - 1);
}

static void skip_constants(struct dump *d)
{
    for (size_t n = number(d); d->good && n > 0; n--) {
        switch (byte(d)) {
        case 0x03: /* an integer */
        case 0x13: /* a float */
            skip(d, 8);
            break;
        case 0x04: /* strings, short and long */
        case 0x14:
            skip_string(d);
            break;
        default: /* nil, false, true */
            break;
        }
    }
}

enum { JUMP = 56, TAIL_CALL = 69, RETURN = 70, RETURN1 = 72 }; /* lopcodes.h: the lowest 7 bits of 4 bytes */

static bool added(const uint8_t *code, size_t i, size_t n)
{
    unsigned before, op;

    if (i == n - 1)
        return true;
    if (i == 0)
        return false;
    before = code[(i - 1) * 4] & 0x7f;
    op = code[i * 4] & 0x7f;
    return before == TAIL_CALL || (op == JUMP && before >= RETURN && before <= RETURN1);
}

/* Steps from one instruction's line to the next; -128: the line is in the list of absolute ones. */
static void read_lines(struct dump *d, const uint8_t *code, size_t n_code, bool vararg, size_t line)
{
    size_t n = number(d);
    const uint8_t *steps = d->p;

    skip(d, n);
    size_t n_absolute = number(d);
    for (size_t i = 0; d->good && i < n; i++) {
        if ((int8_t)steps[i] != -128) {
            line = (size_t)((ptrdiff_t)line + (int8_t)steps[i]);
        } else if (n_absolute > 0) {
            number(d); /* which instruction: this one */
            line = number(d);
            n_absolute--;
        }
        bool prologue = vararg && i == 0;
        if (!prologue && i < n_code && line < LINES_MAX && !added(code, i, n_code))
            d->lines[line] = 1;
    }
    for (; d->good && n_absolute > 0; n_absolute--) {
        number(d);
        number(d);
    }
}

static void read_function(struct dump *d, unsigned depth)
{
    skip_string(d);
    size_t line = number(d);
    number(d); /* its last line */
    skip(d, 1);
    bool vararg = byte(d) != 0;
    skip(d, 1);
    size_t n_code = number(d);
    const uint8_t *code = d->p;
    skip(d, n_code * 4);
    skip_constants(d);
    skip(d, number(d) * 3); /* upvalues */
    for (size_t n = number(d); d->good && n > 0; n--) {
        if (depth == 0)
            d->good = false;
        else
            read_function(d, depth - 1);
    }
    read_lines(d, code, n_code, vararg, line);
    for (size_t n = number(d); d->good && n > 0; n--) { /* local variables */
        skip_string(d);
        number(d);
        number(d);
    }
    for (size_t n = number(d); d->good && n > 0; n--) /* names of upvalues */
        skip_string(d);
}

struct bytes {
    uint8_t *p;
    size_t n;
};

static int add_bytes(lua_State *L, const void *p, size_t n, void *to)
{
    struct bytes *b = to;

    (void)L;
    b->p = ep_realloc(b->p, b->n + n + 1);
    memcpy(b->p + b->n, p, n);
    b->n += n;
    return 0;
}

/* Marks them in `lines` for the function on top. False when the dump isn't what we know. */
static bool possible_lines(lua_State *L, uint8_t *lines)
{
    static const char header[] = LUA_SIGNATURE "\x54\0\x19\x93\r\n\x1a\n\x04\x08\x08";
    struct bytes b = {NULL, 0};
    struct dump d = {.lines = lines};

    lua_dump(L, add_bytes, &b, 0);
    d.p = b.p;
    d.end = b.p + b.n;
    d.good = b.n > sizeof header && memcmp(b.p, header, sizeof header - 1) == 0;
    skip(&d, sizeof header - 1 + 8 + 8); /* and an integer and a float, by which Lua knows its kind */
    skip(&d, 1);                         /* upvalues of the main function */
    read_function(&d, 200);
    free(b.p);
    return d.good;
}

static void add_missing(struct ep_test_lines *out, size_t *used, unsigned from, unsigned to)
{
    char range[32];
    int n = snprintf(range, sizeof range, from == to ? "%s%u" : "%s%u-%u", *used ? ", " : "", from, to);

    if (*used + (size_t)n + sizeof ", ..." > sizeof out->missing) {
        if (*used && out->missing[*used - 1] != '.')
            *used += (size_t)snprintf(out->missing + *used, sizeof out->missing - *used, ", ...");
        return;
    }
    memcpy(out->missing + *used, range, (size_t)n + 1);
    *used += (size_t)n;
}

void ep_test_coverage_of(lua_State *L, struct ep_test_coverage *c, const char *directory, struct ep_str file,
                         struct ep_test_lines *out)
{
    const struct ep_test_coverage_file *f = file_of(c, file);
    uint8_t *lines = lua_newuserdatauv(L, LINES_MAX, 0);
    size_t used = 0;
    unsigned from = 0, last = 0; /* a run of lines that could run and didn't */

    *out = (struct ep_test_lines){0};
    memset(lines, 0, LINES_MAX);
    lua_newtable(L);
    lua_pushfstring(L, "%s/%s", directory, file.p);
    ep_lua_read_file(L, lua_tostring(L, -1));
    ep_lua_compile(L, ep_lua_check_str(L, -1), "@coverage", -3);
    if (!possible_lines(L, lines))
        luaL_error(L, "the lines of %s can't be told: Lua's form of compiled code is not the one of 5.4", file.p);
    for (unsigned line = 1; line < LINES_MAX; line++) {
        if (!lines[line])
            continue;
        out->n++;
        if (line < f->n && f->hit[line]) {
            out->hit++;
            if (from)
                add_missing(out, &used, from, last);
            from = 0;
            continue;
        }
        from = from ? from : line;
        last = line;
    }
    if (from)
        add_missing(out, &used, from, last);
    lua_pop(L, 4);
}
