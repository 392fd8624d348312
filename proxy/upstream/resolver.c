/* DNS for one worker: see resolver.h.
 *
 * c-ares tells us which sockets it wants watched (ARES_OPT_SOCK_STATE_CB); each becomes an event of the worker's base.
 * Its timeouts run on one timer of the worker. A query can't be taken back, so a cancelled look-up leaves its state
 * to the answer, which then finds no asker. */
#include "upstream/resolver.h"

#include <ares.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/base.h"

#define TIMEOUT_MS 2000
#define TRIES      3
#define HOST_MAX   256

struct ep_lookup_state {
    struct ep_lookup *asker; /* NULL: cancelled */
    uint16_t port;
};

struct watched {
    struct ep_list node;
    struct ep_resolver *resolver;
    struct event event;
    ares_socket_t fd;
};

struct ep_resolver {
    struct ep_worker *worker;
    ares_channel channel;
    struct ep_list sockets;
    struct ep_timer timer;
};

static void arm(struct ep_resolver *r)
{
    struct timeval tv, *next = ares_timeout(r->channel, NULL, &tv);

    if (next)
        ep_worker_timer(r->worker, &r->timer, (uint64_t)next->tv_sec * EP_S + (uint64_t)next->tv_usec * 1000u + EP_MS);
    else
        ep_worker_timer_stop(r->worker, &r->timer);
}

static void on_timer(struct ep_timer *t)
{
    struct ep_resolver *r = EP_CONTAINER(t, struct ep_resolver, timer);

    ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    arm(r);
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct watched *s = arg;
    struct ep_resolver *r = s->resolver;

    ep_worker_wake(r->worker);
    /* s may be gone after this */
    ares_process_fd(r->channel, what & EV_READ ? fd : ARES_SOCKET_BAD, what & EV_WRITE ? fd : ARES_SOCKET_BAD);
    arm(r);
}

static void on_state(void *data, ares_socket_t fd, int readable, int writable)
{
    struct ep_resolver *r = data;
    struct watched *s = NULL;
    short want = (short)(EV_PERSIST | (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0));

    EP_LIST_FOREACH(n, &r->sockets)
    {
        struct watched *at = EP_CONTAINER(n, struct watched, node);
        if (at->fd == fd)
            s = at;
    }
    if (s)
        event_del(&s->event);
    if (!readable && !writable) {
        if (s) {
            ep_list_remove(&s->node);
            free(s);
        }
        return;
    }
    if (!s) {
        s = ep_calloc(1, sizeof *s);
        s->resolver = r;
        s->fd = fd;
        ep_list_push(&r->sockets, &s->node);
    }
    event_assign(&s->event, r->worker->base, fd, want, on_socket, s);
    event_add(&s->event, NULL);
}

struct ep_resolver *ep_resolver_new(struct ep_worker *w, struct ep_error *err)
{
    struct ep_resolver *r = ep_calloc(1, sizeof *r);
    char lookups[] = "fb"; /* files, then DNS, whatever nsswitch.conf of a distroless image says */
    struct ares_options o = {
        .timeout = TIMEOUT_MS,
        .tries = TRIES,
        .lookups = lookups,
        .sock_state_cb = on_state,
        .sock_state_cb_data = r,
    };
    int status;

    r->worker = w;
    ep_list_init(&r->sockets);
    ep_timer_init(&r->timer, on_timer);
    /* ares_library_init is for Windows and for other allocators; elsewhere it only counts, and not for threads. */
    status = ares_init_options(&r->channel, &o,
                               ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB);
    if (status != ARES_SUCCESS) {
        ep_error_set(err, "DNS: %s", ares_strerror(status));
        free(r);
        return NULL;
    }
    return r;
}

void ep_resolver_free(struct ep_resolver *r)
{
    if (!r)
        return;
    ares_destroy(r->channel); /* ends its queries with ARES_EDESTRUCTION and its sockets */
    ep_worker_timer_stop(r->worker, &r->timer);
    assert(ep_list_empty(&r->sockets));
    free(r);
}

bool ep_resolver_set_servers(struct ep_resolver *r, const char *csv)
{
    return ares_set_servers_ports_csv(r->channel, csv) == ARES_SUCCESS;
}

