/* What nghttp2 tells us of the peer's frames: heads, bodies, ends, resets; and the buckets against floods. */
#include "http/h2.h"

#define GLITCH_BURST 100  /* frames that make us reset a stream (MadeYouReset, CVE-2025-8671) … */
#define GLITCH_PER_S 10   /* … a connection may send so many at once and so many a second */
#define CONTROL_BURST 2000 /* PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA … */
#define CONTROL_PER_S 200 /* … and more for every frame that does something useful */

static bool bucket_take(int64_t *left, uint64_t *at_ns, uint64_t now_ns, int64_t burst, uint64_t per_s)
{
    uint64_t add = (now_ns - *at_ns) / (EP_S / per_s);

    if (add) {
        *left = EP_MIN(burst, *left + (int64_t)add);
        *at_ns = now_ns;
    }
    return --*left >= 0;
}

static int calm_down(struct ep_h2 *h2, const char *reason)
{
    if (!h2->broken) {
        h2->broken = true;
        if (h2->acceptor)
            h2->acceptor->on_refused(h2->user, h2->conn, 0, reason);
        nghttp2_session_terminate_session(h2->session, NGHTTP2_ENHANCE_YOUR_CALM);
        h2->conn->closing_why = EP_CLOSE_LIMIT;
        ep_conn_close(h2->conn);
    }
    return 0;
}

static bool is_final(const struct ep_headers *h)
{
    struct ep_str status = ep_headers_get_id(h, EP_HDR_STATUS);

    return status.n == 3 && status.p[0] != '1';
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct ep_h2 *h2 = user;
    struct ep_headers *h;
    struct ep_h2_leg *l;

    h2->filling = NULL;
    if (frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    h2->headers_since_ns = h2->conn->worker->now_ns;
    if (h2->server && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        h2->requests++;
        l = ep_h2_leg_new(h2, frame->hd.stream_id);
        if (!h2->acceptor->on_request(h2->user, &l->leg)) {
            nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM);
            l->closed = l->released = true;
            ep_h2_leg_free(l);
            return 0;
        }
        nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, l);
        ep_headers_init(&l->headers, l->leg.arena);
        h2->filling = l;
        return 0;
    }
    l = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!l || l->released)
        return 0;
    l->filling_trailers = l->has_head;
    h = l->has_head ? &l->trailers_in : &l->headers;
    ep_headers_fini(h);
    ep_headers_init(h, l->leg.arena);
    h2->filling = l;
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name, nghttp2_rcbuf *value,
                     uint8_t flags, void *user)
{
    struct ep_h2 *h2 = user;
    struct ep_h2_leg *l = h2->filling;
    struct ep_headers *h;
    nghttp2_vec n, v;

    (void)session, (void)frame;
    if (!l || l->too_large)
        return 0;
    h = l->filling_trailers ? &l->trailers_in : &l->headers;
    n = nghttp2_rcbuf_get_buf(name);
    v = nghttp2_rcbuf_get_buf(value);
    if (h->n >= h2->options->max_header_count || h->bytes + n.len + v.len + 32 > h2->options->max_header_bytes) {
        l->too_large = true;
        return 0;
    }
    if (h->n_rcbufs + 2 > h->cap_rcbufs) {
        uint32_t cap = h->cap_rcbufs ? 2 * h->cap_rcbufs : 16;
        void **more = ep_arena_alloc(h->arena, cap * sizeof *more);
        if (h->n_rcbufs)
            memcpy(more, h->rcbufs, h->n_rcbufs * sizeof *more);
        h->rcbufs = more;
        h->cap_rcbufs = cap;
    }
    if (!nghttp2_rcbuf_is_static(name)) {
        nghttp2_rcbuf_incref(name);
        h->rcbufs[h->n_rcbufs++] = name;
    }
    if (!nghttp2_rcbuf_is_static(value)) {
        nghttp2_rcbuf_incref(value);
        h->rcbufs[h->n_rcbufs++] = value;
    }
    struct ep_str key = ep_str_n(n.base, n.len);
    ep_headers_append(h, ep_header_id(key), key, ep_str_n(v.base, v.len));
    if (flags & NGHTTP2_NV_FLAG_NO_INDEX)
        h->v[h->n - 1].flags |= EP_HEADER_NO_INDEX;
    return 0;
}

