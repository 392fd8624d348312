/* link: ep_config */
/* What the state directory keeps of policies: bundles, the last versions, since when each is known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/policy_trial.h"
#include "config/policy_versions.h"

#define HOUR (3600 * EP_S)
#define NOW  (1700000000ull * EP_S + 5)

struct place {
    char directory[32];
};

static int setup(void **state)
{
    struct place *p = malloc(sizeof *p);

    snprintf(p->directory, sizeof p->directory, "/tmp/ephor-life-XXXXXX");
    assert_non_null(mkdtemp(p->directory));
    ep_log_set_level(EP_LOG_OFF);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    char command[64];

    snprintf(command, sizeof command, "rm -rf %s", p->directory);
    assert_int_equal(system(command), 0);
    free(p);
    return 0;
}

static void put(const struct place *p, const char *name, const char *text)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", p->directory, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static struct ep_policy_bundle *take(const struct place *p)
{
    struct ep_error err = {""};
    struct ep_policy_bundle *b = ep_policy_bundle_read(p->directory, &err);

    if (!b)
        fail_msg("%s", err.text);
    return b;
}

/* A bundle of one policy with this text. */
static struct ep_policy_bundle *bundle(const struct place *p, const char *text)
{
    put(p, "a.lua", text);
    return take(p);
}

/* --- bundles --- */

static void test_names(void **state)
{
    static const struct {
        const char *name;
        bool policy, test;
    } rows[] = {
        {"a.lua", true, false},     {"a_test.lua", false, true},  {"_a.lua", false, false}, {".a.lua", false, false},
        {"a.lu", false, false},     {"x/a.lua", false, false},    {"", false, false},       {"x/a_test.lua", false, false},
        {"_test.lua", false, true}, {"test.lua", true, false},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        assert_int_equal(ep_policy_bundle_is_policy(ep_str(rows[i].name)), rows[i].policy);
        assert_int_equal(ep_policy_bundle_is_test(ep_str(rows[i].name)), rows[i].test);
    }
}

static void test_reads_in_order_of_names(void **state)
{
    struct place *p = *state;
    char folder[64];

    snprintf(folder, sizeof folder, "%s/lib", p->directory);
    assert_int_equal(mkdir(folder, 0700), 0);
    put(p, "b.lua", "two");
    put(p, "a.lua", "one");
    put(p, "_c.lua", "");
    put(p, "note.txt", "no");
    put(p, ".hidden.lua", "no");
    put(p, "lib/x.lua", "three");
    put(p, "a_test.lua", "t");
    struct ep_policy_bundle *b = take(p);
    static const char *const names[] = {"_c.lua", "a.lua", "a_test.lua", "b.lua", "lib/x.lua"};
    assert_int_equal(b->n, EP_COUNT(names));
    for (size_t i = 0; i < EP_COUNT(names); i++) {
        assert_string_equal(b->files[i].name.p, names[i]);
        assert_ptr_equal(ep_policy_bundle_find(b, ep_str(names[i])), &b->files[i]);
    }
    assert_null(ep_policy_bundle_find(b, EP_STR("a")));
    assert_null(ep_policy_bundle_find(b, EP_STR("a.luaa")));
    assert_null(ep_policy_bundle_find(b, EP_STR("zz")));
    assert_int_equal(b->n_policies, 2);
    assert_int_equal(b->bytes, 12);
    ep_policy_bundle_unref(b);
}

static void test_the_digest_tells_lists_apart(void **state)
{
    struct place *p = *state;
    struct ep_policy_bundle *one = bundle(p, "x"), *same = bundle(p, "x"), *other = bundle(p, "y");

    assert_string_equal(one->digest, same->digest);
    assert_string_not_equal(one->digest, other->digest);
    put(p, "a_test.lua", "t");
    struct ep_policy_bundle *tested = bundle(p, "x");
    assert_string_not_equal(one->digest, tested->digest);

    char a[EP_POLICY_BUNDLE_DIGEST_HEX + 1], b[EP_POLICY_BUNDLE_DIGEST_HEX + 1];
    ep_policy_bundle_digest(one, &one->files[0], a);
    ep_policy_bundle_digest(tested, &tested->files[0], b);
    assert_string_equal(a, b); /* a test more is the same policy */
    put(p, "_lib.lua", "l");
    struct ep_policy_bundle *with = take(p);
    ep_policy_bundle_digest(with, ep_policy_bundle_find(with, EP_STR("a.lua")), b);
    assert_string_not_equal(a, b); /* a library more is another */
    ep_policy_bundle_unref(one);
    ep_policy_bundle_unref(same);
    ep_policy_bundle_unref(other);
    ep_policy_bundle_unref(tested);
    ep_policy_bundle_unref(with);
}

