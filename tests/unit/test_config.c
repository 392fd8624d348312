/* link: ep_config */
/* Configuration: binding, defaults, the environment, every kind of mistake, the print that reads back, and the pages
 * that are made from the tables. Broken files are in tests/config/broken, each with what must be said of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config.h"
#include "config/files.h"
#include "config/history.h"
#include "filter/filter.h"

#define SMALL                                                                                                          \
    "listeners:\n"                                                                                                     \
    "  - {name: inbound, bind: 0.0.0.0:8443, cluster: app}\n"                                                          \
    "clusters:\n"                                                                                                      \
    "  - {name: app, endpoints: [127.0.0.1:8080]}\n"

static char *root_path(const char *name)
{
    char *path = NULL;
    const char *tests = strstr(__FILE__, "tests/unit/");

    assert_non_null(tests);
    assert_true(asprintf(&path, "%.*s%s", (int)(tests - __FILE__), __FILE__, name) > 0);
    return path;
}

static struct ep_config *parse(const char *text)
{
    struct ep_problems problems;
    struct ep_config *c;

    ep_problems_init(&problems);
    c = ep_config_parse(ep_str(text), "test", &problems);
    if (!c) {
        char *told = ep_problems_text(&problems, true);
        print_error("%s", told);
        free(told);
    }
    ep_problems_fini(&problems);
    return c;
}

static char *errors_of(const char *text)
{
    struct ep_problems problems;
    struct ep_config *c;
    char *told;

    ep_problems_init(&problems);
    c = ep_config_parse(ep_str(text), "test", &problems);
    told = ep_problems_text(&problems, false);
    ep_config_unref(c);
    ep_problems_fini(&problems);
    return told;
}

static void assert_told(const char *text, const char *expected)
{
    char *told = errors_of(text);

    if (!strstr(told, expected))
        fail_msg("expected '%s' in:\n%s", expected, told);
    free(told);
}

static void the_smallest_file_has_every_default(void **state)
{
    struct ep_config *c = parse("constitution: cdd01ef066bc6cf2\npolicies: /etc/ephor/policies\n" SMALL);
    const struct ep_listener_config *l;
    const struct ep_cluster_config *k;

    (void)state;
    assert_non_null(c);
    l = c->listeners.v;
    k = c->clusters.v;
    assert_int_equal(c->listeners.n, 1);
    assert_true(ep_str_eq(l->name, EP_STR("inbound")));
    assert_int_equal(ep_addr_port(&l->bind), 8443);
    assert_int_equal(l->tls, EP_TLS_OFF);
    assert_int_equal(l->max_body_bytes, 1 << 20);
    assert_int_equal(l->max_streams, 256);
    assert_int_equal(l->headers_timeout_ns, 10 * EP_S);
    assert_int_equal(l->filters.n, 0);
    assert_true(k->limits.requests >= 1024);
    assert_true(k->panic > 0.499 && k->panic < 0.501);
    assert_int_equal(ep_addr_port(&c->admin.bind), 15000);
    assert_int_equal(ep_addr_port(&c->admin.metrics), 15020);
    assert_true(ep_str_eq(c->constitution.hash, EP_STR("cdd01ef066bc6cf2")));
    assert_true(ep_str_eq(c->policies.directory, EP_STR("/etc/ephor/policies")));
    assert_int_equal(c->policies.budget.instructions, 200000);
    assert_null(c->identity);
    assert_int_equal(c->drain.accept_ns, 5 * EP_S);
    assert_true(ep_config_workers(c) >= 1 && ep_config_workers(c) <= 2);
    assert_ptr_equal(ep_config_cluster(c, EP_STR("app")), k);
    assert_null(ep_config_cluster(c, EP_STR("other")));
    ep_config_unref(c);
}

static void the_environment_stands_in_values(void **state)
{
    struct ep_config *c;
    const struct ep_cluster_config *k;

    (void)state;
    setenv("EPHOR_TEST_HOST", "127.0.0.1", 1);
    setenv("EPHOR_TEST_EMPTY", "", 1);
    unsetenv("EPHOR_TEST_NOT_SET");
    c = parse("listeners: [{name: \"$$a$b$$\", bind: \"${EPHOR_TEST_HOST}:${EPHOR_TEST_NOT_SET:-81}\", cluster: app}]\n"
              "clusters: [{name: app, endpoints: [\"${EPHOR_TEST_HOST}:80\"], dns: \"${EPHOR_TEST_EMPTY}\"}]\n"
              "state: ${EPHOR_TEST_EMPTY:-/x}\n");
    assert_non_null(c);
    const struct ep_listener_config *l = c->listeners.v;
    k = c->clusters.v;
    assert_true(ep_str_eq(l->name, EP_STR("$a$b$")));
    assert_int_equal(ep_addr_port(&l->bind), 81);
    assert_int_equal(k->endpoints.n, 1);
    assert_true(ep_str_eq(c->state, EP_STR("/x")));
    ep_config_unref(c);
    assert_told(SMALL "state: ${EPHOR_TEST_NOT_SET}\n",
                "test:5:8: error: state: the environment has no EPHOR_TEST_NOT_SET");
    setenv("SERVICE", "from-the-environment", 1);
    c = parse(SMALL);
    assert_true(ep_str_eq(c->node.service, EP_STR("from-the-environment")));
    ep_config_unref(c);
    unsetenv("SERVICE");
}

static void every_mistake_is_told_where_it_is(void **state)
{
    char *directory = root_path("tests/config/broken");
    struct dirent **names;
    int n = scandir(directory, &names, NULL, alphasort), files = 0;

    (void)state;
    assert_true(n > 0);
    unsetenv("EPHOR_TEST_NOT_SET");
    for (int i = 0; i < n; i++) {
        struct ep_str text, expected;
        struct ep_error err;
        struct ep_problems problems;
        char path[512];

        if (ep_str_ends(ep_str(names[i]->d_name), EP_STR(".yaml"))) {
            snprintf(path, sizeof path, "%s/%s", directory, names[i]->d_name);
            assert_true(ep_file_read(ep_str(path), 1 << 20, &text, &err));
            snprintf(path + strlen(path) - 4, 5, "txt");
            assert_true(ep_file_read(ep_str(path), 1 << 20, &expected, &err));
            ep_problems_init(&problems);
            assert_null(ep_config_parse(text, names[i]->d_name, &problems));
            char *told = ep_problems_text(&problems, false), *excerpts = ep_problems_text(&problems, true);
            assert_string_equal(told, expected.p);
            assert_true(strlen(excerpts) >= strlen(told));
            free(told);
            free(excerpts);
            ep_problems_first(&problems, &err);
            assert_true(ep_str_starts(ep_str(err.text), ep_str(names[i]->d_name)));
            ep_problems_fini(&problems);
            ep_file_free(&text, false);
            ep_file_free(&expected, false);
            files++;
        }
        free(names[i]);
    }
    free(names);
    free(directory);
    assert_true(files >= 12);
}

static void the_print_reads_back_the_same(void **state)
{
    char *path = root_path("tests/config/good/full.yaml");
    struct ep_problems problems;
    struct ep_config *c, *again;
    char *text, *text_again, *told;

    (void)state;
    ep_problems_init(&problems);
    c = ep_config_load(path, &problems);
    told = ep_problems_text(&problems, true);
    assert_string_equal(told, "");
    free(told);
    ep_problems_fini(&problems);
    assert_non_null(c);
    text = ep_config_print(c, true);
    again = parse(text);
    assert_non_null(again);
    text_again = ep_config_print(again, true);
    assert_string_equal(text, text_again);
    assert_non_null(strstr(text, "not-a-secret"));
    const struct ep_listener_config *l = again->listeners.v;
    const struct ep_authorize_config *rule = (const struct ep_authorize_config *)l->authorize.v + 1;
    const struct ep_pair *odd = (const struct ep_pair *)rule->headers.v + 1;
    assert_true(ep_str_eq(odd->key, EP_STR("x-$odd")));
    assert_true(ep_str_eq(odd->value, EP_STR("$5 \"quoted\" \\ back")));
    assert_int_equal(l[2].routes.n, 1); /* by an alias */
    free(text);
    free(text_again);
    text = ep_config_print(c, false);
    assert_null(strstr(text, "not-a-secret"));
    assert_non_null(strstr(text, "token: \"***\""));
    free(text);
    ep_config_unref(again);
    ep_config_unref(c);
    free(path);
}

