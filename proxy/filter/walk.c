/* The walk of a message through the filters of its chain.
 *
 * One function a direction, called whenever something may go on: a head or body bytes came, the end came, a filter
 * resumed. It is idempotent: what was done is remembered in the walk, and it returns when a filter waits, when
 * it needs more of the message, or when all there is has been passed on.
 *
 *   request:  head through filters 0 … n-1 (the router is n-1), then body and trailers the same way
 *   response: head through filters n-2 … 0, then to the downstream leg, then body and trailers
 */
#include "filter/decision.h"
#include "filter/private.h"

/* Steps are measured filter by filter in one stream of TIMED_ONE_IN; the sum of all filters in every stream. */

static enum ep_step measured(struct ep_stream *s, unsigned i, enum ep_step step, uint64_t since)
{
    s->filter_ns[i] += ep_clock_ns() - since;
    return step;
}

#define STEP(s, i, call) ((s)->timed ? step_start(s, i), measured(s, i, (call), (s)->walk_clock_ns) : (call))

static void step_start(struct ep_stream *s, unsigned i)
{
    (void)i;
    s->walk_clock_ns = ep_clock_ns();
}

static bool stopped(const struct ep_stream *s)
{
    return s->ending || s->finished;
}

static void wait_here(struct ep_stream *s, struct ep_walk *w)
{
    w->waiting = true;
    w->waiting_since_ns = s->worker->now_ns;
}

/* Whether there are bytes, or the end, to begin to pass through the body steps, or a pass to go on with. */
static bool pass_begins(struct ep_message *m, struct ep_walk *w)
{
    bool end = m->ended && !m->has_trailers;

    if (w->passing)
        return true;
    if (m->end_given || (m->body.bytes == 0 && !end && !w->nudged))
        return false;
    w->nudged = false;
    w->passing = true;
    w->passing_end = end;
    return true;
}

/* A pass is through: what came meanwhile is next. */
static void pass_ends(struct ep_stream *s, struct ep_message *m, struct ep_walk *w, int8_t first)
{
    w->passing = false;
    w->at = first;
    if (EP_UNLIKELY(m->later && m->later->bytes))
        ep_body_move(&m->body, m->later, m->later->bytes, &s->worker->slabs);
}

static void too_large(struct ep_stream *s, bool request)
{
    ep_stream_refuse(s, &(struct ep_refusal){.kind = request ? EP_REFUSE_TOO_LARGE : EP_REFUSE_UPSTREAM,
                                             .policy = ep_str(s->chain->filters[s->current].filter->name),
                                             .reason = request ? EP_STR("the body is larger than policies may read")
                                                               : EP_STR("the response is larger than policies may read"),
                                             .code = request ? "body.too_large" : "response.too_large",
                                             .status = request ? 0 : 502,
                                             .grpc_status = -1});
}

/* Whether a filter that asked for the whole body can be served: 1 yes, 0 not yet, -1 never. */
static int whole_body(const struct ep_stream *s, const struct ep_message *m, struct ep_walk *w)
{
    if (m->body.bytes > s->chain->config->max_body_bytes) {
        w->buffering = false;
        return -1;
    }
    w->buffering = !m->ended;
    return m->ended;
}

/* The client may wait for a 100 before it sends the body that a filter waits for. HTTP/1's codec answers by itself. */
static void say_continue(struct ep_stream *s)
{
    struct ep_headers go_on;

    if (s->down->version != EP_HTTP_2 ||
        !ep_str_caseeq(ep_headers_get_id(&s->request.headers, EP_HDR_EXPECT), EP_STR("100-continue")))
        return;
    ep_headers_remove_id(&s->request.headers, EP_HDR_EXPECT);
    ep_headers_init(&go_on, &s->arena);
    ep_headers_append(&go_on, EP_HDR_STATUS, ep_header_name(EP_HDR_STATUS), EP_STR("100"));
    s->down->ops->informational(s->down, &go_on);
}