static void test_a_bundle_is_printed_and_read_back(void **state)
{
    struct place *p = *state;
    struct ep_error err;
    size_t n;

    put(p, "b.lua", "line\n\n12 not a name\n");
    struct ep_policy_bundle *b = bundle(p, ""), *again;
    char *text = ep_policy_bundle_print(b, &n);
    again = ep_policy_bundle_parse(ep_str_n(text, n), &err);
    assert_non_null(again);
    assert_string_equal(again->digest, b->digest);
    ep_policy_bundle_unref(again);
    for (size_t cut = 0; cut < n; cut++) { /* nothing that is cut short reads as the same */
        again = ep_policy_bundle_parse(ep_str_n(text, cut), &err);
        if (again)
            assert_string_not_equal(again->digest, b->digest);
        ep_policy_bundle_unref(again);
    }
    for (size_t i = 0; i < n; i++) { /* nor with a byte changed */
        text[i] ^= 1;
        again = ep_policy_bundle_parse(ep_str_n(text, n), &err);
        if (again)
            assert_string_not_equal(again->digest, b->digest);
        ep_policy_bundle_unref(again);
        text[i] ^= 1;
    }
    free(text);
    ep_policy_bundle_unref(b);
}

/* --- versions --- */

static void test_ten_versions_are_kept_over_a_restart(void **state)
{
    struct place *p = *state;
    struct ep_policy_versions v;
    char digests[12][EP_POLICY_BUNDLE_DIGEST_HEX + 1], text[16];

    ep_policy_versions_init(&v, ep_str(p->directory));
    assert_int_equal(v.n, 0);
    for (int i = 0; i < 12; i++) {
        snprintf(text, sizeof text, "%d", i);
        struct ep_policy_bundle *b = bundle(p, text);
        ep_policy_versions_add(&v, b, NOW);
        memcpy(digests[i], b->digest, sizeof digests[i]);
        ep_policy_bundle_unref(b);
    }
    ep_policy_versions_set(&v, digests[11], "");
    ep_policy_versions_set(&v, digests[5], digests[11]);
    ep_policy_versions_fini(&v);

    ep_policy_versions_init(&v, ep_str(p->directory));
    assert_int_equal(v.n, EP_POLICY_VERSIONS);
    for (unsigned i = 0; i < v.n; i++)
        assert_string_equal(v.v[i].bundle->digest, digests[i + 2]);
    assert_string_equal(v.current, digests[5]);
    assert_string_equal(v.over, digests[11]);
    assert_int_equal(ep_policy_versions_find(&v, digests[1]), -1);
    assert_int_equal(ep_policy_versions_find(&v, digests[2]), 0);

    struct ep_policy_bundle *again = ep_policy_bundle_ref(v.v[0].bundle); /* an old text comes again: it is the newest */
    ep_policy_versions_add(&v, again, NOW);
    ep_policy_bundle_unref(again);
    assert_int_equal(v.n, EP_POLICY_VERSIONS);
    assert_string_equal(v.v[9].bundle->digest, digests[2]);
    ep_policy_versions_set(&v, digests[2], "");
    ep_policy_versions_fini(&v);
    ep_policy_versions_init(&v, ep_str(p->directory));
    assert_int_equal(v.n, EP_POLICY_VERSIONS);
    assert_string_equal(v.v[9].bundle->digest, digests[2]);
    assert_string_equal(v.over, "");
    ep_policy_versions_fini(&v);
}

static void test_a_damaged_version_is_left_out(void **state)
{
    struct place *p = *state;
    struct ep_policy_versions v;
    struct ep_policy_bundle *good, *bad;
    char name[128];

    ep_policy_versions_init(&v, ep_str(p->directory));
    bad = bundle(p, "bad");
    ep_policy_versions_add(&v, bad, NOW);
    good = bundle(p, "good");
    ep_policy_versions_add(&v, good, NOW);
    ep_policy_versions_fini(&v);
    snprintf(name, sizeof name, "policies/%010d-%s", 1, bad->digest);
    put(p, name, "ephor-policies 1\n3 a.lua\nbed\n");
    put(p, "policies/current", "nonsense\n");
    ep_policy_versions_init(&v, ep_str(p->directory));
    assert_int_equal(v.n, 1);
    assert_string_equal(v.v[0].bundle->digest, good->digest);
    assert_string_equal(v.current, "");
    assert_int_equal(v.next, 3);
    ep_policy_versions_fini(&v);
    ep_policy_bundle_unref(good);
    ep_policy_bundle_unref(bad);
}

static void test_without_a_directory_versions_are_in_memory(void **state)
{
    struct ep_policy_versions v;
    struct ep_policy_bundle *b = bundle(*state, "x");

    ep_policy_versions_init(&v, (struct ep_str){NULL, 0});
    ep_policy_versions_add(&v, b, NOW);
    ep_policy_versions_set(&v, b->digest, "");
    assert_int_equal(ep_policy_versions_find(&v, b->digest), 0);
    ep_policy_versions_fini(&v);
    ep_policy_versions_init(&v, EP_STR("/proc/no such place"));
    assert_null(v.directory);
    ep_policy_versions_fini(&v);
    ep_policy_bundle_unref(b);
}

