/* A stage for the codecs, with an owner that writes down each event as text: for test_h1_*.c and test_tcp.c.
 *
 * The connection under test is one end of a socketpair in a worker turned by hand; the other end is the peer, who
 * speaks bytes. What the peer wrote is there at once, so a few turns after it everything has happened. */
#ifndef EP_TESTS_LEG_PLAY_H
#define EP_TESTS_LEG_PLAY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/http.h"

#define PLAY_LEGS 8

struct play_side {
    struct play *play;
    struct ep_leg *leg; /* NULL once released */
    struct ep_arena arena;
    struct ep_headers table, trailers; /* what it sends */
    bool reset;
};

struct play {
    struct ep_worker w;
    struct ep_http_options options;
    struct ep_conn *conn; /* NULL once closed */
    int peer;
    bool refuse;      /* on_request says no */
    bool reply;       /* answers each request, when it is whole, with 200 and "ok" */
    bool consume;     /* takes body bytes at once */
    bool keep;        /* doesn't release a leg that is done */
    bool counts;      /* bodies are written down by their length only */
    unsigned n_sides;
    struct play_side sides[PLAY_LEGS];
    char log[16384];
    size_t log_n;
    char got[300000]; /* what the peer read since it was asked last */
};

static inline void say(struct play *p, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    int n = vsnprintf(p->log + p->log_n, sizeof p->log - p->log_n, format, ap);
    va_end(ap);
    p->log_n += (size_t)n;
    assert_true(p->log_n < sizeof p->log);
}

static inline void say_table(struct play *p, const char *event, const struct ep_headers *h)
{
    say(p, "%s[", event);
    for (uint32_t i = 0; i < h->n; i++)
        say(p, "%s%.*s: %.*s", i ? "|" : "", EP_STR_ARG(h->v[i].name), EP_STR_ARG(h->v[i].value));
    say(p, "]");
}

static inline struct play *play_of(struct ep_leg *l)
{
    return ((struct play_side *)l->owner)->play;
}

static inline void table_from(struct ep_headers *h, struct ep_arena *arena, const char *text)
{
    struct ep_str rest = ep_str(text), line;

    ep_headers_init(h, arena);
    while (ep_str_next(&rest, '|', &line)) {
        ptrdiff_t colon = line.n ? ep_str_find(line, ':', 1) : -1;

        if (colon > 0)
            ep_headers_add(h, ep_str_n(line.p, (size_t)colon),
                           ep_str_trim(ep_str_n(line.p + colon + 1, line.n - (size_t)colon - 1)));
    }
}

/* --- what the owner does --- */

static inline void send_head(struct ep_leg *l, const char *table, bool end)
{
    struct play_side *s = l->owner;

    table_from(&s->table, &s->arena, table);
    l->ops->headers(l, &s->table, end);
}

static inline void send_data(struct ep_leg *l, const char *text, bool end)
{
    size_t n = strlen(text);
    struct ep_slab *slab = ep_slab_new_sized(&play_of(l)->w.slabs, n + 1);

    memcpy(slab->data, text, n);
    l->ops->data(l, (struct ep_slice){slab, slab->data, n}, end);
}

static inline void send_trailers(struct ep_leg *l, const char *table)
{
    struct play_side *s = l->owner;

    table_from(&s->trailers, &s->arena, table);
    l->ops->trailers(l, &s->trailers);
}

static inline void send_informational(struct ep_leg *l, const char *table)
{
    struct play_side *s = l->owner;
    struct ep_headers h;

    table_from(&h, &s->arena, table);
    l->ops->informational(l, &h);
}

static inline void release(struct ep_leg *l)
{
    struct play_side *s = l->owner;

    s->leg = NULL;
    l->ops->release(l);
}

static inline void maybe_done(struct ep_leg *l, bool sent)
{
    if (l->recv_ended && sent && !play_of(l)->keep)
        release(l);
}

static inline void maybe_reply(struct ep_leg *l)
{
    if (!play_of(l)->reply)
        return;
    send_head(l, ":status: 200|content-length: 2", false);
    send_data(l, "ok", true);
}

static inline void on_headers(struct ep_leg *l, struct ep_headers *h, bool end)
{
    struct play *p = play_of(l);

    say_table(p, "H", h);
    say(p, end ? ". " : " ");
    if (end)
        maybe_reply(l);
}

static inline void on_informational(struct ep_leg *l, struct ep_headers *h)
{
    say_table(play_of(l), "I", h);
    say(play_of(l), " ");
}

static inline void on_data(struct ep_leg *l, struct ep_slice s, bool end)
{
    struct play *p = play_of(l);

    if (p->counts)
        say(p, "D%zu%s ", s.n, end ? "." : "");
    else
        say(p, "D(%.*s)%s ", (int)s.n, (const char *)s.p, end ? "." : "");
    if (p->consume)
        l->ops->consumed(l, s.n);
    if (end)
        maybe_reply(l);
}

