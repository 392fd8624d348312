/* link: ep_observe */
/* The audit: the chain holds over restarts, days, threads and torn lines; and each way of tampering is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "observe/observe.h"
#include "observe/signature.h"

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
        {.key = "policy", .value = EP_STR("tools")}, {.key = "reason", .value = EP_STR("a\"\n\xff")}, {.key = "empty"}};

    assert_string_equal(err.text, "");
    assert_non_null(a);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(ep_audit_write(a, "decision", fields, EP_COUNT(fields), NULL), 0);
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
    assert_int_equal(ep_audit_verify(directory, NULL, &err), 0);
    write_some(3);
    write_some(0);
    write_some(2);
    assert_int_equal(ep_audit_verify(directory, NULL, &err), 5);
    today(name);
    path_of(name, path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    text = slurp(name, &n);
    assert_memory_equal(text, "{\"seq\":1,\"timestamp\":\"2", 23);
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
    assert_int_equal(ep_audit_verify(directory, NULL, &err), -1);
    assert_non_null(strstr(err.text, ".jsonl:2: the record was changed"));

    memcpy(copy, text, (size_t)(second - text)); /* removed */
    memcpy(copy + (second - text), third, n - (size_t)(third - text));
    spill(name, copy, n - (size_t)(third - second));
    assert_int_equal(ep_audit_verify(directory, NULL, &err), -1);
    assert_non_null(strstr(err.text, ".jsonl:2: a record is missing"));

    memcpy(copy, second, (size_t)(third - second)); /* the first two in the other order */
    memcpy(copy + (third - second), text, (size_t)(second - text));
    memcpy(copy + (third - text), third, n - (size_t)(third - text));
    spill(name, copy, n);
    assert_int_equal(ep_audit_verify(directory, NULL, &err), -1);
    assert_non_null(strstr(err.text, ".jsonl:1: records are missing before it"));

    spill(name, "garbage\n", 8);
    assert_int_equal(ep_audit_verify(directory, NULL, &err), -1);
    assert_non_null(strstr(err.text, ".jsonl:1: not an audit record"));
    assert_null(begin(365, &err)); /* evidence is not written over */
    assert_non_null(strstr(err.text, "ephor audit verify"));

    free(copy);
    free(text);
}

/* Which line of the text this byte is in, from 1. */
static unsigned line_of(const char *text, size_t at)
{
    unsigned line = 1;

    for (size_t i = 0; i < at; i++)
        line += text[i] == '\n';
    return line;
}

/* The place that the error names is the damaged line, or the one before or behind it when a line's end is the damage. */
static void assert_located(const char *error, const char *text, size_t at, const char *what)
{
    const char *mark = strstr(error, ".jsonl:");
    unsigned long said = mark ? strtoul(mark + 7, NULL, 10) : 0, is = line_of(text, at);

    if (said != is)
        fail_msg("%s %zu: line %lu, and the error is: %s", what, at, is, error);
}

static void each_bit_counts(void **state)
{
    struct ep_error err;
    char name[32], *text, *copy;
    size_t n;

    (void)state;
    write_some(3);
    today(name);
    text = slurp(name, &n);
    copy = malloc(n);
    for (size_t at = 0; at < n; at++) {
        unsigned bit = (unsigned)(at * 5) & 7u; /* each of them in turn */
        memcpy(copy, text, n);
        copy[at] = (char)(copy[at] ^ (1 << bit));
        spill(name, copy, n);
        if (ep_audit_verify(directory, NULL, &err) != -1)
            fail_msg("bit %u of byte %zu can be flipped", bit, at);
        assert_located(err.text, text, at, "byte");
    }
    for (size_t cut = 0; cut < n; cut++) {
        bool between = cut > 0 && text[cut - 1] == '\n'; /* whole lines are left: the last of them is named */
        spill(name, text, cut);
        if (ep_audit_verify(directory, NULL, &err) != -1)
            fail_msg("all behind byte %zu can be cut off", cut);
        if (cut)
            assert_located(err.text, text, between ? cut - 1 : cut, "cut at");
        assert_null(between || cut == 0 ? begin(365, &err) : NULL); /* evidence is not written over */
    }
    spill(name, text, n);
    assert_int_equal(ep_audit_verify(directory, NULL, &err), 3);
    free(copy);
    free(text);

    text = slurp("head", &n);
    copy = malloc(n + 1);
    for (size_t at = 0; at < n; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            memcpy(copy, text, n);
            copy[at] = (char)(copy[at] ^ (1 << bit));
            spill("head", copy, n);
            if (ep_audit_verify(directory, NULL, &err) != -1 || !strstr(err.text, "/head: "))
                fail_msg("head: bit %u of byte %zu: %s", bit, at, err.text);
        }
        spill("head", text, at);
        assert_int_equal(ep_audit_verify(directory, NULL, &err), -1);
    }
    memcpy(copy, text, n);
    copy[n] = '\n';
    spill("head", copy, n + 1);
    assert_int_equal(ep_audit_verify(directory, NULL, &err), -1);
    path_of("head", copy);
    assert_int_equal(unlink(copy), 0);
    assert_int_equal(ep_audit_verify(directory, NULL, &err), -1);
    assert_non_null(strstr(err.text, "/head: it is missing"));
    assert_null(begin(365, &err));
    assert_non_null(strstr(err.text, "head is missing"));
    spill("head", text, n);
    assert_int_equal(ep_audit_verify(directory, NULL, &err), 3);
    free(copy);
    free(text);
}

