/* The log: what a line looks like, and that bytes of a peer can break neither JSON nor a terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/base.h"

static char output[65536];

/* Points standard error into a pipe, so that the line can be looked at. */
static size_t said(void (*speak)(void))
{
    int ends[2], saved = dup(STDERR_FILENO);
    ssize_t n;

    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    speak();
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    n = read(ends[0], output, sizeof(output) - 1);
    output[n > 0 ? n : 0] = 0;
    (void)close(saved);
    (void)close(ends[0]);
    (void)close(ends[1]);
    return n > 0 ? (size_t)n : 0;
}

static void nasty(void)
{
    errno = EAGAIN;
    ep_log(EP_LOG_WARN, "h2", "a\"b\\c\n\x1b[31m\xff \xc3\xa4 %d", 7);
    assert_int_equal(errno, EAGAIN);
}

static void json_lines(void **state)
{
    (void)state;
    ep_log_set_json(true);
    assert_true(said(nasty) > 0);
    assert_memory_equal(output, "{\"time\":\"2", 10);
    assert_non_null(strstr(output, "\"level\":\"warn\",\"topic\":\"h2\",\"message\":"
                                   "\"a\\\"b\\\\c\\u000a\\u001b[31m\\ufffd \xc3\xa4 7\"}\n"));
}

static void text_lines(void **state)
{
    (void)state;
    ep_log_set_json(false);
    assert_true(said(nasty) > 0);
    assert_non_null(strstr(output, " warn  h2: a\"b\\c\\x0a\\x1b[31m? \xc3\xa4 7\n"));
    assert_null(strchr(output, 0x1b));
}

static void huge(void)
{
    char text[9000];

    memset(text, 1, sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    ep_info("x", "%s", text);
}

static void long_lines_are_cut(void **state)
{
    size_t n;

    (void)state;
    ep_log_set_json(true);
    n = said(huge);
    assert_in_range(n, 2047 * 6, 2047 * 6 + 200);
    assert_string_equal(output + n - 3, "\"}\n");
}

static void quiet(void)
{
    ep_debug("x", "debug %d", 1);
    ep_info("x", "info");
    ep_log(EP_LOG_OFF, "x", "never");
}

static void levels(void **state)
{
    enum ep_log_level level;

    (void)state;
    assert_true(ep_log_level_parse("Debug", &level) && level == EP_LOG_DEBUG);
    assert_false(ep_log_level_parse("loud", &level));
    assert_string_equal(ep_log_level_name(EP_LOG_ERROR), "error");
    ep_log_set_level(EP_LOG_ERROR);
    assert_int_equal(said(quiet), 0);
    ep_log_set_level(EP_LOG_DEBUG);
    assert_true(said(quiet) > 0);
    assert_non_null(strstr(output, "debug 1"));
    assert_null(strstr(output, "never"));
    ep_log_set_level(EP_LOG_INFO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_lines),
        cmocka_unit_test(text_lines),
        cmocka_unit_test(long_lines_are_cut),
        cmocka_unit_test(levels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