static inline void on_trailers(struct ep_leg *l, struct ep_headers *h)
{
    say_table(play_of(l), "T", h);
    say(play_of(l), " ");
    maybe_reply(l);
}

static inline void on_sent(struct ep_leg *l, size_t n)
{
    say(play_of(l), "s%zu ", n);
}

static inline void on_message_sent(struct ep_leg *l)
{
    say(play_of(l), "S ");
    maybe_done(l, true);
}

static inline void on_reset(struct ep_leg *l, enum ep_reset why)
{
    struct play_side *s = l->owner;

    say(s->play, "R(%s%s) ", ep_reset_name(why), l->unanswered ? ",unanswered" : "");
    s->reset = true;
    if (!s->play->keep)
        release(l);
}

static const struct ep_leg_events play_events = {
    .on_headers = on_headers,
    .on_informational = on_informational,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_sent = on_sent,
    .on_message_sent = on_message_sent,
    .on_reset = on_reset,
};

static inline struct ep_leg *own(struct play *p, struct ep_leg *l)
{
    struct play_side *s = &p->sides[p->n_sides++];

    assert_true(p->n_sides <= PLAY_LEGS);
    s->play = p;
    s->leg = l;
    ep_arena_init(&s->arena, &p->w.chunks);
    l->events = &play_events;
    l->owner = s;
    l->arena = &s->arena;
    return l;
}

static inline bool on_request(void *user, struct ep_leg *l)
{
    struct play *p = user;

    if (p->refuse)
        return false;
    own(p, l);
    return true;
}

static inline void on_refused(void *user, struct ep_conn *c, unsigned status, const char *reason)
{
    (void)c;
    say(user, "refused(%u,%s) ", status, reason);
}

static inline void on_closed(void *user, struct ep_conn *c, enum ep_close why)
{
    struct play *p = user;

    (void)c;
    p->conn = NULL;
    say(p, "closed(%s) ", ep_close_name(why));
}

static inline void on_idle(void *user, struct ep_conn *c)
{
    (void)c;
    say(user, "idle ");
}

static const struct ep_acceptor play_acceptor = {on_request, on_refused, on_closed};
static const struct ep_client_events play_client_events = {NULL, on_idle, on_closed};

/* --- the stage --- */

static const struct ep_conn_handler no_handler = {.name = "none"};

static inline void play_begin(struct play *p)
{
    struct ep_addr nowhere = {.len = sizeof(sa_family_t), .u.sa.sa_family = AF_UNIX};
    struct ep_error err;
    int fds[2];

    memset(p, 0, sizeof *p);
    assert_true(ep_worker_init(&p->w, 0, &err));
    ep_http_options_preset(&p->options);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    p->peer = fds[1];
    p->consume = true;
    p->conn = ep_conn_accept(&p->w, fds[0], &nowhere, &no_handler, NULL);
    assert_non_null(p->conn);
}

static inline void turn(struct play *p)
{
    for (int i = 0; i < 8; i++)
        ep_worker_turn(&p->w, false);
}

/* What happened since it was asked last. */
static inline void expect_events(struct play *p, const char *expected)
{
    p->log[p->log_n] = '\0';
    assert_string_equal(p->log, expected);
    p->log_n = 0;
    p->log[0] = '\0';
}

static inline void peer_says_n(struct play *p, const char *bytes, size_t n)
{
    assert_int_equal(send(p->peer, bytes, n, MSG_NOSIGNAL), n);
    turn(p);
}

static inline void peer_says(struct play *p, const char *text)
{
    peer_says_n(p, text, strlen(text));
}

/* All that the peer can read now, as a string; "<eof>" when it is the end and nothing came. */
static inline const char *peer_reads(struct play *p)
{
    size_t n = 0;
    ssize_t r;

    turn(p);
    while ((r = recv(p->peer, p->got + n, sizeof p->got - 1 - n, 0)) > 0) {
        n += (size_t)r;
        turn(p);
    }
    p->got[n] = '\0';
    if (n == 0 && r == 0)
        return "<eof>";
    return p->got;
}

static inline void peer_ends(struct play *p)
{
    shutdown(p->peer, SHUT_WR);
    turn(p);
}

/* Time passes for the timers, and nothing else. */
static inline void later(struct play *p, uint64_t ns)
{
    p->w.now_ns += ns;
    ep_wheel_advance(&p->w.wheel, p->w.now_ns);
    turn(p);
}

static inline void play_end(struct play *p)
{
    close(p->peer);
    for (unsigned i = 0; i < p->n_sides; i++) {
        if (p->sides[i].leg)
            release(p->sides[i].leg);
    }
    turn(p);
    if (p->conn)
        ep_conn_abort(p->conn, EP_CLOSE_LOCAL, false);
    turn(p);
    for (unsigned i = 0; i < p->n_sides; i++)
        ep_arena_fini(&p->sides[i].arena);
    assert_int_equal(p->w.mem.live_bytes, 0);
    ep_worker_fini(&p->w);
}

#endif