/* --- trials --- */

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static void test_a_new_policy_is_a_shadow_for_its_time(void **state)
{
    struct place *p = *state;
    struct ep_policy_trials t;
    uint64_t until;

    ep_policy_trials_init(&t, p->directory);
    until = ep_policy_trials_until(&t, "p", A, HOUR, true, NOW);
    assert_int_equal(until, NOW - 5 + HOUR); /* whole seconds are kept */
    assert_int_equal(ep_policy_trials_until(&t, "p", A, HOUR, true, NOW + EP_S), until);
    ep_policy_trials_save(&t);
    ep_policy_trials_fini(&t);

    ep_policy_trials_init(&t, p->directory); /* a restart */
    assert_int_equal(ep_policy_trials_until(&t, "p", A, HOUR, true, NOW + 2 * EP_S), until);
    assert_int_equal(ep_policy_trials_until(&t, "p", A, HOUR, true, until - 1), until);
    assert_int_equal(ep_policy_trials_until(&t, "p", A, HOUR, true, until), 0);
    assert_int_equal(ep_policy_trials_until(&t, "p", A, 2 * HOUR, true, until), until + HOUR); /* longer now */
    assert_int_equal(ep_policy_trials_until(&t, "p", A, 0, true, NOW), 0);                     /* not any more */
    ep_policy_trials_fini(&t);
}

static void test_a_change_is_new_or_not(void **state)
{
    struct ep_policy_trials t;

    (void)state;
    ep_policy_trials_init(&t, NULL);
    ep_policy_trials_until(&t, "p", A, HOUR, true, NOW);
    assert_int_equal(ep_policy_trials_until(&t, "p", B, HOUR, false, NOW + 2 * HOUR), 0);
    assert_int_equal(ep_policy_trials_until(&t, "p", B, HOUR, true, NOW + 2 * HOUR), NOW - 5 + 3 * HOUR);
    assert_int_equal(ep_policy_trials_until(&t, "q", A, HOUR, false, NOW + 2 * HOUR), NOW - 5 + 3 * HOUR);
    ep_policy_trials_fini(&t);
}

static void test_what_was_there_before_shadow_for_is_no_shadow(void **state)
{
    struct place *p = *state;
    struct ep_policy_trials t;

    ep_policy_trials_init(&t, p->directory);
    assert_int_equal(ep_policy_trials_until(&t, "p", A, 0, true, NOW), 0);
    ep_policy_trials_save(&t);
    ep_policy_trials_fini(&t);
    ep_policy_trials_init(&t, p->directory);
    assert_int_equal(ep_policy_trials_until(&t, "p", A, HOUR, true, NOW + 1), 0);
    assert_int_equal(ep_policy_trials_until(&t, "p", B, HOUR, true, NOW), NOW - 5 + HOUR);
    ep_policy_trials_fini(&t);
}

static void test_a_clock_that_was_wrong_makes_no_shadow_for_ever(void **state)
{
    struct ep_policy_trials t;

    (void)state;
    ep_policy_trials_init(&t, NULL);
    ep_policy_trials_until(&t, "p", A, HOUR, true, NOW + 1000 * HOUR);
    assert_int_equal(ep_policy_trials_until(&t, "p", A, HOUR, true, NOW), NOW + HOUR);
    ep_policy_trials_fini(&t);
}

static void test_damaged_lines_and_the_limit(void **state)
{
    struct place *p = *state;
    struct ep_policy_trials t;
    char name[16];

    put(p, "seen", "nonsense\n12 short p\n\n1600000000 " A " p\n99999999999999999999 " A " q\n");
    ep_policy_trials_init(&t, p->directory);
    assert_int_equal(t.n, 1);
    assert_int_equal(ep_policy_trials_until(&t, "p", A, HOUR, true, NOW), 0);
    for (unsigned i = 0; i < EP_POLICY_TRIALS_MAX + 10; i++) {
        snprintf(name, sizeof name, "n%u", i);
        ep_policy_trials_until(&t, name, A, HOUR, true, NOW);
    }
    assert_int_equal(t.n, EP_POLICY_TRIALS_MAX);
    assert_string_equal(t.v[0].name, "n10");
    ep_policy_trials_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test_setup_teardown(test_reads_in_order_of_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_digest_tells_lists_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_bundle_is_printed_and_read_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ten_versions_are_kept_over_a_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_version_is_left_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_a_directory_versions_are_in_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_new_policy_is_a_shadow_for_its_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_change_is_new_or_not, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_there_before_shadow_for_is_no_shadow, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_clock_that_was_wrong_makes_no_shadow_for_ever, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_lines_and_the_limit, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