static void aliases_may_not_make_a_small_file_big(void **state)
{
    char text[8192] = "listeners: [{name: a, bind: 127.0.0.1:1, routes: [";
    size_t n = strlen(text);

    (void)state;
    for (int i = 0; i < 100; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s{cluster: app, retry: {on: %s[", i ? ", " : "",
                              i ? "*on" : "&on ");
    assert_true(n < sizeof text); /* brackets that nest without end are refused before the parser sees them */
    assert_told(text, "nested deeper than 64");

    struct ep_problems problems;
    char *big = NULL;
    size_t size;
    FILE *f = open_memstream(&big, &size);
    assert_non_null(f);
    fputs("listeners: [{name: a, bind: 127.0.0.1:1, routes: [{cluster: app, retry: {on: &on [", f);
    for (int i = 0; i < 500; i++)
        fputs(i ? ", reset" : "reset", f);
    fputs("]}}", f);
    for (int i = 0; i < 1000; i++)
        fputs(", {cluster: app, retry: {on: *on}}", f);
    fputs("]}]\nclusters: [{name: app, endpoints: [127.0.0.1:80]}]\n", f);
    fclose(f);
    ep_problems_init(&problems);
    assert_null(ep_config_parse(ep_str_n(big, size), "test", &problems));
    char *told = ep_problems_text(&problems, false);
    assert_non_null(strstr(told, "more than 200000 nodes"));
    free(told);
    ep_problems_fini(&problems);
    free(big);
}

static void a_file_that_is_not_there_is_a_problem_too(void **state)
{
    struct ep_problems problems;

    (void)state;
    ep_problems_init(&problems);
    assert_null(ep_config_load("/nonexistent/ephor.yaml", &problems));
    char *told = ep_problems_text(&problems, true);
    assert_string_equal(told, "/nonexistent/ephor.yaml: error: cannot be opened: No such file or directory\n");
    free(told);
    ep_problems_fini(&problems);
}

static void assert_page(const char *name, char *(*make)(void))
{
    char *path = root_path(name), *made = make();
    struct ep_str committed;
    struct ep_error err;

    if (!ep_file_read(ep_str(path), 1 << 20, &committed, &err))
        fail_msg("%s %s", path, err.text);
    if (strcmp(committed.p, made) != 0)
        fail_msg("%s is not what the tables say; make it anew: ephor reference …", name);
    ep_file_free(&committed, false);
    free(made);
    free(path);
}

static void the_committed_pages_are_those_of_the_tables(void **state)
{
    (void)state;
    assert_page("docs/reference/configuration.md", ep_config_reference);
    assert_page("docs/reference/filters.md", ep_config_filters_reference);
    assert_page("docs/reference/metrics.md", ep_metrics_reference);
}

static void the_json_schema_is_well_formed(void **state)
{
    char *text = ep_config_json_schema();
    int depth = 0;
    bool quoted = false;

    (void)state;
    for (const char *p = text; *p; p++) {
        if (quoted && *p == '\\')
            p++;
        else if (*p == '"')
            quoted = !quoted;
        else if (!quoted)
            depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
    }
    assert_int_equal(depth, 0);
    assert_false(quoted);
    assert_non_null(strstr(text, "\"$defs\":{"));
    assert_non_null(strstr(text, "\"#/$defs/listener\""));
    free(text);
}

/* Each default of each table is read by its own reader (it asserts), and every key has a help. */
static void walk(const struct ep_schema *s, int depth)
{
    assert_true(depth < 8 && s->name && s->help && s->n_fields <= 64);
    for (size_t i = 0; i < s->n_fields; i++) {
        const struct ep_field *f = &s->fields[i];
        assert_true(f->help && *f->help);
        assert_true(f->offset < s->size);
        assert_true(f->type != EP_TYPE_ENUM || f->names);
        assert_true((f->type == EP_TYPE_STRUCT || f->type == EP_TYPE_OPTIONAL) == (f->sub && f->type != EP_TYPE_LIST));
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(f->key, s->fields[k].key);
        if (f->sub)
            walk(f->sub, depth + 1);
    }
    bool found = !s->short_key;
    for (size_t i = 0; !found && i < s->n_fields; i++)
        found = strcmp(s->fields[i].key, s->short_key) == 0;
    assert_true(found);
}

static void every_table_is_sound(void **state)
{
    size_t n;
    const struct ep_filter *const *all = ep_filter_all(&n);

    (void)state;
    walk(&ep_config_schema, 0);
    for (size_t i = 0; i < n; i++)
        if (all[i]->schema)
            walk(all[i]->schema, 0);
}

static void history_keeps_ten_and_goes_back(void **state)
{
    char directory[] = "/tmp/ephor-history-XXXXXX";
    struct ep_history h;
    char text[32];

    (void)state;
    assert_non_null(mkdtemp(directory));
    ep_history_init(&h, ep_str(directory));
    assert_null(ep_history_previous(&h).p);
    for (int i = 0; i < 14; i++) {
        int n = snprintf(text, sizeof text, "text %d", i / 2 * 2); /* each twice: the second is no news */
        ep_history_push(&h, ep_str_n(text, (size_t)n));
        assert_int_equal(h.n, (unsigned)(i / 2 + 1));
    }
    for (int i = 0; i < 5; i++) {
        int n = snprintf(text, sizeof text, "more %d", i);
        ep_history_push(&h, ep_str_n(text, (size_t)n));
    }
    assert_int_equal(h.n, EP_HISTORY_MAX);
    assert_true(ep_str_eq(ep_history_previous(&h), EP_STR("more 3")));
    ep_history_pop(&h);
    assert_true(ep_str_eq(ep_history_previous(&h), EP_STR("more 2")));
    ep_history_fini(&h);
    ep_history_init(&h, ep_str(directory)); /* the next process */
    assert_int_equal(h.n, EP_HISTORY_MAX - 1);
    assert_true(ep_str_eq(ep_history_previous(&h), EP_STR("more 2")));
    while (h.n)
        ep_history_pop(&h);
    ep_history_fini(&h);
    assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_smallest_file_has_every_default),
        cmocka_unit_test(the_environment_stands_in_values),
        cmocka_unit_test(every_mistake_is_told_where_it_is),
        cmocka_unit_test(the_print_reads_back_the_same),
        cmocka_unit_test(aliases_may_not_make_a_small_file_big),
        cmocka_unit_test(a_file_that_is_not_there_is_a_problem_too),
        cmocka_unit_test(the_committed_pages_are_those_of_the_tables),
        cmocka_unit_test(the_json_schema_is_well_formed),
        cmocka_unit_test(every_table_is_sound),
        cmocka_unit_test(history_keeps_ten_and_goes_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