static bool request_headers(struct ep_stream *s)
{
    struct ep_walk *w = &s->request_walk;
    const struct ep_chain *c = s->chain;
    struct ep_message *m = &s->request;

    while (w->at < (int8_t)c->n_filters) {
        unsigned i = (unsigned)w->at;
        const struct ep_filter *f = c->filters[i].filter;
        enum ep_step step = EP_NEXT;

        s->current = (uint8_t)i;
        if (w->buffering) {
            int whole = whole_body(s, m, w);
            if (whole < 0 && !f->request_too_large)
                too_large(s, true);
            if (whole == 0 || (whole < 0 && !f->request_too_large))
                return false;
            if (whole > 0) {
                w->buffered |= 1u << i;
                step = f->request_body ? STEP(s, i, f->request_body(s, s->filter_state[i], &m->body, true)) : EP_NEXT;
            } else {
                step = STEP(s, i, f->request_too_large(s, s->filter_state[i]));
            }
        } else if (f->request_headers) {
            bool end = m->ended && m->body.bytes == 0 && !m->has_trailers;
            if (i == c->n_filters - 1u)
                m->end_given = end;
            step = STEP(s, i, f->request_headers(s, s->filter_state[i], end));
            if (step == EP_BUFFER) {
                w->buffering = true;
                if (!m->ended)
                    say_continue(s);
                continue;
            }
        }
        if (stopped(s) || s->reply_pending || step == EP_REPLIED)
            return false;
        w->at++;
        if (step == EP_WAIT) {
            wait_here(s, w);
            return false;
        }
    }
    w->headers_passed = true;
    w->at = 0;
    return true;
}

/* Bits of the filters from `at` on, and up to it. */
static uint32_t from(int at)
{
    return UINT32_MAX << at;
}

static uint32_t down_from(int at)
{
    return at < 0 ? 0 : UINT32_MAX >> (31 - at);
}

static bool request_body(struct ep_stream *s)
{
    struct ep_walk *w = &s->request_walk;
    const struct ep_chain *c = s->chain;
    struct ep_message *m = &s->request;

    while (pass_begins(m, w)) {
        for (uint32_t left; (left = c->request_body_mask & ~w->buffered & from(w->at)) != 0; w->at++) {
            unsigned i = (unsigned)__builtin_ctz(left);
            const struct ep_filter *f = c->filters[i].filter;
            enum ep_step step;

            w->at = (int8_t)i;
            s->current = (uint8_t)i;
            if (i == c->n_filters - 1u)
                m->end_given = w->passing_end;
            step = STEP(s, i, f->request_body(s, s->filter_state[i], &m->body, w->passing_end));
            if (stopped(s) || s->reply_pending || step == EP_REPLIED)
                return false;
            if (step == EP_WAIT) {
                w->at++;
                wait_here(s, w);
                return false;
            }
        }
        pass_ends(s, m, w, 0);
    }
    return true;
}

static void request_trailers(struct ep_stream *s)
{
    struct ep_walk *w = &s->request_walk;
    const struct ep_chain *c = s->chain;

    if (!s->request.has_trailers || w->trailers_passed)
        return;
    for (; w->at < (int8_t)c->n_filters; w->at++) {
        unsigned i = (unsigned)w->at;
        const struct ep_filter *f = c->filters[i].filter;
        enum ep_step step;

        s->current = (uint8_t)i;
        step = f->request_trailers ? STEP(s, i, f->request_trailers(s, s->filter_state[i])) : EP_NEXT;
        if (step == EP_REPLIED || stopped(s) || s->reply_pending) {
            w->trailers_passed = true;
            return;
        }
        if (step == EP_WAIT) {
            w->at++;
            wait_here(s, w);
            return;
        }
    }
    w->trailers_passed = true;
    s->request.end_given = true;
}

