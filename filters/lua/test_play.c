/* A stream made of a table goes through the filter `policies`: t.stream of `ephor test`, and each line of a replay.
 *
 * The steps are called as the walk of the proxy calls them, with a chain of this one filter, and refusals go the proxy's
 * way (filter/reply.c) up to where they would be written to a connection. Nothing waits: `ephor test` answers for the
 * network, and its clock stands still. */
#include "agent/agent.h"
#include "agent/events.h"
#include "filter/chain.h"
#include "filter/refusal.h"
#include "lua/testing.h"

extern const struct ep_filter ep_filter_policies;

/* In place of a reset, of which a leg would tell the client. */
static void cut_midstream(struct ep_stream *s, const struct ep_refusal *r)
{
    struct ep_test_stream *f = EP_CONTAINER(s, struct ep_test_stream, s);

    if (f->real->refuse_midstream && ep_agent_midstream_events(s))
        f->real->refuse_midstream(s, r);
    f->cut = !s->midway;
    s->midway = true;
}

/* A table has an id as text; a refusal repeats the bytes that came. */
static void give_ids(struct ep_stream *s)
{
    for (struct ep_call *c = &s->call; c; c = c->next) {
        struct ep_json j;
        if (c->notification || c->id_raw.n)
            continue;
        ep_json_init(&j);
        ep_json_str(&j, c->id_text.n ? c->id_text : EP_STR("1"));
        c->id_raw = ep_json_take(&j, &s->arena);
    }
}

bool ep_test_play_request(struct ep_test_stream *f, struct ep_policy_set *set)
{
    struct ep_stream *s = &f->s;
    const struct ep_agent_protocol *p = ep_agent_protocol_find(s->call.protocol);

    f->real = p ? &p->how : &ep_protocol_http;
    f->how = (struct ep_protocol){f->real->name, f->real->refuse, cut_midstream};
    s->protocol = &f->how;
    f->view.worker = s->worker;
    s->view = &f->view;
    f->server.name = f->listener.name;
    s->listener = &f->server;
    f->filter = (struct ep_filter_instance){
        .filter = &ep_filter_policies, .data = set, .worker = s->worker, .chain = &f->chain, .view = &f->view};
    f->chain.filters = &f->filter;
    f->chain.n_filters = 1;
    f->chain.view = &f->view;
    f->listener.max_body_bytes = EP_EVENT_BYTES_MAX;
    f->state = ep_arena_zalloc(&s->arena, ep_filter_policies.stream_size);
    give_ids(s);
    s->request_walk.running = true;
    return ep_filter_policies.request_headers(s, f->state, !s->call.body.n) != EP_REPLIED;
}

enum ep_step ep_test_play_head(struct ep_test_stream *f, bool end)
{
    struct ep_stream *s = &f->s;

    s->request_walk = (struct ep_walk){.headers_passed = true};
    s->response_walk.started = s->response_walk.running = true;
    s->live = s->status == 200 && ep_headers_are_events(&s->response.headers);
    return ep_filter_policies.response_headers(s, f->state, end);
}

bool ep_test_play_body(struct ep_test_stream *f, struct ep_body *b, bool end)
{
    f->s.response_started |= f->s.live;
    return ep_filter_policies.response_body(&f->s, f->state, b, end) != EP_REPLIED;
}

void ep_test_play_end(struct ep_test_stream *f)
{
    if (!f->state)
        return;
    ep_filter_policies.finish(&f->s, f->state);
    f->state = NULL;
    if (ep_list_linked(&f->s.task.node))
        ep_list_remove(&f->s.task.node);
}
