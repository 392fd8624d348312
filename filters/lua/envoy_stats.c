/* stats() of Envoy's API: counters, gauges and histograms that a script makes, by name.
 *
 * They are series of ephor's own metrics, labelled by script and name, so that their number is bounded as all others'
 * is. Each worker counts for itself, and a scrape adds them up; value() is this worker's. */
#include "lua/envoy.h"
#include "observe/observe.h"

#define NAME_BYTES_MAX 128u
#define SERIES_COST    200u /* instructions */

struct counter {
    struct ep_envoy_object object;
    uint64_t *cell; /* NULL without statistics */
};

struct histogram {
    struct ep_envoy_object object;
    struct ep_histogram *h; /* of times; NULL: of other units, or no statistics */
    uint64_t scale;         /* nanoseconds a unit */
    uint64_t *sum, *count;
};

static struct ep_str check_name(lua_State *L)
{
    struct ep_str name = ep_lua_check_str(L, 2);

    if (name.n == 0 || name.n > NAME_BYTES_MAX || !ep_header_value_valid(name))
        luaL_error(L, "the name of a metric has 1 to %d bytes, and no control character", (int)NAME_BYTES_MAX);
    ep_lua_charge(L, SERIES_COST);
    return name;
}

static uint64_t *cell_of(struct ep_envoy_handle *h, enum ep_metric m, struct ep_str name)
{
    struct ep_stats *stats = h->s->worker->stats;

    return stats ? ep_stats_cell(stats, m, EP_LABELS(h->script->name, name)) : NULL;
}

static int new_counter(lua_State *L, enum ep_envoy_class class, enum ep_metric m)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_STATS);
    struct ep_str name = check_name(L);
    struct counter *c = ep_envoy_push_new(L, h, class, sizeof *c);

    c->cell = cell_of(h, m, name);
    return 1;
}

static int stats_counter(lua_State *L)
{
    return new_counter(L, EP_ENVOY_COUNTER, EP_METRIC_SCRIPT_COUNTER);
}

static int stats_gauge(lua_State *L)
{
    return new_counter(L, EP_ENVOY_GAUGE, EP_METRIC_SCRIPT_GAUGE);
}

static int stats_histogram(lua_State *L)
{
    static const struct {
        const char *name;
        uint64_t scale;
    } units[] = {
        {"unspecified", 0}, {"bytes", 0}, {"ms", EP_MS}, {"milliseconds", EP_MS}, {"microseconds", EP_US},
    };
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_STATS);
    struct ep_str name = check_name(L), unit = EP_STR("unspecified");
    struct ep_stats *stats = h->s->worker->stats;
    size_t i = 0;

    if (!lua_isnoneornil(L, 3))
        unit = ep_lua_check_str(L, 3);
    while (i < EP_COUNT(units) && !ep_str_eq(unit, ep_str(units[i].name)))
        i++;
    if (i == EP_COUNT(units))
        return luaL_error(L, "invalid histogram unit '%s'", unit.p);
    struct histogram *x = ep_envoy_push_new(L, h, EP_ENVOY_HISTOGRAM, sizeof *x);
    x->scale = units[i].scale;
    if (stats && x->scale) {
        x->h = ep_stats_histogram(stats, EP_METRIC_SCRIPT_DURATION, EP_LABELS(h->script->name, name));
    } else if (stats) {
        x->sum = cell_of(h, EP_METRIC_SCRIPT_VALUE_SUM, name);
        x->count = cell_of(h, EP_METRIC_SCRIPT_VALUE_COUNT, name);
    }
    return 1;
}

/* --- counting --- */

static uint64_t check_amount(lua_State *L)
{
    lua_Number n = luaL_checknumber(L, 2);

    if (!(n >= 0) || n > 9.0e15)
        luaL_error(L, "the amount must be >= 0 and at most 9e15");
    return (uint64_t)n;
}

#define COUNTS(function, class, amount, change)                                                                        \
    static int function(lua_State *L)                                                                                  \
    {                                                                                                                  \
        struct counter *c = ep_envoy_check_object(L, class);                                                           \
        uint64_t n = (amount);                                                                                         \
        if (c->cell)                                                                                                   \
            change;                                                                                                    \
        return 0;                                                                                                      \
    }
COUNTS(counter_inc, EP_ENVOY_COUNTER, 1, ep_cell_add(c->cell, n))
COUNTS(counter_add, EP_ENVOY_COUNTER, check_amount(L), ep_cell_add(c->cell, n))
COUNTS(gauge_inc, EP_ENVOY_GAUGE, 1, ep_cell_add(c->cell, n))
COUNTS(gauge_dec, EP_ENVOY_GAUGE, 1, ep_cell_add(c->cell, UINT64_MAX *n))
COUNTS(gauge_add, EP_ENVOY_GAUGE, check_amount(L), ep_cell_add(c->cell, n))
COUNTS(gauge_sub, EP_ENVOY_GAUGE, check_amount(L), ep_cell_add(c->cell, UINT64_MAX *n))
COUNTS(gauge_set, EP_ENVOY_GAUGE, check_amount(L), ep_cell_set(c->cell, n))

static int counter_value(lua_State *L)
{
    struct counter *c = ep_envoy_check_object(L, EP_ENVOY_COUNTER);

    lua_pushinteger(L, c->cell ? (lua_Integer)*c->cell : 0);
    return 1;
}

static int gauge_value(lua_State *L)
{
    struct counter *c = ep_envoy_check_object(L, EP_ENVOY_GAUGE);

    lua_pushinteger(L, c->cell ? (lua_Integer)*c->cell : 0);
    return 1;
}

static int record_value(lua_State *L)
{
    struct histogram *x = ep_envoy_check_object(L, EP_ENVOY_HISTOGRAM);
    uint64_t n = check_amount(L);

    if (x->h)
        ep_histogram_record(x->h, n > UINT64_MAX / x->scale ? UINT64_MAX : n * x->scale);
    if (x->sum) {
        ep_cell_add(x->sum, n);
        ep_cell_add(x->count, 1);
    }
    return 0;
}

void ep_envoy_stats_open(lua_State *L)
{
    static const luaL_Reg stats[] = {
        {"counter", stats_counter}, {"gauge", stats_gauge}, {"histogram", stats_histogram}, {NULL, NULL}};
    static const luaL_Reg counter[] = {
        {"inc", counter_inc}, {"add", counter_add}, {"value", counter_value}, {NULL, NULL}};
    static const luaL_Reg gauge[] = {{"inc", gauge_inc}, {"dec", gauge_dec},     {"add", gauge_add}, {"sub", gauge_sub},
                                     {"set", gauge_set}, {"value", gauge_value}, {NULL, NULL}};
    static const luaL_Reg histogram[] = {{"recordValue", record_value}, {NULL, NULL}};

    ep_envoy_class(L, EP_ENVOY_STATS, stats, NULL);
    ep_envoy_class(L, EP_ENVOY_COUNTER, counter, NULL);
    ep_envoy_class(L, EP_ENVOY_GAUGE, gauge, NULL);
    ep_envoy_class(L, EP_ENVOY_HISTOGRAM, histogram, NULL);
}
