/* link: ep_upstream */
/* DNS: the resolver against a name server of our own on loopback, and clusters by name. */
#include "upstream_play.h"

struct nameserver {
    struct stage *stage;
    struct event event;
    int fd;
    char address[128];
    unsigned asked;
    uint32_t ttl;
    unsigned n_a, n_aaaa;
    struct in_addr a[8];
    struct in6_addr aaaa[4];
    int rcode; /* of every answer */
    bool silent;
};

static void put16(unsigned char **p, unsigned v)
{
    *(*p)++ = (unsigned char)(v >> 8);
    *(*p)++ = (unsigned char)v;
}

static void put_record(unsigned char **p, unsigned type, uint32_t ttl, const void *data, unsigned n)
{
    put16(p, 0xc00c); /* the name of the question */
    put16(p, type);
    put16(p, 1);
    put16(p, ttl >> 16);
    put16(p, ttl & 0xffff);
    put16(p, n);
    memcpy(*p, data, n);
    *p += n;
}

static void on_query(evutil_socket_t fd, short what, void *arg)
{
    struct nameserver *s = arg;
    unsigned char q[512], r[1024], *p = r;
    struct sockaddr_in from;
    socklen_t from_n = sizeof from;
    ssize_t n = recvfrom(fd, q, sizeof q, 0, (struct sockaddr *)&from, &from_n);
    size_t at = 12;

    (void)what;
    assert_true(n > 12);
    s->asked++;
    if (s->silent)
        return;
    while (at < (size_t)n && q[at])
        at += q[at] + 1u;
    unsigned type = (unsigned)q[at + 1] << 8 | q[at + 2];
    size_t question = at + 5 - 12;
    unsigned answers = s->rcode ? 0 : type == 1 ? s->n_a : type == 28 ? s->n_aaaa : 0;

    memcpy(p, q, 2);
    p += 2;
    put16(&p, 0x8180u | (unsigned)s->rcode);
    put16(&p, 1);
    put16(&p, answers);
    put16(&p, 0);
    put16(&p, 0);
    memcpy(p, q + 12, question);
    p += question;
    for (unsigned i = 0; i < answers; i++)
        put_record(&p, type, s->ttl, type == 1 ? (void *)&s->a[i] : (void *)&s->aaaa[i], type == 1 ? 4 : 16);
    assert_true(sendto(fd, r, (size_t)(p - r), 0, (struct sockaddr *)&from, from_n) > 0);
}

static struct ep_resolver *resolver_of(struct stage *s)
{
    return ((struct ep_upworker *)s->w.resolver)->resolver;
}

static void nameserver_open(struct nameserver *s, struct stage *stage)
{
    struct ep_addr a;

    memset(s, 0, sizeof *s);
    s->stage = stage;
    s->ttl = 60;
    assert_true(ep_addr_parse(EP_STR("127.0.0.1:0"), &a));
    s->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->fd, &a.u.sa, a.len), 0);
    assert_int_equal(getsockname(s->fd, &a.u.sa, &a.len), 0);
    ep_addr_format(&a, s->address);
    event_assign(&s->event, stage->w.base, s->fd, EV_READ | EV_PERSIST, on_query, s);
    event_add(&s->event, NULL);
    assert_true(ep_resolver_set_servers(resolver_of(stage), s->address));
}

static void nameserver_close(struct nameserver *s)
{
    event_del(&s->event);
    close(s->fd);
}

static void says(struct nameserver *s, unsigned n, const char *const *addresses)
{
    s->n_a = n;
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(inet_pton(AF_INET, addresses[i], &s->a[i]), 1);
}

struct asked {
    struct ep_lookup lookup;
    unsigned called;
    size_t n;
    uint64_t ttl_ns;
    char error[64];
    char v[8][64];
};

static void on_done(struct ep_lookup *l, const struct ep_resolved *r)
{
    struct asked *a = EP_CONTAINER(l, struct asked, lookup);
    char text[128];

    a->called++;
    a->n = r->n;
    a->ttl_ns = r->ttl_ns;
    snprintf(a->error, sizeof a->error, "%s", r->error ? r->error : "");
    for (size_t i = 0; i < r->n && i < 8; i++) {
        ep_addr_format(&r->v[i], text);
        snprintf(a->v[i], sizeof a->v[i], "%.60s", text);
    }
}