void ep_walk_request(struct ep_stream *s)
{
    struct ep_walk *w = &s->request_walk;

    if (w->running || w->waiting || !w->started || stopped(s) || s->request_done || s->reply_pending)
        return;
    if (w->buffering && !s->request.ended && s->request.body.bytes <= s->chain->config->max_body_bytes) {
        ep_stream_settle(s); /* the filter that asked for the whole body waits for more of it */
        return;
    }
    w->running = true;
    if (!w->headers_passed) {
        uint64_t since = ep_clock_ns(), until;
        bool passed = request_headers(s);
        until = ep_clock_ns();
        s->time.filter_ns += until - since;
        if (passed)
            s->time.chain_done = until;
    }
    if (w->headers_passed && !stopped(s) && request_body(s))
        request_trailers(s);
    w->running = false;
    if (stopped(s))
        return;
    if (!w->headers_passed && !ep_timer_running(&s->timer)) /* the router, who sets the route's limits, is not reached */
        ep_stream_set_timeouts(s, 0, s->chain->config->stream_idle_timeout_ns);
    ep_stream_settle(s);
}

/* --- response --- */

static void send_head(struct ep_stream *s, bool end)
{
    struct ep_leg *down = s->down;

    s->response_started = true;
    down->ops->headers(down, &s->response.headers, end);
    if (end) {
        s->response.end_given = true;
        s->response_sent = true;
    }
}

static bool response_headers(struct ep_stream *s)
{
    struct ep_walk *w = &s->response_walk;
    const struct ep_chain *c = s->chain;
    struct ep_message *m = &s->response;

    for (uint32_t left; (left = down_from(w->at) & (w->buffering ? UINT32_MAX : c->response_headers_mask)) != 0;) {
        unsigned i = 31u - (unsigned)__builtin_clz(left);
        const struct ep_filter *f = c->filters[i].filter;
        enum ep_step step = EP_NEXT;

        w->at = (int8_t)i;
        s->current = (uint8_t)i;
        if (w->buffering) {
            int whole = whole_body(s, m, w);
            if (whole < 0 && !f->response_too_large)
                too_large(s, false);
            if (whole == 0 || (whole < 0 && !f->response_too_large))
                return false;
            if (whole > 0) {
                w->buffered |= 1u << i;
                step = f->response_body ? STEP(s, i, f->response_body(s, s->filter_state[i], &m->body, true)) : EP_NEXT;
            } else {
                step = STEP(s, i, f->response_too_large(s, s->filter_state[i]));
            }
        } else {
            step = STEP(s, i, f->response_headers(s, s->filter_state[i], m->ended && m->body.bytes == 0 && !m->has_trailers));
            if (step == EP_BUFFER) {
                w->buffering = true;
                continue;
            }
        }
        if (stopped(s) || s->reply_pending || (step == EP_REPLIED && !s->local_reply))
            return false; /* a refusal of what is a refusal already changes nothing: that one is sent */
        w->at--;
        if (step == EP_WAIT) {
            wait_here(s, w);
            return false;
        }
    }
    w->headers_passed = true;
    w->at = w->body_from;
    send_head(s, m->ended && m->body.bytes == 0 && !m->has_trailers);
    return true;
}

static void give_response_body(struct ep_stream *s, bool end)
{
    struct ep_message *m = &s->response;
    struct ep_leg *down = s->down;

    s->last_active_ns = s->worker->now_ns;
    while (m->body.count) {
        struct ep_slice one = ep_slice_ref(*ep_body_front(&m->body));
        bool last;

        ep_body_drop(&m->body, one.n);
        last = end && m->body.count == 0;
        m->in_flight += one.n;
        m->end_given |= last;
        down->ops->data(down, one, last);
    }
    if (end && !m->end_given) {
        m->end_given = true;
        down->ops->data(down, (struct ep_slice){NULL, NULL, 0}, true);
    }
}

/* The body steps of the filters from w->at on; false: not all of them let it pass. */
static bool response_steps(struct ep_stream *s)
{
    struct ep_walk *w = &s->response_walk;
    const struct ep_chain *c = s->chain;

    for (uint32_t left; (left = c->response_body_mask & ~w->buffered & down_from(w->at)) != 0; w->at--) {
        unsigned i = 31u - (unsigned)__builtin_clz(left);
        const struct ep_filter *f = c->filters[i].filter;
        enum ep_step step;

        w->at = (int8_t)i;
        s->current = (uint8_t)i;
        step = STEP(s, i, f->response_body(s, s->filter_state[i], &s->response.body, w->passing_end));
        if (EP_UNLIKELY(s->midway) && !stopped(s)) { /* what this filter let pass goes on, and is the end */
            w->passing_end = true;
            continue;
        }
        if (stopped(s) || s->reply_pending || step == EP_REPLIED)
            return false;
        if (step == EP_WAIT) {
            w->at--;
            wait_here(s, w);
            return false;
        }
    }
    return true;
}

