/* Running a script for a stream: its hooks, what they wait for, and how the walk goes on meanwhile (the table in
 * envoy.h).
 *
 * A coroutine goes on from a step of the walk, or from the answer of an httpCall(). Both come to settle(): what the
 * script waits for now says what the step answers, or what is asked of the stream when no step runs. */
#include <stdio.h>

#include "filter/chain.h"
#include "lua/script.h"

#define UNHEALTHY 5u

/* --- handles --- */

static void on_turn(struct ep_lua_pause *p);

static struct ep_envoy_handle *handle_take(struct ep_script *s, struct ep_stream *stream, bool request)
{
    lua_State *L = s->lua->L;
    struct ep_envoy_handle *h;

    if (s->n_idle) {
        h = s->idle[--s->n_idle];
    } else {
        h = ep_envoy_handle_new(L);
        h->ref = luaL_ref(L, LUA_REGISTRYINDEX);
        ep_list_init(&h->pause.node);
        h->pause.go_on = on_turn;
    }
    h->s = stream;
    h->script = &s->seen;
    h->request = request;
    h->index = stream->current;
    h->wait = EP_ENVOY_RUNS;
    h->whole = h->over = h->continued = h->has_body = h->has_chunks = h->in_head = h->pass_end = false;
    h->local = stream->local_reply;
    h->n_chunks++;
    h->chunk = NULL;
    h->n_calls = 0;
    return h;
}

static void thread_drop(struct ep_script *s, struct ep_envoy_handle *h, bool finished)
{
    h->over = true;
    h->chunk = NULL;
    ep_lua_pause_drop(s->lua, &h->pause);
    s->lua->owners[s->owner].held -= h->held;
    h->held = 0;
    if (!h->thread.L)
        return;
    ep_lua_thread_give(s->lua, h->thread, finished);
    h->thread.L = NULL;
}

static void handle_give(struct ep_script *s, struct ep_envoy_handle *h)
{
    if (!h)
        return;
    if (h->call)
        ep_http_call_cancel(h->call);
    h->call = NULL;
    thread_drop(s, h, false);
    h->s = NULL;
    if (s->n_idle < EP_SCRIPT_IDLE_HANDLES)
        s->idle[s->n_idle++] = h;
    else
        luaL_unref(s->lua->L, LUA_REGISTRYINDEX, h->ref);
}

/* --- running --- */

static void count(struct ep_script *s, enum ep_script_decision d)
{
    if (s->cells[d])
        ep_cell_add(s->cells[d], 1);
}

static void failed(struct ep_script *s, struct ep_script_state *state, struct ep_envoy_handle *h, struct ep_str error,
                   bool overrun)
{
    struct ep_stream *stream = h->s;
    char text[512];
    int n = snprintf(text, sizeof text, "%.*s", (int)EP_MIN(error.n, sizeof text - 1), error.p);

    count(s, overrun ? EP_SCRIPT_OVERRUN : EP_SCRIPT_ERROR);
    if (++s->failures < UNHEALTHY)
        ep_fail("lua", "script log: %.*s: %.*s", EP_STR_ARG(s->seen.name), n, text);
    else if (s->failures == UNHEALTHY)
        ep_warn("lua",
                "script %.*s is unhealthy: it failed %u times in a row, and is silent until it works again: %.*s",
                EP_STR_ARG(s->seen.name), UNHEALTHY, n, text);
    state->dropped = true;
    h->wait = EP_ENVOY_RUNS;
    thread_drop(s, h, false);
    if (s->on_error == EP_SCRIPT_ALLOW)
        return;
    h->wait = EP_ENVOY_RESPONDED;
    ep_stream_refuse(stream, &(struct ep_refusal){.kind = EP_REFUSE_POLICY,
                                                  .policy = s->seen.name,
                                                  .reason = overrun ? EP_STR("the script went over its budget")
                                                                    : EP_STR("the script failed"),
                                                  .code = overrun ? "policy.overrun" : "policy.error",
                                                  .grpc_status = -1});
    if (stream->reply_pending && h->request)
        stream->reply_from = (int8_t)(h->index - 1); /* no step may be running: then the stream can't know */
}

/* The run that ended left something behind, and the script goes on later. */
static void hold(struct ep_script *s, struct ep_envoy_handle *h)
{
    h->held += s->lua->ended_made;
    s->lua->owners[s->owner].held += s->lua->ended_made;
}

/* Runs the coroutine until it ends, waits or fails: h->wait says which (RUNS: it is over). What is on its stack are its
 * arguments. */
