/* link: ep_observe */
/* The audit: the chain holds over restarts, days, threads and torn lines; and each way of tampering is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "observe/observe.h"

static char directory[64];

static void path_of(const char *name, char out[128])
{
    (void)snprintf(out, 128, "%s/%s", directory, name);
}

static void today(char name[32])
{
    char time[32];

    (void)ep_time_rfc3339(ep_clock_wall_ns(), time);
    (void)snprintf(name, 32, "audit-%.10s.jsonl", time);
}

static int make_directory(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof(directory), "/tmp/ephor-audit-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    DIR *d = opendir(directory);
    char path[400];

    (void)state;
    for (struct dirent *e; d && (e = readdir(d));) {
        (void)snprintf(path, sizeof(path), "%s/%s", directory, e->d_name);
        (void)unlink(path);
    }
    (void)closedir(d);
    return rmdir(directory);
}

static struct ep_audit *begin(uint64_t retain_days, struct ep_error *err)
{
    struct ep_audit_config c = {
        .directory = ep_str(directory), .retain_ns = retain_days * 86400 * EP_S, .sync_ns = 100 * EP_MS};

    return ep_audit_new(&c, err);
}

static void write_some(unsigned n)
{
    struct ep_error err = {""};
    struct ep_audit *a = begin(36500, &err);
    const struct ep_audit_field fields[] = {
        {"policy", EP_STR("tools")}, {"reason", EP_STR("a\"\n\xff")}, {"empty", {NULL, 0}}};

    assert_string_equal(err.text, "");
    assert_non_null(a);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(ep_audit_write(a, "decision", fields, EP_COUNT(fields)), 0);
    ep_audit_sync(a);
    ep_audit_free(a);
}

static char *slurp(const char *name, size_t *n)
{
    char path[128], *text;
    FILE *f;
    struct stat st;

    path_of(name, path);
    f = fopen(path, "re");
    assert_non_null(f);
    assert_int_equal(fstat(fileno(f), &st), 0);
    text = malloc((size_t)st.st_size + 1);
    *n = fread(text, 1, (size_t)st.st_size, f);
    text[*n] = 0;
    (void)fclose(f);
    return text;
}

static void spill(const char *name, const char *text, size_t n)
{
    char path[128];
    FILE *f;

    path_of(name, path);
    f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    (void)fclose(f);
}

static void the_chain_goes_on_after_a_restart(void **state)
{
    struct ep_error err;
    char name[32], path[128], *text;
    struct stat st;
    size_t n;

    (void)state;
    assert_int_equal(ep_audit_verify(directory, &err), 0);
    write_some(3);
    write_some(0);
    write_some(2);
    assert_int_equal(ep_audit_verify(directory, &err), 5);
    today(name);
    path_of(name, path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    text = slurp(name, &n);
    assert_memory_equal(text, "{\"seq\":1,\"time\":\"2", 18);
    assert_non_null(strstr(
        text, "\"event\":\"decision\",\"policy\":\"tools\",\"reason\":\"a\\\"\\n\xef\xbf\xbd\",\"prev\":\"0000"));
    assert_null(strstr(text, "empty"));
    free(text);
}

static void each_change_is_found(void **state)
{
    struct ep_error err;
    char name[32], *text, *copy, *second, *third;
    size_t n;

    (void)state;
    write_some(4);
    today(name);
    text = slurp(name, &n);
    copy = malloc(n + 1);
    second = strchr(text, '\n') + 1;
    third = strchr(second, '\n') + 1;

    memcpy(copy, text, n); /* changed */
    copy[second - text + 60] ^= 1;
    spill(name, copy, n);
    assert_int_equal(ep_audit_verify(directory, &err), -1);
    assert_non_null(strstr(err.text, ".jsonl:2: the record was changed"));

    memcpy(copy, text, (size_t)(second - text)); /* removed */
    memcpy(copy + (second - text), third, n - (size_t)(third - text));
    spill(name, copy, n - (size_t)(third - second));
    assert_int_equal(ep_audit_verify(directory, &err), -1);
    assert_non_null(strstr(err.text, ".jsonl:2: a record is missing"));

    memcpy(copy, second, (size_t)(third - second)); /* the first two in the other order */
    memcpy(copy + (third - second), text, (size_t)(second - text));
    memcpy(copy + (third - text), third, n - (size_t)(third - text));
    spill(name, copy, n);
    assert_int_equal(ep_audit_verify(directory, &err), -1);
    assert_non_null(strstr(err.text, ".jsonl:2: "));

    spill(name, "garbage\n", 8);
    assert_int_equal(ep_audit_verify(directory, &err), -1);
    assert_non_null(strstr(err.text, ".jsonl:1: not an audit record"));
    assert_null(begin(365, &err)); /* evidence is not written over */
    assert_non_null(strstr(err.text, "ephor audit verify"));

    for (size_t cut = 1; cut < n; cut += 41) { /* whatever is cut off, nothing is read past the end */
        spill(name, text, cut);
        (void)ep_audit_verify(directory, &err);
    }
    free(copy);
    free(text);
}