static void ask(struct asked *a, struct stage *s, const char *host)
{
    memset(a, 0, sizeof *a);
    a->lookup.done = on_done;
    ep_resolver_lookup(resolver_of(s), &a->lookup, ep_str(host), 80);
}

static void test_numeric(void **state)
{
    static const struct {
        const char *host, *is;
    } table[] = {
        {"10.1.2.3", "10.1.2.3:80"}, {"[2001:db8::1]", "[2001:db8::1]:80"}, {"2001:db8::1", "[2001:db8::1]:80"}};
    struct stage s;
    struct asked a;

    (void)state;
    stage_open(&s);
    for (size_t i = 0; i < EP_COUNT(table); i++) {
        ask(&a, &s, table[i].host);
        assert_int_equal(a.called, 1); /* at once, and nobody is asked */
        assert_string_equal(a.v[0], table[i].is);
        assert_true(a.ttl_ns == UINT64_MAX);
    }
    stage_close(&s);
}

static void test_hosts_file(void **state)
{
    struct stage s;
    struct asked a;
    struct nameserver dns;

    (void)state;
    stage_open(&s);
    nameserver_open(&dns, &s);
    ask(&a, &s, "localhost");
    UNTIL(&s, a.called);
    assert_true(a.n >= 1);
    assert_int_equal(dns.asked, 0);
    nameserver_close(&dns);
    stage_close(&s);
}

static void test_answers(void **state)
{
    static const char *const three[] = {"127.0.0.2", "127.0.0.3", "127.0.0.2"};
    struct stage s;
    struct asked a;
    struct nameserver dns;

    (void)state;
    stage_open(&s);
    nameserver_open(&dns, &s);
    says(&dns, 3, three);
    dns.n_aaaa = 1;
    assert_int_equal(inet_pton(AF_INET6, "::1", &dns.aaaa[0]), 1);
    dns.ttl = 42;
    ask(&a, &s, "tools.test");
    assert_int_equal(a.called, 0);
    UNTIL(&s, a.called);
    assert_true(a.n == 2 || a.n == 3); /* each address once; ::1 where there is IPv6 */
    assert_int_equal(a.ttl_ns, 42 * EP_S);
    assert_int_equal(dns.asked, 2); /* both families */
    dns.n_aaaa = 0;
    dns.ttl = 0;
    ask(&a, &s, "tools.test");
    UNTIL(&s, a.called);
    assert_int_equal(a.n, 2);
    assert_int_equal(a.ttl_ns, EP_TTL_MIN_NS);
    dns.ttl = 86400;
    ask(&a, &s, "tools.test");
    UNTIL(&s, a.called);
    assert_int_equal(a.ttl_ns, EP_TTL_MAX_NS);
    dns.rcode = 3;
    ask(&a, &s, "tools.test");
    UNTIL(&s, a.called);
    assert_int_equal(a.n, 0);
    assert_true(a.error[0]);
    assert_int_equal(a.called, 1);
    nameserver_close(&dns);
    stage_close(&s);
}

static void test_cancelled_and_ended(void **state)
{
    struct stage s;
    struct asked a, b;
    struct nameserver dns;

    (void)state;
    stage_open(&s);
    nameserver_open(&dns, &s);
    dns.silent = true;
    ask(&a, &s, "one.test");
    ask(&b, &s, "two.test");
    ep_lookup_cancel(&a.lookup);
    ep_lookup_cancel(&a.lookup);
    settle(&s);
    assert_int_equal(b.called, 0);
    nameserver_close(&dns);
    stage_close(&s); /* with one still under way */
    assert_int_equal(a.called, 0);
    assert_int_equal(b.called, 1);
    assert_int_equal(b.n, 0);
}

static struct ep_cluster *named(struct stage *s, char text[64], const struct server *server)
{
    struct ep_cluster_config config = config_of("tools", NULL, 0);

    snprintf(text, 64, "tools.test:%u", ep_addr_port(&server->addr));
    config.dns = ep_str(text);
    return cluster_of(s, &config);
}