static void go_on(struct ep_script *s, struct ep_script_state *state, struct ep_envoy_handle *h, int n_args)
{
    uint64_t start = ep_clock_ns(), took;
    int n_results = 0;
    enum ep_lua_status status;

    if (h->wait != EP_ENVOY_WAITS_TURN)
        h->left = s->budget; /* of one run, up to where the script waits */
    h->wait = EP_ENVOY_RUNS;
    ep_lua_charge_to(s->lua, s->owner);
    status = ep_lua_resume(s->lua, h->thread.L, n_args, &n_results, &h->left, start);
    took = ep_clock_ns() - start;
    if (s->duration)
        ep_histogram_record(s->duration, took);
    if (status == EP_LUA_YIELDED || status == EP_LUA_PAUSED)
        hold(s, h);
    if (EP_UNLIKELY(status == EP_LUA_PAUSED)) {
        h->wait = EP_ENVOY_WAITS_TURN;
        ep_lua_spend(s->lua, &h->left, &s->budget, true, took);
        ep_lua_pause_add(s->lua, &h->pause);
        return;
    }
    if (status == EP_LUA_YIELDED && h->wait == EP_ENVOY_RESPONDED) {
        count(s, EP_SCRIPT_DENIED);
        thread_drop(s, h, false);
    } else if (status == EP_LUA_YIELDED && h->wait != EP_ENVOY_RUNS) {
        h->continued |= h->wait == EP_ENVOY_WAITS_CHUNK || h->wait == EP_ENVOY_WAITS_TRAILERS;
    } else if (status == EP_LUA_YIELDED) {
        failed(s, state, h, EP_STR("script performed an unexpected yield"), false);
    } else if (status != EP_LUA_OK) {
        if (h->call)
            ep_http_call_cancel(h->call);
        h->call = NULL;
        failed(s, state, h, ep_lua_error(h->thread.L), status == EP_LUA_OVERRUN);
    } else {
        s->failures = 0;
        count(s, EP_SCRIPT_ALLOWED);
        h->wait = EP_ENVOY_RUNS;
        thread_drop(s, h, true);
    }
}

/* What a headers step answers. A reply of ephor's own passes no body steps: its body, all here, is asked for. */
static enum ep_step settle_head(const struct ep_envoy_handle *h)
{
    switch (h->wait) {
    case EP_ENVOY_WAITS_BODY:
        return EP_BUFFER;
    case EP_ENVOY_WAITS_CHUNK:
    case EP_ENVOY_WAITS_TRAILERS:
        return !h->request && h->local ? EP_BUFFER : EP_NEXT;
    case EP_ENVOY_WAITS_CALL:
    case EP_ENVOY_WAITS_TURN:
        return EP_WAIT;
    case EP_ENVOY_RESPONDED:
        return EP_REPLIED;
    case EP_ENVOY_RUNS:
        break;
    }
    return EP_NEXT;
}

/* What a body or trailers step answers: with the end, a script that waits for more is told that there is none. */
static enum ep_step settle(struct ep_script *s, struct ep_script_state *state, struct ep_envoy_handle *h, bool end)
{
    h->pass_end = end;
    for (;;) {
        switch (h->wait) {
        case EP_ENVOY_WAITS_BODY:
        case EP_ENVOY_WAITS_CHUNK:
        case EP_ENVOY_WAITS_TRAILERS:
            h->chunk = NULL;
            if (!end)
                return EP_NEXT;
            h->whole = true;
            go_on(s, state, h, 0);
            break;
        default:
            return settle_head(h);
        }
    }
}

/* --- steps --- */

/* The source that this route wants; NULL: none. */
static const struct ep_script_source *choose(struct ep_script *s, struct ep_stream *stream,
                                             struct ep_script_state *state)
{
    const struct ep_route *route;
    const struct ep_pair *wanted;

    if (state->chosen)
        return state->source;
    state->chosen = true;
    state->source = &s->sources[0];
    route = s->by_route ? ep_stream_route(stream) : NULL;
    if (!route || !route->config)
        return state->source;
    wanted = route->config->scripts.v;
    for (size_t i = 0; i < route->config->scripts.n; i++) {
        if (!ep_str_eq(wanted[i].key, s->seen.name))
            continue;
        state->source = NULL;
        for (size_t k = 1; k < s->n_sources; k++)
            if (ep_str_eq(s->sources[k].name, wanted[i].value))
                state->source = &s->sources[k];
    }
    return state->source;
}

static enum ep_step start(struct ep_stream *stream, struct ep_script_state *state, bool request, bool end)
{
    struct ep_script *s = ep_filter_data(stream);
    struct ep_envoy_handle **slot = request ? &state->request : &state->response, *h = *slot;
    const struct ep_script_source *source = choose(s, stream, state);
    int ref = !source ? LUA_NOREF : request ? source->request_ref : source->response_ref;

