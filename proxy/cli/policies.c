/* `ephor policies`: what each policy of a running ephor saw, decided and was blind to, by route. What its workers say is
 * summed up. A rule that silently does nothing is pointed out: one that matched nothing, or could not see; and so are a
 * version that was refused, and what shadows would have denied. */
#include <argp.h>
#include <libfyaml.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/ask.h"
#include "cli/cli.h"
#include "lua/bundle.h"

#define POLICIES_MAX 256u
#define ROUTES_MAX   64u
#define REASONS_MAX  8u

enum count { SEEN, MATCHED, DENY, SHADOW_DENY, FAILED, BLIND, COUNTS };

struct route {
    char *name;
    uint64_t count[COUNTS];
};

struct policy {
    char *name, *mode, *on_blind, *enforces_at;
    bool unhealthy;
    uint64_t count[COUNTS];
    struct route routes[ROUTES_MAX];
    size_t n_routes;
    struct route reasons[REASONS_MAX]; /* count[BLIND] alone */
    size_t n_reasons;
};

struct options {
    const char *admin, *token, *directory; /* to digest */
    bool json, rollback, digest;
    uint64_t steps;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case 'a':
        o->admin = arg;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case 't':
        o->token = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0 && strcmp(arg, "rollback") == 0)
            o->rollback = true;
        else if (state->arg_num == 0 && strcmp(arg, "digest") == 0)
            o->digest = true;
        else if (state->arg_num == 1 && o->digest)
            o->directory = arg;
        else if (!(o->rollback && state->arg_num == 1 && ep_str_u64(ep_str(arg), &o->steps) && o->steps >= 1 && o->steps <= 100))
            argp_usage(state);
        return 0;
    case ARGP_KEY_END:
        if (o->digest && !o->directory)
            argp_error(state, "digest of which directory?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option argp_options[] = {
    EP_CLI_ADMIN_OPTION,
    {"token", 't', "TOKEN", 0, "admin.token, for rollback; else EPHOR_TOKEN of the environment", 0},
    {"json", 'j', NULL, 0, "what the admin server says, by worker", 0},
    {0},
};

static const struct argp argp = {
    .options = argp_options,
    .parser = parse,
    .args_doc = "[rollback [N]]\ndigest DIR",
    .doc = "Shows what each policy of a running ephor saw, matched, denied and was blind to, by route; and points out those that "
           "matched nothing, fail, or could not see what they judge. With rollback: puts the version of the policies in force "
           "that is N (1) before the present one, until their directory changes again. With digest: prints the version that "
           "the policies in DIR are, as the audit names it (policy_version).\v"
           "Exit status: 0 shown or done, 1 it can't be done, 2 wrong usage, 3 there is no answer, or no directory.",
};

/* --- reading the answer --- */

static char *text_of(struct fy_node *map, const char *key)
{
    struct fy_node *n = map ? fy_node_mapping_lookup_by_string(map, key, FY_NT) : NULL;
    size_t length = 0;
    const char *text = n ? fy_node_get_scalar(n, &length) : NULL;

    return ep_strndup(text ? text : "", length);
}

static uint64_t number_of(struct fy_node *n)
{
    size_t length = 0;
    const char *text = n ? fy_node_get_scalar(n, &length) : NULL;
    uint64_t v = 0;

    return text && ep_str_u64(ep_str_n(text, length), &v) ? v : 0;
}

static uint64_t count_of(struct fy_node *map, const char *key)
{
    return number_of(fy_node_mapping_lookup_by_string(map, key, FY_NT));
}

/* The entry of that name, or a new one; NULL: there are too many. */
static struct route *entry(struct route *v, size_t *n, size_t max, char *name)
{
    size_t i = 0;

    while (i < *n && strcmp(v[i].name, name) != 0)
        i++;
    if (i == *n && *n < max)
        v[(*n)++].name = ep_strdup(name);
    free(name);
    return i < *n ? &v[i] : NULL;
}

static void add_routes(struct policy *p, struct fy_node *routes)
{
    static const char *const keys[COUNTS] = {"seen", "matched", "deny", "shadow_deny", "failed", "blind"};
    struct fy_node *n;
    void *at = NULL;

    while (routes && (n = fy_node_sequence_iterate(routes, &at))) {
        struct route *r = entry(p->routes, &p->n_routes, ROUTES_MAX, text_of(n, "route"));
        for (int c = 0; r && c < COUNTS; c++)
            r->count[c] += count_of(n, keys[c]);
    }
}

