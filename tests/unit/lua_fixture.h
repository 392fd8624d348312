/* For the tests of filters/lua and filters/constitution.c: a made-up stream, and stand-ins for what the chain gives to
 * filters, which note what was asked of them. With LUA_FIXTURE_REAL there are none: for tests that also run `ephor test`, which
 * plays streams of its own. */
#ifndef LUA_FIXTURE_H
#define LUA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "filter/chain.h"
#include "filter/constitution_config.h"
#include "filter/memory.h"
#include "filter/policies_config.h"
#include "observe/observe.h"

struct play {
    struct ep_worker worker;
    struct ep_view view;
    struct ep_chain chain;
    struct ep_listener_config listener;
    struct ep_policies_config policies;
    struct ep_constitution_config constitution;
    struct ep_filter_instance instance;
    struct ep_server_listener server;
    char directory[64];
    /* what the filter did */
    unsigned refusals, replies, resumed_request, resumed_response, routes_cleared;
    struct ep_refusal refusal;
    char reason[600], code[80], reply_body[600];
    unsigned reply_status;
    struct ep_str reply_type;
    struct ep_headers reply_headers;
    struct ep_arena arena; /* of the reply's headers */
    unsigned grpc_status;
};

/* The stream knows its play. */
struct fake_stream {
    struct ep_stream s;
    struct play *play;
    void *state;
};

static inline struct play *play_of(struct ep_stream *s)
{
    return EP_CONTAINER(s, struct fake_stream, s)->play;
}

/* --- stand-ins --- */
static inline void note_refusal(struct ep_stream *s, const struct ep_refusal *r)
{
    struct play *p = play_of(s);

    p->refusals++;
    p->refusal = *r;
    snprintf(p->reason, sizeof p->reason, "%.*s", EP_STR_ARG(r->reason));
    snprintf(p->code, sizeof p->code, "%s", r->code);
}

#ifdef LUA_FIXTURE_REAL
static const struct ep_protocol silent = {.name = "silent", .refuse = note_refusal};
#else

struct ep_filter_instance *ep_filter_self(struct ep_stream *s)
{
    return &play_of(s)->instance;
}

void ep_stream_refuse(struct ep_stream *s, const struct ep_refusal *r)
{
    s->refused = true;
    note_refusal(s, r);
}

void ep_stream_refuse_part(struct ep_stream *s, struct ep_refusal *r)
{
    ep_stream_refuse(s, r);
}

void ep_stream_reply(struct ep_stream *s, unsigned status, struct ep_str content_type, struct ep_str body,
                     const struct ep_reply_header *extra, size_t n_extra)
{
    struct play *p = play_of(s);

    p->replies++;
    p->reply_status = status;
    p->reply_type = ep_arena_str(&p->arena, content_type);
    snprintf(p->reply_body, sizeof p->reply_body, "%.*s", EP_STR_ARG(body));
    for (size_t i = 0; i < n_extra; i++)
        ep_headers_add(&p->reply_headers, extra[i].name, extra[i].value);
}

void ep_stream_reply_grpc(struct ep_stream *s, unsigned grpc_status, struct ep_str message)
{
    struct play *p = play_of(s);

    p->replies++;
    p->grpc_status = grpc_status;
    snprintf(p->reply_body, sizeof p->reply_body, "%.*s", EP_STR_ARG(message));
}

static void replace(struct ep_stream *s, struct ep_message *m, struct ep_str body)
{
    ep_body_fini(&m->body);
    ep_body_push_copy(&m->body, body.p, body.n, &s->worker->slabs);
    if (ep_headers_find_id(&m->headers, EP_HDR_CONTENT_LENGTH))
        ep_headers_set_id(&m->headers, EP_HDR_CONTENT_LENGTH, ep_arena_printf(&s->arena, "%zu", body.n));
}

void ep_stream_set_request_body(struct ep_stream *s, struct ep_str body)
{
    replace(s, &s->request, body);
}

void ep_stream_set_response_body(struct ep_stream *s, struct ep_str body)
{
    replace(s, &s->response, body);
}

const struct ep_route *ep_stream_route(struct ep_stream *s)
{
    return s->route;
}

void ep_stream_resume_request(struct ep_stream *s)
{
    play_of(s)->resumed_request++;
}

void ep_stream_resume_response(struct ep_stream *s)
{
    play_of(s)->resumed_response++;
}

bool ep_stream_route_to(struct ep_stream *s, struct ep_cluster *cluster, struct ep_str name)
{
    s->routed_to = cluster;
    s->routed_to_name = name;
    return true;
}

void ep_stream_clear_route(struct ep_stream *s)
{
    play_of(s)->routes_cleared++;
}

void ep_stream_again_request(struct ep_stream *s)
{
    (void)s;
}

void ep_stream_again_response(struct ep_stream *s)
{
    (void)s;
}

struct ep_str ep_stream_method(const struct ep_stream *s)
{
    return ep_headers_get_id(&s->request.headers, EP_HDR_METHOD);
}

struct ep_str ep_stream_path(const struct ep_stream *s)
{
    return ep_headers_get_id(&s->request.headers, EP_HDR_PATH);
}

struct ep_str ep_stream_authority(const struct ep_stream *s)
{
    return ep_headers_get_id(&s->request.headers, EP_HDR_AUTHORITY);
}

struct ep_str ep_stream_decision(struct ep_stream *s)
{
    return s->decision_id = EP_STR("decision");
}

const char *ep_blind_reason_name(enum ep_blind_reason r)
{
    static const char *const names[] = {"not", "encrypted", "encoding", "too_large", "streamed", "unknown"};
    return names[r];
}