/* All hashes made anew, by who has no key. */
static void a_signed_head_binds_the_whole_chain(void **state)
{
    struct ep_error err;
    struct ep_signer signer, other;
    struct ep_audit_config c = {
        .directory = ep_str(directory), .retain_ns = 365 * 86400 * EP_S, .sync_ns = 100 * EP_MS};
    uint8_t key[EP_PUBLIC_KEY_BYTES], wrong[EP_PUBLIC_KEY_BYTES], again[EP_PUBLIC_KEY_BYTES];
    char pem[EP_PRIVATE_PEM_BYTES], path[128], text[EP_PUBLIC_KEY_TEXT];
    struct ep_audit *a;

    (void)state;
    assert_true(ep_signer_generate(&signer, &err) && ep_signer_generate(&other, &err));
    ep_signer_public(&signer, key);
    ep_signer_public(&other, wrong);
    ep_public_key_text(key, text);
    assert_true(ep_public_key_parse(ep_str(text), again));
    assert_memory_equal(key, again, sizeof key);
    spill("key.pem", pem, ep_signer_pem(&signer, pem));
    path_of("key.pem", path);
    c.sign = ep_str(path);
    a = ep_audit_new(&c, &err);
    assert_non_null(a);
    assert_int_equal(ep_audit_write(a, "x", NULL, 0, NULL), 0);
    ep_audit_free(a);
    assert_int_equal(ep_audit_verify(directory, key, &err), 1);
    assert_int_equal(ep_audit_verify(directory, NULL, &err), 1);
    assert_int_equal(ep_audit_verify(directory, wrong, &err), -1);
    assert_non_null(strstr(err.text, "/head: the head's signature is not of this key"));
    c.sign = (struct ep_str){NULL, 0};
    a = ep_audit_new(&c, &err);
    assert_non_null(a);
    ep_audit_free(a);
    assert_int_equal(ep_audit_verify(directory, key, &err), -1);
    assert_non_null(strstr(err.text, "/head: the head is not signed"));
    c.sign = EP_STR("/proc/self/status");
    assert_null(ep_audit_new(&c, &err));
    assert_non_null(strstr(err.text, "audit.sign: /proc/self/status: no Ed25519 private key"));
}

static void note_wake(void *user)
{
    atomic_fetch_add((atomic_uint *)user, 1);
}

static void always_means_that_who_waits_is_woken_by_the_disk(void **state)
{
    struct ep_error err;
    struct ep_audit_config c = {.directory = ep_str(directory), .retain_ns = 365 * 86400 * EP_S};
    struct ep_audit *a = ep_audit_new(&c, &err);
    atomic_uint woken = 0;
    uint64_t seq;

    (void)state;
    assert_non_null(a);
    assert_true(ep_audit_waits(a));
    assert_true(ep_audit_listen(a, note_wake, &woken));
    assert_int_equal(ep_audit_write(a, "x", NULL, 0, &seq), 0);
    assert_int_equal(seq, 1);
    ep_audit_sync(a);
    assert_int_equal(ep_audit_state(a, seq), EP_AUDIT_SETTLED);
    assert_int_equal(ep_audit_state(a, seq + 1), EP_AUDIT_UNSETTLED);
    assert_true(atomic_load(&woken) >= 1);
    assert_int_equal(ep_audit_health(a).unsynced, 0);
    ep_audit_deafen(a, &woken);
    unsigned before = atomic_load(&woken);
    assert_int_equal(ep_audit_write(a, "x", NULL, 0, &seq), 0);
    ep_audit_sync(a);
    assert_int_equal(atomic_load(&woken), before);
    ep_audit_free(a);
}

