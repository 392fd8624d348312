/* What it costs to know a call: `bench_agent ROW N` takes one request through the filter `agent` N times, head and body, and
 * prints the nanoseconds of one; `bench_agent list` names the rows. bench/policies.py runs them with the others.
 *
 * A request is what a client sends: its stream's arena and the references to the body's slab are made and given back each time. */
#include "agent/agent.h"

#include <stdio.h>
#include <stdlib.h>

#include "filter/chain.h"
#include "observe/observe.h"

extern const struct ep_filter ep_filter_agent;

enum body { BODY_TOOLS_CALL, BODY_MANY_ARGUMENTS, BODY_CHAT };

static const struct row {
    const char *name, *path;
    enum body body;
    size_t bytes;
    const char *protocol, *named; /* what must come out: else the figure is of something else */
} rows[] = {
    {"recognise tools/call of 2 KiB", "/mcp", BODY_TOOLS_CALL, 2048, "mcp", "search"},
    {"the same, 50 arguments", "/mcp", BODY_MANY_ARGUMENTS, 2048, "mcp", "search"},
    {"recognise chat completion of 64 KiB", "/v1/chat/completions", BODY_CHAT, 65536, "openai", "gpt-4o"},
};

struct scene {
    struct ep_worker worker;
    struct ep_view view;
    struct ep_listener_config listener;
    struct ep_filter_instance instance;
    struct ep_chain chain;
    const struct row *row;
    struct ep_slab *slab;
    size_t bytes;
    char length[16];
};

static void require(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s\n", what);
        exit(1);
    }
}

/* What bench/run.py sends: one long argument. */
static size_t tools_call(char *out, size_t room, size_t bytes)
{
    size_t n = (size_t)snprintf(out, room, "{\"method\":\"tools/call\",\"params\":{\"name\":\"search\",\"arguments\":{\"query\":\"");

    while (n + 50 < bytes)
        n += (size_t)snprintf(out + n, room - n, "where did the time go ");
    return n + (size_t)snprintf(out + n, room - n, "\"}},\"jsonrpc\":\"2.0\",\"id\":7}");
}

static size_t many_arguments(char *out, size_t room, size_t bytes)
{
    size_t n = (size_t)snprintf(out, room, "{\"method\":\"tools/call\",\"params\":{\"name\":\"search\",\"arguments\":{\"limit\":10");

    for (unsigned i = 0; n + 40 < bytes; i++)
        n += (size_t)snprintf(out + n, room - n, ",\"field_%02u\":\"the weather in Athens\"", i);
    return n + (size_t)snprintf(out + n, room - n, "}},\"jsonrpc\":\"2.0\",\"id\":7}");
}

static size_t chat(char *out, size_t room, size_t bytes)
{
    size_t n = (size_t)snprintf(out, room, "{\"model\":\"gpt-4o\",\"stream\":true,\"messages\":[");

    for (unsigned i = 0; n + 420 < bytes; i++) {
        n += (size_t)snprintf(out + n, room - n, "%s{\"role\":\"%s\",\"content\":\"", i ? "," : "", i & 1 ? "assistant" : "user");
        for (unsigned k = 0; k < 12; k++)
            n += (size_t)snprintf(out + n, room - n, "a sentence of what was said, %03u; ", i);
        n += (size_t)snprintf(out + n, room - n, "\"}");
    }
    return n + (size_t)snprintf(out + n, room - n, "]}");
}