    if (h && h->thread.L && request)
        return settle_head(h); /* it waited, and now needs the body */
    if (ref == LUA_NOREF || state->dropped)
        return EP_NEXT;
    if (h && h->thread.L && h->local == stream->local_reply)
        return settle_head(h);
    handle_give(s, h); /* of a response that another one took the place of */
    *slot = h = handle_take(s, stream, request);
    h->whole = end;
    h->in_head = true;
    h->thread = ep_lua_thread_take(s->lua);
    lua_rawgeti(h->thread.L, LUA_REGISTRYINDEX, ref);
    lua_rawgeti(h->thread.L, LUA_REGISTRYINDEX, h->ref);
    go_on(s, state, h, 1);
    return settle_head(h);
}

static enum ep_step body(struct ep_stream *stream, struct ep_script_state *state, struct ep_envoy_handle *h,
                         struct ep_body *b, bool end)
{
    struct ep_script *s = ep_filter_data(stream);

    if (!h || !h->thread.L)
        return EP_NEXT;
    h->in_head = false;
    if (h->wait == EP_ENVOY_WAITS_CHUNK && b->bytes) {
        h->chunk = b;
        go_on(s, state, h, 0);
    }
    return settle(s, state, h, end);
}

static enum ep_step trailers(struct ep_stream *stream, struct ep_script_state *state, struct ep_envoy_handle *h)
{
    if (!h || !h->thread.L)
        return EP_NEXT;
    h->in_head = false;
    return settle(ep_filter_data(stream), state, h, true);
}

enum ep_step ep_script_request_headers(struct ep_stream *s, void *state, bool end)
{
    return start(s, state, true, end);
}

enum ep_step ep_script_request_body(struct ep_stream *s, void *state_, struct ep_body *b, bool end)
{
    struct ep_script_state *state = state_;

    return body(s, state, state->request, b, end);
}

enum ep_step ep_script_request_trailers(struct ep_stream *s, void *state_)
{
    struct ep_script_state *state = state_;

    return trailers(s, state, state->request);
}

enum ep_step ep_script_response_headers(struct ep_stream *s, void *state, bool end)
{
    return start(s, state, false, end);
}

enum ep_step ep_script_response_body(struct ep_stream *s, void *state_, struct ep_body *b, bool end)
{
    struct ep_script_state *state = state_;

    return body(s, state, state->response, b, end);
}

enum ep_step ep_script_response_trailers(struct ep_stream *s, void *state_)
{
    struct ep_script_state *state = state_;

    return trailers(s, state, state->response);
}

void ep_script_finish(struct ep_stream *stream, void *state_)
{
    struct ep_script *s = ep_filter_data(stream);
    struct ep_script_state *state = state_;

    handle_give(s, state->request);
    handle_give(s, state->response);
    state->request = state->response = NULL;
}

/* --- an answer --- */

/* Whether the message that the script waits with is still wanted: meanwhile ephor may have answered by itself. */
static bool is_wanted(const struct ep_envoy_handle *h)
{
    const struct ep_stream *s = h->s;

    if (s->ending || s->reply_pending)
        return false;
    return h->request ? !s->request_done && !s->refused && !s->local_reply : s->local_reply == h->local;
}

/* What the script waits for is there, and no step runs. */
static void wake(struct ep_envoy_handle *h)
{
    struct ep_stream *stream = h->s;
    struct ep_script *s;
    struct ep_script_state *state;
    enum ep_step step;

    stream->current = (uint8_t)h->index;
    s = ep_filter_data(stream);
    state = stream->filter_state[h->index];
    if (!is_wanted(h)) {
        thread_drop(s, h, false);
        return;
    }
    go_on(s, state, h, 0);
    h->answer = NULL;
    step = h->in_head ? settle_head(h) : settle(s, state, h, h->pass_end);
    if (step == EP_BUFFER && h->request)
        ep_stream_again_request(stream);
    else if (step == EP_BUFFER)
        ep_stream_again_response(stream);
    else if (step == EP_NEXT && h->request)
        ep_stream_resume_request(stream);
    else if (step == EP_NEXT)
        ep_stream_resume_response(stream);
}

void ep_script_answered(void *handle, const struct ep_http_call_reply *reply)
{
    struct ep_envoy_handle *h = handle;

    h->call = NULL;
    h->answer = reply;
    wake(h);
}

static void on_turn(struct ep_lua_pause *p)
{
    wake(EP_CONTAINER(p, struct ep_envoy_handle, pause));
}
