/* What policies can do to a call beside refusing it: route it, count, remember, tag. wait.c has what waits, redact.c bodies. */
#include <math.h>

#include "filter/chain.h"
#include "filter/memory.h"
#include "lua/object.h"
#include "lua/redact.h"
#include "upstream/upstream.h"

/* Seconds, or text such as "250ms". */
uint64_t ep_policy_duration(lua_State *L, int index)
{
    uint64_t ns = 0;

    if (lua_type(L, index) == LUA_TNUMBER) {
        double s = lua_tonumber(L, index);
        if (!(s >= 0 && s <= 1e9))
            luaL_argerror(L, index, "a duration is a number of seconds, 0 or more, or text such as '250ms'");
        return (uint64_t)(s * (double)EP_S);
    }
    if (!ep_parse_duration(ep_lua_check_str(L, index), &ns))
        luaL_argerror(L, index, "a duration is a number of seconds or text such as '250ms'");
    return ns;
}

/* --- route_to --- */

int ep_policy_route_to(lua_State *L)
{
    struct ep_policy_object *o = ep_policy_object_check(L);
    struct ep_str name = ep_lua_check_str(L, 2);
    const struct ep_view *view = o->s->view;
    const char *names[64];
    size_t n = 0;

    if (o->phase != EP_POLICY_CALL)
        return luaL_error(L, "route_to is for calls: a reply has been where it went");
    ep_lua_charge(L, 50);
    for (unsigned i = 0; view && i < view->n_clusters; i++) {
        struct ep_str cluster = ep_cluster_name(view->clusters[i]);
        if (ep_str_eq(cluster, name)) {
            if (!o->shadow && !ep_stream_route_to(o->s, view->clusters[i], cluster))
                return luaL_error(L, "route_to: no route of this listener matches the call");
            return 0;
        }
        if (n < EP_COUNT(names))
            names[n++] = cluster.p; /* names of the configuration end with a NUL */
    }
    if (ep_lua_of(L)->test) { /* there is no configuration */
        o->s->routed_to_name = ep_arena_str(&o->s->arena, o->shadow ? EP_STR("") : name);
        return 0;
    }
    const char *near = ep_nearest(name, names, n);
    return luaL_error(L, "route_to: there is no cluster '%s'%s%s%s", name.p, near ? "; did you mean '" : "",
                      near ? near : "", near ? "'?" : "");
}

/* --- meter --- */

static bool is_name(struct ep_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((ep_lower(s.p[i]) >= 'a' && ep_lower(s.p[i]) <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9') ||
              memchr("._-", s.p[i], 3)))
            return false;
    return s.n > 0 && s.n <= 64;
}

static uint64_t *meter_cell(struct ep_stats *stats, struct ep_policy *p, struct ep_str name)
{
    struct ep_policy_meter *m;

    for (m = p->meters; m < p->meters + p->n_meters; m++)
        if (ep_str_eq(m->name, name))
            return m->cell;
    if (p->n_meters == EP_POLICY_METERS_MAX - 1)
        name = EP_STR("other");
    else if (p->n_meters == EP_POLICY_METERS_MAX)
        return p->meters[EP_POLICY_METERS_MAX - 1].cell;
    m = &p->meters[p->n_meters++];
    memcpy(m->text, name.p, name.n);
    m->name = ep_str_n(m->text, name.n);
    m->cell = ep_stats_cell(stats, EP_METRIC_POLICY_METER, EP_LABELS(p->name, m->name));
    return m->cell;
}

int ep_policy_meter(lua_State *L)
{
    struct ep_policy_object *o = ep_policy_object_check(L);
    struct ep_str name = ep_lua_check_str(L, 2);
    lua_Integer n = luaL_optinteger(L, 3, 1);

    ep_lua_charge(L, 20);
    if (!is_name(name))
        return luaL_error(L, "meter: a name has 1 to 64 letters, digits, '.', '_' and '-'");
    if (n < 0 || n > (lua_Integer)1 << 53)
        return luaL_error(L, "meter: a counter only grows: n is 0 or more");
    if (o->s->worker->stats && !o->foresee)
        ep_cell_add(meter_cell(o->s->worker->stats, o->policy, name), (uint64_t)n);
    return 0;
}

/* --- remember, recall, count --- */

#define KEY_MAX   256u
#define VALUE_MAX 4096u
#define TTL_MAX   (7 * 24 * 3600 * EP_S)

struct slot {
    struct ep_memory *memory;
    char key[64 + 1 + KEY_MAX];
    struct ep_str name;
};

/* Each policy has keys of its own. */
static void slot_of(lua_State *L, struct ep_policy_object *o, struct slot *slot)
{
    struct ep_str key = ep_lua_check_text(L, 2), policy = o->policy->name;

    ep_lua_charge(L, 50);
    slot->memory = o->s->worker->memory;
    if (!slot->memory)
        luaL_error(L, "there is no memory here");
    if (key.n == 0 || key.n > KEY_MAX)
        luaL_error(L, "a key has 1 to %d bytes", (int)KEY_MAX);
    memcpy(slot->key, policy.p, policy.n);
    slot->key[policy.n] = '\0';
    memcpy(slot->key + policy.n + 1, key.p, key.n);
    slot->name = ep_str_n(slot->key, policy.n + 1 + key.n);
}