static void a_torn_line_is_cut_off_and_reported(void **state)
{
    struct ep_error err;
    char name[32], *text;
    size_t n;

    (void)state;
    write_some(2);
    today(name);
    text = slurp(name, &n);
    spill(name, text, n - 10);
    free(text);
    assert_int_equal(ep_audit_verify(directory, &err), -1);
    assert_non_null(strstr(err.text, ":2: the record is cut off"));
    write_some(1);
    assert_int_equal(ep_audit_verify(directory, &err), 3); /* one that was whole, "recovered", one more */
    text = slurp(name, &n);
    assert_non_null(strstr(text, "\"seq\":2,"));
    assert_non_null(strstr(text, "\"event\":\"recovered\",\"cut_bytes\":\""));
    free(text);
}

static void days_are_files_of_one_chain_and_expire(void **state)
{
    struct ep_error err;
    struct ep_audit *a;
    char name[32], now[128], then[128];

    (void)state;
    today(name);
    path_of(name, now);
    write_some(3);
    path_of("audit-2020-01-01.jsonl", then);
    assert_int_equal(rename(now, then), 0);
    write_some(2);
    path_of("audit-2020-01-02.jsonl", then);
    assert_int_equal(rename(now, then), 0);
    write_some(0); /* an empty file of today is no end of the chain */
    write_some(1);
    assert_int_equal(ep_audit_verify(directory, &err), 6);

    path_of("audit-2020-01-01.jsonl", then); /* the oldest may be gone, one in the middle may not */
    assert_int_equal(unlink(then), 0);
    assert_int_equal(ep_audit_verify(directory, &err), 3);
    a = begin(1, &err);
    assert_non_null(a);
    assert_int_equal(ep_audit_write(a, "x", NULL, 0), 0);
    ep_audit_free(a);
    path_of("audit-2020-01-02.jsonl", then);
    assert_int_equal(access(then, F_OK), -1);
    assert_int_equal(ep_audit_verify(directory, &err), 2);
}

static void a_clock_that_goes_back_stays_in_the_newest_file(void **state)
{
    struct ep_error err;
    char name[32], now[128], then[128], *text;
    size_t n;

    (void)state;
    today(name);
    path_of(name, now);
    path_of("audit-2999-01-01.jsonl", then);
    write_some(2);
    assert_int_equal(rename(now, then), 0);
    write_some(2);
    assert_int_equal(access(now, F_OK), -1);
    text = slurp("audit-2999-01-01.jsonl", &n);
    assert_non_null(strstr(text, "\"seq\":4,"));
    free(text);
    assert_int_equal(ep_audit_verify(directory, &err), 4);
}

static void only_one_may_write(void **state)
{
    struct ep_error err;
    struct ep_audit *a = begin(365, &err);

    (void)state;
    assert_non_null(a);
    assert_null(begin(365, &err));
    assert_non_null(strstr(err.text, "another process writes there"));
    ep_audit_free(a);
    assert_int_equal(ep_audit_write(NULL, "x", NULL, 0), 0);
    ep_audit_sync(NULL);
    ep_audit_free(NULL);
}

static void *write_many(void *audit)
{
    for (unsigned i = 0; i < 300; i++) {
        if (ep_audit_write(audit, "thread", NULL, 0) != 0)
            return audit;
        ep_audit_sync(audit);
    }
    return NULL;
}

static void threads_share_one_chain(void **state)
{
    struct ep_error err;
    struct ep_audit *a = begin(365, &err);
    pthread_t threads[4];
    void *failed;

    (void)state;
    assert_non_null(a);
    for (unsigned i = 0; i < EP_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, a), 0);
    for (unsigned i = 0; i < EP_COUNT(threads); i++) {
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    ep_audit_free(a);
    assert_int_equal(ep_audit_verify(directory, &err), 1200);
}

static void what_cannot_be_written_is_an_error(void **state)
{
    struct ep_error err;
    struct ep_audit_config c = {.directory = EP_STR("/proc/nowhere"), .retain_ns = 1};

    (void)state;
    assert_null(ep_audit_new(&c, &err));
    assert_non_null(strstr(err.text, "/proc/nowhere"));
    c.directory = ep_str(NULL);
    assert_null(ep_audit_new(&c, &err));
    assert_int_equal(ep_audit_verify("/proc/nowhere", &err), -1);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_directory, remove_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_chain_goes_on_after_a_restart),
        TEST(each_change_is_found),
        TEST(a_torn_line_is_cut_off_and_reported),
        TEST(days_are_files_of_one_chain_and_expire),
        TEST(a_clock_that_goes_back_stays_in_the_newest_file),
        TEST(only_one_may_write),
        TEST(threads_share_one_chain),
        TEST(what_cannot_be_written_is_an_error),
    };

    ep_log_set_level(EP_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