/* RFC 9113 section 8.3.1: Host may stand in for :authority and must not contradict it; no userinfo. */
static const char *settle_authority(struct ep_headers *h)
{
    struct ep_header *host = ep_headers_find_id(h, EP_HDR_HOST);
    struct ep_str authority = ep_headers_get_id(h, EP_HDR_AUTHORITY), value;

    if (ep_str_find(authority, '@', 0) >= 0)
        return "authority.userinfo";
    if (!host)
        return NULL;
    if (ep_headers_count_id(h, EP_HDR_HOST) > 1)
        return "host.several";
    value = host->value;
    if (authority.p && !ep_str_caseeq(authority, value))
        return "host.mismatch";
    ep_headers_remove_id(h, EP_HDR_HOST);
    if (!authority.p)
        ep_headers_set_id(h, EP_HDR_AUTHORITY, value);
    return NULL;
}

static void request_head(struct ep_h2 *h2, struct ep_h2_leg *l, bool end)
{
    struct ep_str method = ep_headers_get_id(&l->headers, EP_HDR_METHOD);
    const char *bad;

    h2->control_left = EP_MIN(CONTROL_BURST, h2->control_left + 8);
    l->has_head = true;
    l->leg.recv_ended = end;
    if (l->too_large) {
        ep_h2_refuse(l, 431, "headers.too_large");
        return;
    }
    bad = settle_authority(&l->headers);
    if (bad) {
        ep_h2_refuse(l, 400, bad);
        return;
    }
    l->leg.head_request = ep_str_eq(method, EP_STR("HEAD"));
    l->leg.tunnel = ep_str_eq(method, EP_STR("CONNECT"));
    l->leg.events->on_headers(&l->leg, &l->headers, end);
}

/* More of a head, or of trailers, than is taken: the exchange ends, and the owner hears it from us. */
static void give_up(struct ep_h2_leg *l)
{
    l->leg.ops->reset(&l->leg, EP_RESET_TOO_LARGE);
    l->leg.events->on_reset(&l->leg, l->leg.server ? EP_RESET_TOO_LARGE : EP_RESET_PROTOCOL);
}

static void response_head(struct ep_h2_leg *l, bool end)
{
    if (l->too_large) {
        give_up(l);
        return;
    }
    if (!is_final(&l->headers)) {
        if (l->leg.events->on_informational)
            l->leg.events->on_informational(&l->leg, &l->headers);
        ep_headers_fini(&l->headers);
        return;
    }
    l->has_head = true;
    l->leg.recv_ended = end;
    l->leg.events->on_headers(&l->leg, &l->headers, end);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct ep_h2 *h2 = user;
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    struct ep_h2_leg *l;

    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        h2->headers_since_ns = 0;
        l = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
        if (!l || l->released || l->leg.over)
            return 0;
        if (h2->server && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
            request_head(h2, l, end);
        } else if (!l->has_head) {
            response_head(l, end);
        } else if (l->too_large) {
            give_up(l);
        } else {
            l->leg.recv_ended = true;
            l->leg.events->on_trailers(&l->leg, &l->trailers_in);
        }
        return 0;
    case NGHTTP2_DATA:
        if (end) {
            l = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
            if (!l || l->released || l->leg.over)
                return 0;
            l->leg.recv_ended = true;
            l->leg.events->on_data(&l->leg, (struct ep_slice){NULL, NULL, 0}, true);
            return 0;
        }
        if (frame->hd.length > 0) {
            h2->control_left = EP_MIN(CONTROL_BURST, h2->control_left + 2);
            return 0;
        }
        break; /* empty DATA */
    case NGHTTP2_SETTINGS:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) {
            h2->peer_max_streams = EP_MIN(
                nghttp2_session_get_remote_settings(session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS), 0x7fffffffu);
            h2->capacity_changed = true;
        }
        break;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK)
            h2->ping_out = false;
        break;
    case NGHTTP2_GOAWAY:
        h2->goaway_in = true;
        h2->draining = true; /* closes when its last stream ends */
        h2->capacity_changed = true;
        return 0;
    case NGHTTP2_RST_STREAM:
        return 0; /* nghttp2's own bucket watches these */
    default:
        break;
    }
    if (!bucket_take(&h2->control_left, &h2->control_at_ns, h2->conn->worker->now_ns, CONTROL_BURST, CONTROL_PER_S))
        return calm_down(h2, "h2.flood");
    return 0;
}