static void test_cluster_by_name(void **state)
{
    static const char *const one[] = {"127.0.0.1"};
    struct stage s;
    struct server server;
    struct nameserver dns;
    struct caller c;
    char text[64];

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H2);
    nameserver_open(&dns, &s);
    says(&dns, 1, one);
    struct ep_cluster *cl = named(&s, text, &server);
    call(&c, &s, cl, EP_HTTP_2); /* before the first answer: it waits */
    assert_false(c.failed);
    UNTIL(&s, c.ended);
    caller_done(&c);
    assert_int_equal(c.status, 200);
    assert_int_equal(exchange(&s, cl, EP_HTTP_2, NULL), 200);
    ep_cluster_unref(cl);

    dns.rcode = 3; /* a name that isn't there */
    cl = named(&s, text, &server);
    call(&c, &s, cl, EP_HTTP_2);
    UNTIL(&s, c.failed);
    assert_int_equal(c.why, EP_UPSTREAM_NO_ENDPOINT);
    caller_done(&c);
    exchange(&s, cl, EP_HTTP_2, &c); /* later ones don't wait */
    assert_true(c.failed && c.why == EP_UPSTREAM_NO_ENDPOINT);
    dns.rcode = 0; /* until it is there */
    UNTIL(&s, cl->n_members == 1);
    assert_int_equal(exchange(&s, cl, EP_HTTP_2, NULL), 200);
    ep_cluster_unref(cl);

    dns.silent = true; /* ended while asking, with a request that waits */
    cl = named(&s, text, &server);
    call(&c, &s, cl, EP_HTTP_2);
    settle(&s);
    ep_cluster_unref(cl);
    UNTIL(&s, c.failed);
    caller_done(&c);
    server_close(&server);
    nameserver_close(&dns);
    stage_close(&s);
}

/* The answer changes: a new address is used, the old one's connections end; then DNS fails and nothing changes. */
static void test_answer_changes(void **state)
{
    static const char *const before[] = {"127.0.0.1", "127.0.0.3"}, *const after[] = {"127.0.0.3", "127.0.0.2"};
    struct stage s;
    struct server server;
    struct nameserver dns;
    char text[64];

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H2);
    nameserver_open(&dns, &s);
    says(&dns, 2, before);
    dns.ttl = 1;
    struct ep_cluster *cl = named(&s, text, &server);
    UNTIL(&s, cl->n_members == 2);
    struct ep_endpoint *stays = cl->members[1];
    for (int i = 0; i < 50 && server.connections == 0; i++) /* nobody listens on 127.0.0.3 */
        exchange(&s, cl, EP_HTTP_2, NULL);
    assert_int_equal(server.open, 1);
    says(&dns, 2, after);
    UNTIL(&s, ep_str_starts(ep_endpoint_name(cl->members[0]), EP_STR("127.0.0.3")));
    assert_ptr_equal(cl->members[0], stays);
    assert_int_equal(cl->n_members, 2);
    UNTIL(&s, server.open == 0);
    dns.rcode = 2; /* SERVFAIL */
    UNTIL(&s, cl->dns_failing);
    assert_int_equal(cl->n_members, 2);
    ep_cluster_unref(cl);
    server_close(&server);
    nameserver_close(&dns);
    stage_close(&s);
}

static void test_names_of_clusters(void **state)
{
    static const struct {
        const char *text, *host;
        unsigned port;
    } table[] = {
        {"tools.agents.svc:8080", "tools.agents.svc", 8080},
        {"localhost:1", "localhost", 1},
        {"[::1]:443", "[::1]", 443},
        {"a_b-c.d:65535", "a_b-c.d", 65535},
        {"tools", NULL, 0},
        {"tools:", NULL, 0},
        {":80", NULL, 0},
        {"tools:0", NULL, 0},
        {"tools:65536", NULL, 0},
        {"to ols:80", NULL, 0},
        {"tools/x:80", NULL, 0},
        {"", NULL, 0},
    };
    struct ep_str host;
    uint16_t port;

    (void)state;
    for (size_t i = 0; i < EP_COUNT(table); i++) {
        bool good = ep_cluster_dns_parse(ep_str(table[i].text), &host, &port);
        assert_int_equal(good, table[i].host != NULL);
        if (!good)
            continue;
        assert_true(ep_str_eq(host, ep_str(table[i].host)));
        assert_int_equal(port, table[i].port);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numeric),           cmocka_unit_test(test_hosts_file),
        cmocka_unit_test(test_answers),           cmocka_unit_test(test_cancelled_and_ended),
        cmocka_unit_test(test_cluster_by_name),   cmocka_unit_test(test_answer_changes),
        cmocka_unit_test(test_names_of_clusters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