static void add_reasons(struct policy *p, struct fy_node *reasons)
{
    struct fy_node_pair *pair;
    void *at = NULL;

    while (reasons && (pair = fy_node_mapping_iterate(reasons, &at))) {
        size_t length = 0;
        const char *name = fy_node_get_scalar(fy_node_pair_key(pair), &length);
        struct route *r = entry(p->reasons, &p->n_reasons, REASONS_MAX, ep_strndup(name ? name : "", name ? length : 0));
        if (r)
            r->count[BLIND] += number_of(fy_node_pair_value(pair));
    }
}

static void add_policy(struct policy *p, struct fy_node *n)
{
    char *healthy = text_of(n, "healthy");

    if (!p->mode) {
        p->mode = text_of(n, "mode");
        p->on_blind = text_of(n, "on_blind");
        p->enforces_at = text_of(n, "enforces_at");
    }
    p->unhealthy |= strcmp(healthy, "false") == 0;
    free(healthy);
    p->count[SEEN] += count_of(n, "seen");
    p->count[MATCHED] += count_of(n, "matched");
    p->count[DENY] += count_of(n, "deny");
    p->count[SHADOW_DENY] += count_of(n, "shadow_deny");
    p->count[FAILED] += count_of(n, "error") + count_of(n, "overrun");
    p->count[BLIND] += count_of(n, "blind");
    add_routes(p, fy_node_mapping_lookup_by_string(n, "routes", FY_NT));
    add_reasons(p, fy_node_mapping_lookup_by_string(n, "blind_by", FY_NT));
}

static size_t read_policies(struct fy_document *d, struct policy *v)
{
    struct fy_node *workers = fy_node_mapping_lookup_by_string(fy_document_root(d), "workers", FY_NT), *w, *list, *n;
    void *at = NULL, *in;
    size_t count = 0;

    while (workers && (w = fy_node_sequence_iterate(workers, &at))) {
        list = fy_node_mapping_lookup_by_string(w, "policies", FY_NT);
        for (in = NULL; list && (n = fy_node_sequence_iterate(list, &in));) {
            char *name = text_of(n, "name");
            size_t i = 0;
            while (i < count && strcmp(v[i].name, name) != 0)
                i++;
            if (i == count && count < POLICIES_MAX)
                v[count++].name = ep_strdup(name);
            free(name);
            if (i < count)
                add_policy(&v[i], n);
        }
    }
    return count;
}

/* --- showing it --- */

static void show_row(const char *indent, const char *name, const char *mode, const uint64_t count[COUNTS])
{
    printf("%s%-*s %-8s", indent, 34 - (int)strlen(indent), name, mode);
    for (int c = 0; c < COUNTS; c++)
        printf(" %10llu", (unsigned long long)count[c]);
    putchar('\n');
}

static void show_flags(const struct policy *p)
{
    const char *separator = ": ";

    if (strcmp(p->mode, "off") == 0)
        return;
    if (p->count[SEEN] == 0)
        printf("! %s has seen no call yet\n", p->name);
    else if (p->count[MATCHED] == 0)
        printf("! %s matched none of %llu calls\n", p->name, (unsigned long long)p->count[SEEN]);
    if (strcmp(p->mode, "shadow") == 0 && p->count[MATCHED])
        printf("! %s is a shadow, and would have denied %.3g%% of what it matched\n", p->name,
               100.0 * (double)p->count[SHADOW_DENY] / (double)p->count[MATCHED]);
    if (p->enforces_at[0])
        printf("! %s is a shadow until %.16sZ, then it is enforced\n", p->name, p->enforces_at);
    if (p->count[BLIND]) {
        printf("! %s was blind to %llu of %llu calls (on_blind %s)", p->name, (unsigned long long)p->count[BLIND],
               (unsigned long long)p->count[MATCHED], p->on_blind);
        for (size_t i = 0; i < p->n_reasons; i++, separator = ", ")
            printf("%s%s %llu", separator, p->reasons[i].name, (unsigned long long)p->reasons[i].count[BLIND]);
        putchar('\n');
    }
    if (p->count[FAILED])
        printf("! %s failed %llu times%s\n", p->name, (unsigned long long)p->count[FAILED], p->unhealthy ? ", and is unhealthy" : "");
}