static int on_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *user)
{
    struct ep_h2 *h2 = user;
    struct ep_h2_leg *l = nghttp2_session_get_stream_user_data(session, id);
    struct ep_slice s = {h2->slab, p, n};

    (void)flags;
    if (!l || l->released || l->leg.over) {
        nghttp2_session_consume(session, id, n);
        return 0;
    }
    l->unconsumed += n;
    if (!h2->slab || p < h2->slab->data || p + n > h2->slab->data + h2->slab->size) { /* nghttp2's own buffer */
        s.slab = ep_slab_new_sized(&h2->conn->worker->slabs, n);
        s.p = s.slab->data;
        memcpy(s.slab->data, p, n);
        l->leg.events->on_data(&l->leg, s, false);
        ep_slice_unref(s);
        return 0;
    }
    l->leg.events->on_data(&l->leg, s, false);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
    struct ep_h2_leg *l = nghttp2_session_get_stream_user_data(session, id);
    struct ep_h2 *h2 = user;

    if (l) {
        if (h2->filling == l) {
            h2->filling = NULL;
            h2->headers_since_ns = 0;
        }
        nghttp2_session_set_stream_user_data(session, id, NULL);
        ep_h2_leg_closed(l, ep_h2_reset_of(code), code == NGHTTP2_NO_ERROR);
    }
    return 0;
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int code, void *user)
{
    struct ep_h2 *h2 = user;

    (void)session;
    if (frame->hd.type == NGHTTP2_HEADERS)
        h2->headers_since_ns = 0;
    if (h2->acceptor)
        h2->acceptor->on_refused(h2->user, h2->conn, 0,
                                 code == NGHTTP2_ERR_HTTP_HEADER || code == NGHTTP2_ERR_HTTP_MESSAGING ? "h2.message"
                                                                                                     : "h2.frame");
    ep_debug("h2", "bad frame of type %u on stream %d: %s", frame->hd.type, frame->hd.stream_id, nghttp2_strerror(code));
    if (!bucket_take(&h2->glitches_left, &h2->glitches_at_ns, h2->conn->worker->now_ns, GLITCH_BURST, GLITCH_PER_S))
        return calm_down(h2, "h2.glitches");
    return 0;
}

enum ep_reset ep_h2_reset_of(uint32_t code)
{
    switch (code) {
    case NGHTTP2_NO_ERROR:
        return EP_RESET_NO_ERROR;
    case NGHTTP2_CANCEL:
        return EP_RESET_CANCEL;
    case NGHTTP2_REFUSED_STREAM:
        return EP_RESET_REFUSED;
    case NGHTTP2_PROTOCOL_ERROR:
    case NGHTTP2_FLOW_CONTROL_ERROR:
    case NGHTTP2_STREAM_CLOSED:
    case NGHTTP2_FRAME_SIZE_ERROR:
        return EP_RESET_PROTOCOL;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        return EP_RESET_TOO_LARGE;
    default:
        return EP_RESET_INTERNAL;
    }
}

void ep_h2_callbacks(nghttp2_session_callbacks *cb)
{
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
}