static bool response_body(struct ep_stream *s)
{
    struct ep_walk *w = &s->response_walk;
    struct ep_message *m = &s->response;

    while (pass_begins(m, w)) {
        if (s->chain->response_body_mask && !s->local_reply && !response_steps(s))
            return false;
        if (EP_UNLIKELY(s->midway)) {
            give_response_body(s, false);
            ep_stream_say_last_words(s);
            return true;
        }
        give_response_body(s, w->passing_end);
        pass_ends(s, m, w, w->body_from);
    }
    return true;
}

static void response_trailers(struct ep_stream *s)
{
    struct ep_walk *w = &s->response_walk;
    const struct ep_chain *c = s->chain;

    if (!s->response.has_trailers || w->trailers_passed || s->response.end_given)
        return;
    for (; w->at >= 0; w->at--) {
        unsigned i = (unsigned)w->at;
        const struct ep_filter *f = c->filters[i].filter;
        enum ep_step step;

        s->current = (uint8_t)i;
        step = f->response_trailers ? STEP(s, i, f->response_trailers(s, s->filter_state[i])) : EP_NEXT;
        if (step == EP_REPLIED || stopped(s) || s->response.end_given) {
            w->trailers_passed = true;
            return;
        }
        if (step == EP_WAIT) {
            w->at--;
            wait_here(s, w);
            return;
        }
    }
    w->trailers_passed = true;
    s->response.end_given = true;
    s->down->ops->trailers(s->down, &s->response.trailers);
}

void ep_walk_response(struct ep_stream *s)
{
    struct ep_walk *w = &s->response_walk;

    if (w->running || w->waiting || !w->started || stopped(s) || s->down_over || s->reply_pending)
        return;
    if (EP_UNLIKELY(s->audit_seq) && ep_stream_unsettled(s))
        return; /* what was decided of it is not on the disk yet */
    w->running = true;
    if ((w->headers_passed || response_headers(s)) && response_body(s))
        response_trailers(s);
    w->running = false;
    if (!stopped(s)) {
        if (EP_UNLIKELY(s->midway) && !s->response.end_given && !w->waiting)
            ep_stream_say_last_words(s); /* it was not the body that ended it */
        ep_stream_settle(s);
        ep_stream_check_end(s);
    }
}

/* --- resuming --- */

static void resume(struct ep_stream *s, struct ep_walk *w)
{
    if (!w->waiting)
        return;
    w->waiting = false;
    s->time.filter_ns += s->worker->now_ns - w->waiting_since_ns;
    s->last_active_ns = s->worker->now_ns;
}

void ep_stream_resume_request(struct ep_stream *s)
{
    assert(s->magic == EP_STREAM_MAGIC && !s->request_walk.running);
    resume(s, &s->request_walk);
    ep_walk_request(s);
}

void ep_stream_resume_response(struct ep_stream *s)
{
    assert(s->magic == EP_STREAM_MAGIC && !s->response_walk.running);
    resume(s, &s->response_walk);
    ep_walk_response(s);
}

void ep_stream_nudge_response(struct ep_stream *s)
{
    assert(s->magic == EP_STREAM_MAGIC && !s->response_walk.running);
    s->response_walk.nudged = true;
    ep_walk_response(s);
}

void ep_stream_again_request(struct ep_stream *s)
{
    assert(s->request_walk.waiting && !s->request_walk.headers_passed);
    s->request_walk.at--;
    ep_stream_resume_request(s);
}

void ep_stream_again_response(struct ep_stream *s)
{
    assert(s->response_walk.waiting && !s->response_walk.headers_passed);
    s->response_walk.at++;
    ep_stream_resume_response(s);
}

struct ep_filter_instance *ep_filter_self(struct ep_stream *s)
{
    return &s->chain->filters[s->current];
}
