/* For the tests of the filter `lua`: scripts on a made-up stream. */
#ifndef LUA_SCRIPT_PLAY_H
#define LUA_SCRIPT_PLAY_H

#include "lua_fixture.h"

#include "lua/host.h"

extern const struct ep_filter ep_filter_lua;

/* As in script.c: what the schema fills. */
struct config {
    struct ep_str name, code, file;
    int on_error;
    struct ep_vec sources;
    struct ep_str context;
    struct ep_policies_budget *budget;
};

static inline int setup(void **state)
{
    struct play *p = malloc(sizeof *p);

    play_init(p);
    p->view.policies_config = NULL;
    *state = p;
    ep_log_set_level(EP_LOG_OFF);
    return 0;
}

static inline int teardown(void **state)
{
    play_fini(*state);
    free(*state);
    return 0;
}

static inline void load_script(struct play *p, struct config *c, const char *code)
{
    struct ep_error err = {""};

    if (p->instance.data) {
        p->instance.filter->unload(&p->instance);
        p->instance.data = NULL;
    }
    *c = (struct config){.name = EP_STR("s"), .code = ep_str(code), .on_error = c->on_error};
    if (!play_load(p, &ep_filter_lua, c, &err))
        fail_msg("%s", err.text);
}

static inline uint64_t decisions(struct play *p, const char *decision)
{
    return *ep_stats_cell(p->worker.stats, EP_METRIC_POLICY_DECISIONS, EP_LABELS(EP_STR("s"), ep_str(decision)));
}

static inline enum ep_step request(struct fake_stream *f, bool end)
{
    return ep_filter_lua.request_headers(&f->s, f->state, end);
}

static inline enum ep_step request_body(struct fake_stream *f, const char *body)
{
    if (*body)
        ep_body_push_copy(&f->s.request.body, body, strlen(body), &f->s.worker->slabs);
    return ep_filter_lua.request_body(&f->s, f->state, &f->s.request.body, true);
}

/* Runs the body of envoy_on_request, which must not fail, on a request without a body. */
static inline void passes(struct play *p, const char *code)
{
    struct config c = {.on_error = 0};
    struct fake_stream f;
    char text[4608];

    snprintf(text, sizeof text, "function envoy_on_request(h)\n%s\nend", code);
    load_script(p, &c, text);
    stream_init(&f, p);
    ep_log_set_level(EP_LOG_ERROR);
    enum ep_step step = request(&f, true);
    ep_log_set_level(EP_LOG_OFF);
    if (step != EP_NEXT)
        fail_msg("failed: %s", code);
    stream_fini(&f);
}

/* The error that the code raises is compared inside Lua, where it is made. */
static inline void raises(struct play *p, const char *code, const char *error)
{
    char text[4096];

    snprintf(text, sizeof text,
             "local ok, e = pcall(function() %s end)\n"
             "if ok or not e:find([==[%s]==], 1, true) then error('got: ' .. tostring(e)) end",
             code, error);
    passes(p, text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
