/* link: ep_filters */
/* What was compiled once is the same function the next time: its results, its errors with file and line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include <lauxlib.h>

#include "lua/compiled.h"

/* What the chunk returns, or the error; in the buffer. */
static const char *result(struct ep_lua_compiled *c, const char *text, const char *name, char out[256])
{
    lua_State *L = luaL_newstate();

    if (ep_lua_compiled_load(c, L, ep_str(text), name) == LUA_OK)
        lua_pcall(L, 0, 1, 0);
    snprintf(out, 256, "%s", lua_tostring(L, -1));
    lua_close(L);
    return out;
}

static void test_the_second_is_as_the_first(void **state)
{
    static const struct {
        const char *text, *name, *says;
    } rows[] = {
        {"local x <const> = 20\nlocal function f(n) return n + x + 2 end\nreturn f(20)", "@a.lua", "42"},
        {"\n\nlocal t\nreturn t.x", "@dir/b.lua", "dir/b.lua:4: attempt to index a nil value (local 't')"},
        {"return 'a\\0b' .. #'a\\0b'", "@c.lua", "a"},
        {"", "@d.lua", "(null)"},
    };
    struct ep_lua_compiled *c = ep_lua_compiled_new();
    char out[256];

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++)
        for (unsigned k = 0; k < 3; k++) {
            assert_string_equal(result(c, rows[i].text, rows[i].name, out), rows[i].says);
            assert_int_equal(ep_lua_compiled_hits(c), i * 2 + k);
        }
    /* Its name is in its errors, so another name is another chunk. */
    assert_string_equal(result(c, rows[1].text, "@z.lua", out), "z.lua:4: attempt to index a nil value (local 't')");
    assert_int_equal(ep_lua_compiled_hits(c), EP_COUNT(rows) * 2);
    ep_lua_compiled_free(c);
}

static void test_what_is_no_text_of_lua_is_not_kept(void **state)
{
    struct ep_lua_compiled *c = ep_lua_compiled_new();
    char out[256];

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_non_null(strstr(result(c, "return (", "@a.lua", out), "a.lua:1:"));
        assert_non_null(strstr(result(c, "\x1bLuaT", "@b.lua", out), "attempt to load a binary chunk"));
    }
    assert_int_equal(ep_lua_compiled_hits(c), 0);
    ep_lua_compiled_free(c);
}

static void test_it_is_bounded(void **state)
{
    struct ep_lua_compiled *c = ep_lua_compiled_new();
    size_t n = (size_t)1 << 20;
    char *text = malloc(n + 64), out[256];

    (void)state;
    for (int i = 0; i < 40; i++) {
        int head = snprintf(text, 64, "local n = %d return n, '", i);
        memset(text + head, 'x', n);
        snprintf(text + (size_t)head + n, 2, "'");
        char wanted[16];
        snprintf(wanted, sizeof wanted, "%d", i);
        assert_string_equal(result(c, text, "@big.lua", out), wanted);
    }
    assert_string_equal(result(c, text, "@big.lua", out), "39");
    assert_int_equal(ep_lua_compiled_hits(c), 1);
    assert_true(ep_lua_compiled_bytes(c) <= EP_LUA_COMPILED_BYTES_MAX);
    free(text);
    ep_lua_compiled_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_second_is_as_the_first),
        cmocka_unit_test(test_what_is_no_text_of_lua_is_not_kept),
        cmocka_unit_test(test_it_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
