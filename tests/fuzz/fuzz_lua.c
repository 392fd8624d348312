/* link: ep_config */
/* The Lua host under hostile text. The first byte says what the rest is: 'j' JSON, which must come out the same after a
 * round; 'p' a pattern and, behind the first newline, its subject; else a script. Whatever it is, it ends within its
 * budget and leaves the state sound: a script run after it must work. */
#include <stdlib.h>

#include "lua/host.h"

static const struct ep_lua_budget budget = {100000, 2 << 20, 200 * EP_MS, 0};

static const char json_script[] = "local json, text = require 'ephor.json', ...\n"
                                  "local good, value = pcall(json.decode, text)\n"
                                  "if good then\n"
                                  "  local once = json.encode(value)\n"
                                  "  if #once < 20000 and json.encode(value) ~= once then error('BROKEN') end\n"
                                  "  json.decode(once)\n"
                                  "end";
static const char pattern_script[] =
    "local p, s = (...):match('^([^\\n]*)\\n?(.*)$')\n"
    "pcall(string.find, s, p) pcall(string.match, s, p, -3) pcall(string.gsub, s, p, '%0%1')\n"
    "pcall(function() for a in s:gmatch(p) do end end)\n"
    "pcall(string.gsub, s, p, {}) pcall(string.gsub, s, p, function(a) return a end)\n"
    "pcall(string.gsub, s, '.', p) pcall(string.format, p, s, 1, 2.5)";

struct input {
    struct ep_str script, argument;
};

static int run(lua_State *L)
{
    const struct input *in = lua_touserdata(L, 1);

    ep_lua_env_push(L, EP_LUA_ENVOY, NULL);
    ep_lua_compile(L, in->script, "@fuzz", 2);
    ep_lua_push(L, in->argument);
    lua_call(L, 1, 0);
    return 0;
}

static enum ep_lua_status play(struct ep_lua *l, struct ep_str script, struct ep_str argument)
{
    struct input in = {script, argument};
    enum ep_lua_status status;

    lua_pushcfunction(l->thread, run);
    lua_pushlightuserdata(l->thread, &in);
    status = ep_lua_call(l, l->thread, 1, 0, &budget, ep_clock_ns());
    if (status == EP_LUA_ERROR && script.p == json_script)
        assert(ep_str_search(ep_lua_error(l->thread), EP_STR("BROKEN")) < 0);
    lua_settop(l->thread, 0);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct ep_worker worker; /* one state for the whole run: what one input breaks, the next finds */
    struct ep_lua *l = worker.lua;
    struct ep_str rest = ep_str_n(data + 1, n ? n - 1 : 0);

    if (!l) {
        ep_log_set_level(EP_LOG_OFF);
        l = ep_lua_ref(&worker, NULL);
    }
    if (n == 0)
        return 0;
    if (data[0] == 'j')
        play(l, ep_str(json_script), rest);
    else if (data[0] == 'p')
        play(l, ep_str(pattern_script), rest);
    else
        play(l, rest, EP_STR("argument"));
    assert(play(l, EP_STR("local t = {} for i = 1, 10 do t[i] = ('x'):rep(i) end assert(#table.concat(t) == 55)"),
                EP_STR("")) == EP_LUA_OK);
    return 0;
}
