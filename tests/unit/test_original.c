/* link: ep_net */
/* Original destinations, asked of a real kernel: this is the one unit test that needs sockets. In a network namespace
 * of its own, with a rule that bends port 9999 to the listener; where that isn't allowed the test says so and skips. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "net/net.h"

static const char rules[] = "printf 'table inet t {\\nchain o {\\ntype nat hook output priority -100\\n"
                            "tcp dport 9999 redirect to :15001\\n}\\n}\\n' | nft -f - 2>/dev/null";

static bool namespace_with_rules(void)
{
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd;
    bool good;

    if (unshare(CLONE_NEWNET) < 0)
        return false;
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    good = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0;
    if (fd >= 0)
        close(fd);
    return good && system(rules) == 0;
}

static int listen_at(const char *at)
{
    struct ep_addr a;
    int one = 1, fd;

    assert_true(ep_addr_parse(ep_str(at), &a));
    fd = socket(a.u.sa.sa_family, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (a.u.sa.sa_family == AF_INET6) {
        int off = 0;
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    assert_int_equal(bind(fd, &a.u.sa, a.len), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

/* Dials `to`, and looks at what the listener accepts. NULL: no original destination. */
static void expect(int listener, const char *to, enum ep_intercept how, const char *want)
{
    struct ep_addr a, got;
    char text[128];
    int client, accepted;

    assert_true(ep_addr_parse(ep_str(to), &a));
    client = socket(a.u.sa.sa_family, SOCK_STREAM, 0);
    assert_int_equal(connect(client, &a.u.sa, a.len), 0);
    accepted = accept(listener, NULL, NULL);
    assert_true(accepted >= 0);
    if (ep_original_destination(accepted, how, &got)) {
        ep_addr_format(&got, text);
        if (!want || strcmp(text, want) != 0)
            fail_msg("%s by %d: '%s', want '%s'", to, (int)how, text, want ? want : "none");
    } else {
        assert_null(want);
        assert_int_equal(got.len, 0);
    }
    close(client);
    close(accepted);
}

static void test_redirect(void **state)
{
    (void)state;
    if (!namespace_with_rules())
        skip();
    int both = listen_at("[::]:15001");
    expect(both, "127.0.0.1:9999", EP_INTERCEPT_REDIRECT, "127.0.0.1:9999");
    expect(both, "127.0.0.7:9999", EP_INTERCEPT_REDIRECT, "127.0.0.7:9999");
    expect(both, "[::1]:9999", EP_INTERCEPT_REDIRECT, "[::1]:9999");
    expect(both, "127.0.0.1:15001", EP_INTERCEPT_REDIRECT, NULL); /* dialled directly */
    expect(both, "[::1]:15001", EP_INTERCEPT_REDIRECT, NULL);
    close(both);
    int four = listen_at("127.0.0.1:15001");
    expect(four, "127.0.0.9:9999", EP_INTERCEPT_REDIRECT, "127.0.0.9:9999");
    expect(four, "127.0.0.1:15001", EP_INTERCEPT_REDIRECT, NULL);
    close(four);
}

static void test_local(void **state)
{
    int both = listen_at("[::]:0");
    struct ep_addr a = {.len = sizeof a.u};
    char four[40], six[40];

    (void)state;
    assert_int_equal(getsockname(both, &a.u.sa, &a.len), 0);
    snprintf(four, sizeof four, "127.0.0.1:%u", ep_addr_port(&a));
    snprintf(six, sizeof six, "[::1]:%u", ep_addr_port(&a));
    expect(both, four, EP_INTERCEPT_TPROXY, four);
    expect(both, six, EP_INTERCEPT_TPROXY, six);
    expect(both, four, EP_INTERCEPT_NONE, NULL);
    expect(both, four, EP_INTERCEPT_REDIRECT, NULL);
    close(both);
}

static void test_no_socket(void **state)
{
    struct ep_addr got;

    (void)state;
    assert_false(ep_original_destination(-1, EP_INTERCEPT_REDIRECT, &got));
    assert_false(ep_original_destination(-1, EP_INTERCEPT_TPROXY, &got));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_redirect),
        cmocka_unit_test(test_local),
        cmocka_unit_test(test_no_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