static uint64_t ttl_of(lua_State *L, int index)
{
    uint64_t ttl;

    if (lua_isnoneornil(L, index))
        luaL_argerror(L, index, "how long? Seconds, or text such as '10m'");
    ttl = ep_policy_duration(L, index);
    if (ttl == 0 || ttl > TTL_MAX)
        luaL_argerror(L, index, "a value is kept for more than 0s and at most 7d");
    return ttl;
}

/* Of a test the time that the test says. */
static uint64_t clock_of(const struct ep_lua *l)
{
    return l->test ? l->test_wall_ns : ep_clock_ns();
}

static void report(struct ep_lua *l, const struct ep_memory_change *c)
{
    struct ep_stats *stats = l->worker->stats;

    if (!stats)
        return;
    if (c->entries)
        ep_stats_add(stats, EP_METRIC_POLICY_MEMORY_ENTRIES, NULL, (uint64_t)c->entries);
    if (c->bytes)
        ep_stats_add(stats, EP_METRIC_POLICY_MEMORY_BYTES, NULL, (uint64_t)c->bytes);
    if (c->evicted)
        ep_stats_add(stats, EP_METRIC_POLICY_MEMORY_EVICTED, NULL, c->evicted);
}

/* remember(key, value, ttl); value nil forgets. */
int ep_policy_remember(lua_State *L)
{
    struct ep_policy_object *o = ep_policy_object_check(L);
    struct ep_memory_change change = {0};
    struct slot slot;

    slot_of(L, o, &slot);
    luaL_checkany(L, 3);
    if (o->foresee)
        return 0;
    if (lua_isnil(L, 3)) {
        ep_memory_remove(slot.memory, slot.name, &change);
    } else {
        uint64_t ttl = ttl_of(L, 4);
        ep_lua_json_encode(L, 3);
        struct ep_str value = ep_lua_check_str(L, -1);
        if (value.n > VALUE_MAX)
            return luaL_error(L, "a value to remember has at most %d bytes as JSON", (int)VALUE_MAX);
        ep_lua_charge(L, value.n / 16);
        if (!ep_memory_set(slot.memory, slot.name, value, ttl, clock_of(ep_lua_of(L)), &change))
            return luaL_error(L, "a value of %d bytes doesn't fit the memory of policies", (int)value.n);
    }
    report(ep_lua_of(L), &change);
    return 0;
}

/* recall(key): the value, or nil. */
int ep_policy_recall(lua_State *L)
{
    struct ep_policy_object *o = ep_policy_object_check(L);
    char value[VALUE_MAX];
    struct slot slot;
    size_t n;

    ep_policy_reads(o, EP_POLICY_READ_WORLD, EP_STR("recall"));
    slot_of(L, o, &slot);
    if (ep_memory_get(slot.memory, slot.name, value, sizeof value, &n, clock_of(ep_lua_of(L))))
        ep_lua_json_decode(L, ep_str_n(value, n));
    else
        lua_pushnil(L);
    return 1;
}

/* count(key, n, ttl): adds n and says how much it is now; the first of a window begins it. */
int ep_policy_count(lua_State *L)
{
    struct ep_policy_object *o = ep_policy_object_check(L);
    struct ep_memory_change change = {0};
    lua_Integer n = luaL_checkinteger(L, 3);
    uint64_t ttl = ttl_of(L, 4);
    struct slot slot;
    int64_t sum;

    ep_policy_reads(o, EP_POLICY_READ_WORLD, EP_STR("count"));
    if (o->foresee)
        return luaL_error(L, "count: not now");
    slot_of(L, o, &slot);
    if (!ep_memory_add(slot.memory, slot.name, n, ttl, clock_of(ep_lua_of(L)), &sum, &change))
        return luaL_error(L, "count: what is remembered under that key is no number");
    report(ep_lua_of(L), &change);
    lua_pushinteger(L, sum);
    return 1;
}

/* --- tags --- */

const struct ep_tag *ep_stream_tag_find(const struct ep_stream *s, struct ep_str space, struct ep_str key)
{
    for (const struct ep_tag *t = s->tags; t; t = t->next)
        if (ep_str_eq(t->key, key) && ep_str_eq(t->space, space))
            return t;
    return NULL;
}

bool ep_stream_tag(struct ep_stream *s, struct ep_str space, struct ep_str key, struct ep_str value)
{
    struct ep_tag **end = &s->tags;
    unsigned n = 0;

    for (; *end && !(ep_str_eq((*end)->key, key) && ep_str_eq((*end)->space, space)); n++)
        end = &(*end)->next;
    if (!*end) {
        if (n == EP_TAGS_MAX)
            return false;
        *end = EP_ARENA_NEW(&s->arena, struct ep_tag);
        (*end)->space = ep_arena_str(&s->arena, space);
        (*end)->key = ep_arena_str(&s->arena, key);
    }
    if (value.n > (*end)->room) { /* once an event: a long stream may not grow by it */
        (*end)->room = EP_MAX(value.n, 2 * (*end)->room);
        (*end)->value.p = ep_arena_alloc(&s->arena, (*end)->room);
    }
    memcpy((char *)(uintptr_t)(*end)->value.p, value.p, value.n);
    (*end)->value.n = value.n;
    return true;
}

/* --- redact --- */

int ep_policy_redact_action(lua_State *L)
{
    struct ep_policy_object *o = ep_policy_object_check(L);

    o->redactions = ep_redact_arguments(L, ep_stream_brief(o->s), o->redactions);
    return 0;
}