/* Whether the kernel has a route: connect() of a datagram socket sends nothing. */
static bool routable(const struct ep_addr *a)
{
    int fd = socket(a->u.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool good;

    if (fd < 0)
        return false;
    good = connect(fd, &a->u.sa, a->len) == 0;
    close(fd);
    return good;
}

static bool known(const struct ep_addr *v, size_t n, const struct ep_addr *a)
{
    for (size_t i = 0; i < n; i++)
        if (ep_addr_equal(&v[i], a))
            return true;
    return false;
}

/* The addresses of an answer, each once, those without a route left out unless all are. */
static size_t collect(const struct ares_addrinfo *ai, uint16_t port, struct ep_addr *v, uint64_t *ttl_ns)
{
    size_t n = 0, kept = 0;

    *ttl_ns = EP_TTL_MAX_NS;
    for (const struct ares_addrinfo_node *at = ai->nodes; at && n < EP_RESOLVED_MAX; at = at->ai_next) {
        struct ep_addr a = {0};
        uint64_t seconds = (uint64_t)EP_MAX(at->ai_ttl, 0), ttl = seconds * EP_S;

        if ((at->ai_family != AF_INET && at->ai_family != AF_INET6) || at->ai_addrlen > sizeof a.u)
            continue;
        memcpy(&a.u, at->ai_addr, (size_t)at->ai_addrlen);
        a.len = at->ai_addrlen;
        ep_addr_set_port(&a, port);
        *ttl_ns = EP_MIN(*ttl_ns, EP_MAX(ttl, EP_TTL_MIN_NS));
        if (!known(v, n, &a))
            v[n++] = a;
    }
    for (size_t i = 0; i < n; i++) {
        if (!routable(&v[i]))
            continue;
        struct ep_addr swap = v[kept];
        v[kept++] = v[i];
        v[i] = swap;
    }
    return kept ? kept : n;
}

static void tell(struct ep_lookup_state *s, const struct ep_resolved *r)
{
    struct ep_lookup *l = s->asker;

    free(s);
    if (!l)
        return;
    l->state = NULL;
    l->done(l, r);
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *ai)
{
    struct ep_lookup_state *s = arg;
    struct ep_resolved r = {.error = status == ARES_SUCCESS ? "no address" : ares_strerror(status)};
    struct ep_addr *v = NULL;

    (void)timeouts;
    if (status == ARES_SUCCESS && ai && s->asker) {
        size_t n = 1;

        for (const struct ares_addrinfo_node *at = ai->nodes; at && n < EP_RESOLVED_MAX; at = at->ai_next)
            n++;
        v = ep_calloc(n, sizeof *v);
        r.n = collect(ai, s->port, v, &r.ttl_ns);
        r.v = v;
    }
    if (ai)
        ares_freeaddrinfo(ai);
    tell(s, &r);
    free(v);
}

static bool numeric(struct ep_str host, uint16_t port, struct ep_addr *out)
{
    char text[HOST_MAX + 16];
    bool bracket = ep_str_find(host, ':', 0) >= 0 && host.p[0] != '[';
    int n = snprintf(text, sizeof text, bracket ? "[%.*s]:%u" : "%.*s:%u", EP_STR_ARG(host), port);

    return host.n && n > 0 && (size_t)n < sizeof text && ep_addr_parse(ep_str_n(text, (size_t)n), out);
}

void ep_resolver_lookup(struct ep_resolver *r, struct ep_lookup *l, struct ep_str host, uint16_t port)
{
    struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = ARES_AI_NOSORT};
    struct ep_lookup_state *s;
    struct ep_addr a;
    char name[HOST_MAX];

    assert(!l->state);
    if (numeric(host, port, &a)) {
        l->done(l, &(struct ep_resolved){.v = &a, .n = 1, .ttl_ns = UINT64_MAX});
        return;
    }
    if (!r || host.n == 0 || host.n >= sizeof name) {
        l->done(l, &(struct ep_resolved){.error = r ? "not a name" : "no resolver in this worker"});
        return;
    }
    memcpy(name, host.p, host.n);
    name[host.n] = 0;
    s = ep_calloc(1, sizeof *s);
    s->asker = l;
    s->port = port;
    l->state = s;
    ares_getaddrinfo(r->channel, name, NULL, &hints, on_answer, s); /* may answer before it returns */
    arm(r);
}

void ep_lookup_cancel(struct ep_lookup *l)
{
    if (!l->state)
        return;
    l->state->asker = NULL;
    l->state = NULL;
}