#endif

/* proxy/config has the real one. */
void ep_check_error(struct ep_checker *c, const void *object, const char *key, const char *format, ...)
{
    (void)c;
    (void)object;
    (void)format;
    fail_msg("the configuration is bad at %s", key);
}

/* --- the stage --- */

static inline void play_init(struct play *p)
{
    memset(p, 0, sizeof *p);
    ep_chunk_pool_init(&p->worker.chunks, 16);
    ep_slab_pool_init(&p->worker.slabs, 4);
    p->worker.stats = ep_stats_new();
    p->worker.memory = ep_memory_new();
    ep_wheel_init(&p->worker.wheel, 0);
    ep_list_init(&p->worker.later);
    p->view.worker = &p->worker;
    p->listener.name = EP_STR("inbound");
    p->chain.config = &p->listener;
    p->chain.view = &p->view;
    p->instance.worker = &p->worker;
    p->instance.view = &p->view;
    p->instance.chain = &p->chain;
    ep_arena_init(&p->arena, &p->worker.chunks);
    ep_headers_init(&p->reply_headers, &p->arena);
    snprintf(p->directory, sizeof p->directory, "/tmp/ephor-lua-XXXXXX");
    assert_non_null(mkdtemp(p->directory));
    p->policies.directory = ep_str(p->directory);
    p->view.policies_config = &p->policies;
    p->view.constitution_config = &p->constitution;
}

static inline bool play_load(struct play *p, const struct ep_filter *f, const void *config, struct ep_error *err)
{
    p->instance.filter = f;
    p->instance.config = config;
    p->instance.data = NULL;
    return f->load(&p->instance, err);
}

static inline void play_fini(struct play *p)
{
    char command[128];

    if (p->instance.filter && p->instance.data)
        p->instance.filter->unload(&p->instance);
    assert_null(p->worker.lua);
    ep_headers_fini(&p->reply_headers);
    ep_arena_fini(&p->arena);
    ep_stats_free(p->worker.stats);
    ep_memory_free(p->worker.memory);
    ep_slab_pool_fini(&p->worker.slabs);
    ep_chunk_pool_fini(&p->worker.chunks);
    snprintf(command, sizeof command, "rm -rf %s", p->directory);
    assert_int_equal(system(command), 0);
}

static inline void play_file(struct play *p, const char *name, const char *text)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", p->directory, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static inline void stream_init(struct fake_stream *f, struct play *p)
{
    static const char *const request[][2] = {
        {":method", "POST"},   {":scheme", "http"},  {":authority", "Tools.agents:8080"},
        {":path", "/mcp?x=1"}, {"x-tenant", "acme"}, {"x-twice", "a"},
        {"x-twice", "b"},
    };

    memset(f, 0, sizeof *f);
    f->play = p;
    f->s.worker = &p->worker;
    f->s.chain = &p->chain;
    f->s.view = &p->view;
    ep_arena_init(&f->s.arena, &p->worker.chunks);
    ep_headers_init(&f->s.request.headers, &f->s.arena);
    ep_headers_init(&f->s.response.headers, &f->s.arena);
    ep_body_init(&f->s.request.body);
    ep_body_init(&f->s.response.body);
    for (size_t i = 0; i < EP_COUNT(request); i++)
        ep_headers_add(&f->s.request.headers, ep_str(request[i][0]), ep_str(request[i][1]));
#ifdef LUA_FIXTURE_REAL
    p->chain.filters = &p->instance;
    p->chain.n_filters = 1;
    p->server.name = p->listener.name;
    f->s.listener = &p->server;
    f->s.protocol = &silent;
    f->s.route_known = true;
#endif
    f->s.peer_id = EP_STR("spiffe://cluster.local/ns/agents/sa/planner");
    f->s.call.protocol = EP_STR("mcp");
    f->s.call.method = EP_STR("tools/call");
    f->s.call.tool = EP_STR("search");
    f->state = ep_arena_zalloc(&f->s.arena, p->instance.filter->stream_size + 8);
}

static inline void stream_fini(struct fake_stream *f)
{
    if (f->play->instance.filter->finish)
        f->play->instance.filter->finish(&f->s, f->state);
    ep_headers_fini(&f->s.request.headers);
    ep_headers_fini(&f->s.response.headers);
    ep_body_fini(&f->s.request.body);
    ep_body_fini(&f->s.response.body);
    ep_arena_fini(&f->s.arena);
}

static inline struct ep_str request_header(const struct fake_stream *f, const char *name)
{
    return ep_headers_get(&f->s.request.headers, ep_str(name));
}

#define assert_str_equal(given, wanted)                                                                                \
    do {                                                                                                               \
        struct ep_str given_ = (given);                                                                                \
        assert_int_equal(given_.n, strlen(wanted));                                                                    \
        assert_memory_equal(given_.p, wanted, given_.n);                                                               \
    } while (0)
#define assert_contains(text, part)                                                                                    \
    do {                                                                                                               \
        if (!strstr(text, part))                                                                                       \
            fail_msg("'%s' is not in '%s'", part, text);                                                               \
    } while (0)

/* A test's setup and teardown: the state is a play. */
static inline int play_setup(void **state)
{
    struct play *p = malloc(sizeof *p);

    play_init(p);
    *state = p;
    ep_log_set_level(EP_LOG_OFF);
    return 0;
}

static inline int play_teardown(void **state)
{
    play_fini(*state);
    free(*state);
    return 0;
}

#endif
