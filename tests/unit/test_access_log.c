/* link: ep_observe */
/* The access log: what a line holds, what it must not, and slow readers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "observe/observe.h"

static char directory[] = "/tmp/ephor-access-XXXXXX", path[64], output[65536];

static int make_directory(void **state)
{
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    (void)snprintf(path, sizeof(path), "%s/log", directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(directory);
}

static struct ep_access_log *begin(bool query, double sample)
{
    struct ep_access_log_config c = {.enabled = true, .path = ep_str(path), .query = query, .sample = sample};
    struct ep_error err;
    struct ep_access_log *l;

    (void)unlink(path);
    l = ep_access_log_new(&c, &err);
    assert_non_null(l);
    return l;
}

static const char *content(void)
{
    FILE *f = fopen(path, "re");
    size_t n;

    assert_non_null(f);
    n = fread(output, 1, sizeof(output) - 1, f);
    (void)fclose(f);
    output[n] = 0;
    return output;
}

static const struct ep_access_record record = {
    .wall_ns = 1700000000 * EP_S,
    .listener = EP_STR_INIT("in"),
    .method = EP_STR_INIT("POST"),
    .path = EP_STR_INIT("/v1?key=secret"),
    .user_agent = EP_STR_INIT("a\"\n\x1b\xff"),
    .tool = EP_STR_INIT("search"),
    .flag = "timeout",
    .status = 504,
    .grpc_status = -1,
    .attempts = 1,
    .bytes_in = 12,
    .total_ns = 1234567,
};

static void a_line_holds_what_is_known(void **state)
{
    static const char expected[] =
        "{\"time\":\"2023-11-14T22:13:20.000000Z\",\"listener\":\"in\",\"method\":\"POST\",\"path\":\"/v1\","
        "\"user_agent\":\"a\\\"\\n\\u001b\xef\xbf\xbd\",\"tool\":\"search\",\"flag\":\"timeout\",\"status\":504,"
        "\"bytes_in\":12,\"bytes_out\":0,\"total_us\":1234,\"self_us\":0,\"filter_us\":0,\"queue_us\":0,"
        "\"upstream_us\":0}\n";
    struct ep_access_log *l = begin(false, 1);

    (void)state;
    ep_access_log_record(l, &record);
    ep_access_log_record(l, &record);
    assert_string_equal(content(), ""); /* nothing before the end of the turn */
    ep_access_log_flush(l);
    assert_memory_equal(content(), expected, sizeof(expected) - 1);
    assert_string_equal(output + sizeof(expected) - 1, expected); /* the second is like the first */
    ep_access_log_free(l);
}

static void the_query_is_written_when_asked(void **state)
{
    struct ep_access_log *l = begin(true, 1);

    (void)state;
    ep_access_log_record(l, &record);
    ep_access_log_free(l); /* writes what is left */
    assert_non_null(strstr(content(), "\"path\":\"/v1?key=secret\""));
}

static void good_ones_are_sampled_and_bad_ones_kept(void **state)
{
    struct ep_access_log *l = begin(false, 0.1);
    struct ep_rng rng;
    unsigned good = 0;

    (void)state;
    ep_rng_seed(&rng, 1);
    for (unsigned i = 0; i < 10000; i++) {
        good += ep_access_log_wants(l, false, &rng);
        assert_true(ep_access_log_wants(l, true, &rng));
    }
    assert_in_range(good, 900, 1100);
    ep_access_log_free(l);
}

static void a_path_that_cannot_be_opened_is_an_error(void **state)
{
    struct ep_access_log_config c = {.enabled = true, .path = EP_STR("/nonexistent/x/y")};
    struct ep_error err;

    (void)state;
    assert_null(ep_access_log_new(&c, &err));
    assert_string_equal(err.text, "access log /nonexistent/x/y: No such file or directory");
}

/* A pipe that nobody reads holds 64 KiB: the worker must go on, and every line that comes out must be whole. */
static void a_slow_reader_stops_nobody(void **state)
{
    struct ep_access_log *l;
    struct ep_access_log_config c = {.enabled = true, .path = ep_str(path), .sample = 1};
    struct ep_error err;
    int fd;
    ssize_t n;
    size_t bytes = 0, lines = 0;
    char last = 0;

    (void)state;
    (void)unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    l = ep_access_log_new(&c, &err);
    assert_non_null(l);
    for (unsigned i = 0; i < 20000; i++) { /* 4 MB */
        ep_access_log_record(l, &record);
        if (i % 10 == 0)
            ep_access_log_flush(l);
    }
    ep_log_set_level(EP_LOG_OFF); /* it says how many were lost */
    do {
        ep_access_log_flush(l);
        n = read(fd, output, sizeof(output));
        for (ssize_t i = 0; i < n; i++) {
            if (last == '\n' || bytes + (size_t)i == 0)
                assert_int_equal(output[i], '{');
            last = output[i];
            lines += last == '\n';
        }
        bytes += n > 0 ? (size_t)n : 0;
    } while (n > 0);
    assert_int_equal(last, '\n');
    assert_in_range(bytes, 1000000, 1300000); /* what was held, and what the pipe had */
    assert_true(lines > 3000);
    ep_access_log_free(l);
    ep_log_set_level(EP_LOG_INFO);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_holds_what_is_known),
        cmocka_unit_test(the_query_is_written_when_asked),
        cmocka_unit_test(good_ones_are_sampled_and_bad_ones_kept),
        cmocka_unit_test(a_path_that_cannot_be_opened_is_an_error),
        cmocka_unit_test(a_slow_reader_stops_nobody),
    };

    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