/* callgrind counts from here. */
__attribute__((noinline, noclone, used, externally_visible)) void measured(struct scene *s, unsigned n)
{
    const struct ep_filter *f = s->instance.filter;
    static struct ep_stream stream;
    static _Alignas(16) char state[1024];

    require(f->stream_size <= sizeof state, "the filter's state grew");
    for (unsigned i = 0; i < n; i++) {
        struct ep_stream *st = &stream;
        struct ep_leg leg = {.version = EP_HTTP_2};

        memset(&stream, 0, sizeof stream);
        memset(state, 0, f->stream_size);
        st->worker = &s->worker;
        st->view = &s->view;
        st->chain = &s->chain;
        st->down = &leg;
        st->protocol = &ep_protocol_http;
        ep_arena_init(&st->arena, &s->worker.chunks);
        ep_headers_init(&st->request.headers, &st->arena);
        ep_headers_append(&st->request.headers, EP_HDR_METHOD, EP_STR(":method"), EP_STR("POST"));
        ep_headers_append(&st->request.headers, EP_HDR_PATH, EP_STR(":path"), ep_str(s->row->path));
        ep_headers_add_id(&st->request.headers, EP_HDR_CONTENT_TYPE, EP_STR("application/json"));
        ep_headers_add_id(&st->request.headers, EP_HDR_ACCEPT, EP_STR("application/json, text/event-stream"));
        ep_headers_add_id(&st->request.headers, EP_HDR_CONTENT_LENGTH, ep_str(s->length));
        require(f->request_headers(st, state, false) == EP_BUFFER, "the body wasn't asked for");
        ep_body_push(&st->request.body, (struct ep_slice){ep_slab_ref(s->slab), s->slab->data, s->bytes}, &s->worker.slabs);
        require(f->request_body(st, state, &st->request.body, true) == EP_NEXT, "the body was refused");
        if (i == 0) {
            struct ep_str named = st->call.tool.n ? st->call.tool : st->call.model;
            require(ep_str_eq(st->call.protocol, ep_str(s->row->protocol)) && ep_str_eq(named, ep_str(s->row->named)),
                    "it was taken for another call");
        }
        ep_body_fini(&st->request.body);
        ep_headers_fini(&st->request.headers);
        ep_arena_fini(&st->arena);
    }
}

static size_t (*const write_body[])(char *out, size_t room, size_t bytes) = {
    [BODY_TOOLS_CALL] = tools_call, [BODY_MANY_ARGUMENTS] = many_arguments, [BODY_CHAT] = chat};

static void set_up(struct scene *s, const struct row *row)
{
    struct ep_error err = {""};
    size_t room = row->bytes + 1024;

    ep_log_set_level(EP_LOG_OFF);
    ep_chunk_pool_init(&s->worker.chunks, 16);
    ep_slab_pool_init(&s->worker.slabs, 4);
    s->worker.stats = ep_stats_new();
    s->view.worker = &s->worker;
    s->listener.name = EP_STR("inbound");
    s->chain = (struct ep_chain){.config = &s->listener, .view = &s->view, .filters = &s->instance, .n_filters = 1};
    s->instance = (struct ep_filter_instance){
        .filter = &ep_filter_agent, .worker = &s->worker, .view = &s->view, .chain = &s->chain};
    s->row = row;
    s->listener.max_body_bytes = 1 << 20;
    require(ep_filter_agent.load(&s->instance, &err), err.text);
    s->slab = ep_slab_new_sized(&s->worker.slabs, room);
    s->bytes = write_body[row->body]((char *)s->slab->data, room, row->bytes);
    snprintf(s->length, sizeof s->length, "%zu", s->bytes);
}

int main(int argc, char **argv)
{
    static struct scene s;
    unsigned n = argc > 2 ? (unsigned)atoi(argv[2]) : 1000;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        if (argc < 2 || strcmp(argv[1], "list") == 0) {
            printf("%s\n", rows[i].name);
            continue;
        }
        if (strcmp(rows[i].name, argv[1]) != 0)
            continue;
        set_up(&s, &rows[i]);
        measured(&s, 100);
        uint64_t start = ep_clock_ns();
        measured(&s, n);
        printf("%.1f\n", (double)(ep_clock_ns() - start) / n);
        ep_slab_unref(s.slab);
        return 0;
    }
    return argc >= 2 && strcmp(argv[1], "list") != 0;
}