static void members_are_found_in_what_was_written(void **state)
{
    const struct ep_str record = EP_STR("{\"seq\":7,\"a\":\"x\\u00e9\\n\\ud83d\\ude00\",\"tags\":[\"p\",2,[3]],\"m\":{"
                                        "\"deep\":{\"er\":\"yes\"},\"n\":null},\"z\":0.8}");
    struct ep_str rest, key, value;
    char out[64];
    size_t n;

    (void)state;
    assert_int_equal(ep_json_member(record, "seq").n, 1);
    n = ep_json_plain(ep_json_member(record, "a"), out, sizeof out);
    assert_int_equal(n, 8);
    assert_memory_equal(out, "x\xc3\xa9\n\xf0\x9f\x98\x80", 8);
    assert_int_equal(ep_json_plain(ep_json_member(record, "a"), out, 2), 1); /* no half of a character */
    n = ep_json_plain(ep_json_member(record, "m.deep.er"), out, sizeof out);
    assert_memory_equal(out, "yes", n);
    assert_int_equal(ep_json_member(record, "m.no").n, 0);
    assert_int_equal(ep_json_member(record, "seq.no").n, 0);
    rest = ep_json_member(record, "tags");
    n = 0;
    while (ep_json_next(&rest, &key, &value))
        n++;
    assert_int_equal(n, 3);
    for (size_t cut = 0; cut < record.n; cut++) /* nothing is read past the end */
        (void)ep_json_member(ep_str_n(record.p, cut), "z");
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
    text = realloc(text, n + 20);
    memcpy(text + n, text, 20); /* half a record, as of one who was cut off in the middle of a write */
    spill(name, text, n + 20);
    free(text);
    assert_int_equal(ep_audit_verify(directory, NULL, &err), -1);
    assert_non_null(strstr(err.text, ":3: the record is cut off"));
    write_some(1);
    assert_int_equal(ep_audit_verify(directory, NULL, &err), 4); /* those that were whole, "recovered", one more */
    text = slurp(name, &n);
    assert_non_null(strstr(text, "\"seq\":3,"));
    assert_non_null(strstr(text, "\"event\":\"recovered\",\"cut_bytes\":\"20\""));
    free(text);
}

static void days_are_files_of_one_chain_and_expire(void **state)
{
    struct ep_error err;
    struct ep_audit *a;
    char name[32], now[128], then[128], away[128], *text;
    size_t n;

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
    assert_int_equal(ep_audit_verify(directory, NULL, &err), 6);

    path_of("audit-2020-01-01.jsonl", then);
    path_of("audit-2020-01-01.away", away);
    assert_int_equal(rename(then, away), 0); /* the oldest may be gone when its time has come, and not before */
    assert_int_equal(ep_audit_verify(directory, NULL, &err), -1);
    assert_non_null(strstr(err.text, "audit-2020-01-02.jsonl:1: records are missing before it"));
    assert_int_equal(rename(away, then), 0);
    a = begin(1, &err);
    assert_non_null(a);
    assert_int_equal(ep_audit_write(a, "x", NULL, 0, NULL), 0);
    ep_audit_sync(a);
    assert_int_equal(access(then, F_OK), -1);
    ep_audit_free(a);
    assert_int_equal(ep_audit_verify(directory, NULL, &err), 3); /* one that was there, "expired", "x" */
    text = slurp(name, &n);
    assert_non_null(strstr(text, "\"event\":\"expired\",\"file\":\"audit-2020-01-02.jsonl\",\"first_kept\":\"6\""));
    free(text);
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
    assert_int_equal(ep_audit_verify(directory, NULL, &err), 4);
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
    assert_int_equal(ep_audit_write(NULL, "x", NULL, 0, NULL), 0);
    ep_audit_sync(NULL);
    ep_audit_free(NULL);
}

static void *write_many(void *audit)
{
    for (unsigned i = 0; i < 300; i++) {
        if (ep_audit_write(audit, "thread", NULL, 0, NULL) != 0)
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
    assert_int_equal(ep_audit_verify(directory, NULL, &err), 1200);
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
    assert_int_equal(ep_audit_verify("/proc/nowhere", NULL, &err), -1);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_directory, remove_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_chain_goes_on_after_a_restart),
        TEST(each_change_is_found),
        TEST(each_bit_counts),
        TEST(a_signed_head_binds_the_whole_chain),
        TEST(always_means_that_who_waits_is_woken_by_the_disk),
        cmocka_unit_test(members_are_found_in_what_was_written),
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