static void show(const struct policy *v, size_t n)
{
    printf("%-34s %-8s %10s %10s %10s %10s %10s %10s\n", "POLICY", "MODE", "SEEN", "MATCHED", "DENIED", "SHADOW", "FAILED", "BLIND");
    for (size_t i = 0; i < n; i++) {
        show_row("", v[i].name, v[i].mode, v[i].count);
        for (size_t r = 0; r < v[i].n_routes; r++)
            show_row("  ", v[i].routes[r].name, "", v[i].routes[r].count);
    }
    for (size_t i = 0; i < n; i++)
        show_flags(&v[i]);
    if (n == 0)
        printf("! there is no policy\n");
}

/* The directory's content was refused: what is shown is not what stands there. */
static void show_refused(struct fy_document *d)
{
    struct fy_node *refused = fy_node_mapping_lookup_by_string(fy_document_root(d), "refused", FY_NT);

    if (!refused)
        return;
    char *since = text_of(refused, "since"), *error = text_of(refused, "error");
    printf("! what the directory has since %.19sZ was refused, and the version before it stays: %s\n", since, error);
    free(since);
    free(error);
}

static int show_answer(const char *text)
{
    struct fy_parse_cfg cfg = {.flags = FYPCF_QUIET | FYPCF_JSON_FORCE};
    struct fy_document *d = fy_document_build_from_string(&cfg, text, FY_NT);
    struct policy *v;
    size_t n;

    if (!d || !fy_node_is_mapping(fy_document_root(d))) {
        fprintf(stderr, "ephor policies: the admin server's answer can't be read\n");
        fy_document_destroy(d);
        return EP_EXIT_ENVIRONMENT;
    }
    v = ep_calloc(POLICIES_MAX, sizeof *v);
    n = read_policies(d, v);
    show(v, n);
    show_refused(d);
    for (size_t i = 0; i < n; i++) {
        for (size_t r = 0; r < v[i].n_routes; r++)
            free(v[i].routes[r].name);
        for (size_t r = 0; r < v[i].n_reasons; r++)
            free(v[i].reasons[r].name);
        free(v[i].name);
        free(v[i].mode);
        free(v[i].on_blind);
        free(v[i].enforces_at);
    }
    free(v);
    fy_document_destroy(d);
    return EP_EXIT_GOOD;
}

static int roll_back(const struct options *o)
{
    char path[64];
    struct ep_error err;
    unsigned status = 0;
    char *text;

    snprintf(path, sizeof path, "/policies/rollback?steps=%llu", (unsigned long long)o->steps);
    text = ep_cli_ask_as(o->token, o->admin, "POST", path, &status, &err);
    if (!text) {
        fprintf(stderr, "ephor policies: %s\n", err.text);
        return EP_EXIT_ENVIRONMENT;
    }
    fputs(text, status == 200 ? stdout : stderr);
    free(text);
    return status == 200 ? EP_EXIT_GOOD : EP_EXIT_BAD;
}

static int digest(const char *directory)
{
    struct ep_error err;
    struct ep_policy_bundle *b = ep_policy_bundle_read(directory, &err);

    if (!b) {
        fprintf(stderr, "ephor policies: %s\n", err.text);
        return EP_EXIT_ENVIRONMENT;
    }
    printf("%s\n", b->digest);
    ep_policy_bundle_unref(b);
    return fflush(stdout) == 0 ? EP_EXIT_GOOD : EP_EXIT_ENVIRONMENT;
}

int ep_cli_policies(int argc, char **argv)
{
    struct options o = {.admin = EP_CLI_ADMIN, .token = getenv("EPHOR_TOKEN"), .steps = 1};
    struct ep_error err;
    unsigned status = 0;
    char *text;
    int code;

    argp_parse(&argp, argc, argv, 0, NULL, &o);
    if (o.rollback)
        return roll_back(&o);
    if (o.digest)
        return digest(o.directory);
    text = ep_cli_ask(o.admin, "GET", "/policies", &status, &err);
    if (!text) {
        fprintf(stderr, "ephor policies: %s\n", err.text);
        return EP_EXIT_ENVIRONMENT;
    }
    if (status != 200) {
        fprintf(stderr, "ephor policies: the admin server says %u: %s", status, text);
        code = EP_EXIT_ENVIRONMENT;
    } else if (o.json) {
        fputs(text, stdout);
        code = EP_EXIT_GOOD;
    } else {
        code = show_answer(text);
    }
    free(text);
    return fflush(stdout) == 0 ? code : EP_EXIT_ENVIRONMENT;
}
