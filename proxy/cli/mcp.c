/* `ephor mcp pin URL`: what a server says of its tools now, as a file of pins for a listener's `mcp: {pins: FILE}`.
 *
 * A server may say it in other words to clients of another generation. So it is asked as both, with a session
 * (2025-11-25) and without (2026-07-28), and what it answers to either is pinned. */
#include <stdio.h>
#include <stdlib.h>

#include "agent/agent.h"
#include "agent/mcp.h"
#include "agent/mcp_pins.h"
#include "cli/arguments.h"
#include "cli/cli.h"
#include "cli/mcp_client.h"
#include "config/files.h"
#include "observe/json.h"

#define PAGES_MAX 1000u
#define PINS_MAX  10000u

struct options {
    const char *url, *out;
    char *headers;
    struct ep_mcp_client_options client;
};

enum { KEY_CA = 256, KEY_CERTIFICATE, KEY_KEY };

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;
    char *more = NULL; /* clang doesn't see that it ends below */

    switch (key) {
    case 'o':
        o->out = arg;
        return 0;
    case KEY_CA:
        o->client.ca = arg;
        return 0;
    case KEY_CERTIFICATE:
        o->client.certificate = arg;
        return 0;
    case KEY_KEY:
        o->client.key = arg;
        return 0;
    case ARGP_KEY_END:
        if (!o->client.certificate != !o->client.key)
            argp_error(state, "--client-cert and --client-key belong together");
        return 0;
    case 'H':
        if (strpbrk(arg, "\r\n") || asprintf(&more, "%s%s\r\n", o->headers ? o->headers : "", arg) < 0)
            argp_error(state, "a header is one line");
        free(o->headers);
        o->headers = more;
        return 0;
    default:
        return ep_cli_one(key, arg, state, &o->url);
    }
}

static const struct argp_option argp_options[] = {
    {"out", 'o', "FILE", 0, "where to write them; without it to the standard output", 0},
    {"header", 'H', "NAME: VALUE", 0, "a header of every request; may be repeated", 0},
    {"ca", KEY_CA, "FILE", 0, "PEM of the roots that an https server is verified by, in place of the system's", 0},
    {"client-cert", KEY_CERTIFICATE, "FILE", 0, "PEM of a certificate to show to an https server", 0},
    {"client-key", KEY_KEY, "FILE", 0, "PEM of its key", 0},
    {0},
};

static const struct argp pin_argp = {
    .options = argp_options,
    .parser = parse,
    .args_doc = "URL",
    .doc = "Asks an MCP server for its tools and writes a digest of each definition, for `mcp: {pins: FILE}` of a "
           "listener.\v"
           "Exit status: 0 good, 1 the server's answer is no list of tools, 2 wrong usage, 3 it can't be asked, or the "
           "file "
           "can't be written.",
};

/* --- what is found --- */

struct pin {
    struct ep_str name;
    uint8_t digest[EP_MCP_DIGEST_BYTES];
};

struct found {
    struct ep_chunk_pool chunks;
    struct ep_arena arena;
    struct ep_scanner *scanner;
    struct pin *v;
    size_t n;
    bool bad; /* a definition that can't be pinned */
};

static bool take(void *user, enum ep_mcp_list list, struct ep_str name, struct ep_str entry)
{
    struct found *f = user;
    struct pin *p = &f->v[f->n];

    if (list != EP_MCP_TOOLS)
        return true;
    if (!name.n || f->n == PINS_MAX || !ep_mcp_pin_digest(entry, &f->arena, p->digest)) {
        f->bad = true;
        return true;
    }
    p->name = ep_arena_str(&f->arena, name);
    f->n++;
    return true;
}

static void *from_arena(void *user, size_t n)
{
    return ep_arena_alloc(user, n);
}

/* One page. *cursor: of the next one, raw; empty: none. False with err. */
static bool take_page(struct found *f, char *text, size_t n, struct ep_str *cursor, struct ep_error *err)
{
    struct ep_str ignored, page = ep_arena_str(&f->arena, ep_str_n(text, n)), result;
    struct ep_scan json;

    *cursor = (struct ep_str){NULL, 0};
    if (ep_scan_json(f->scanner, text, n, from_arena, &f->arena, &json) != EP_SCAN_OK || json.batch ||
        json.first->result.kind != EP_SCAN_OBJECT)
        return ep_error_set(err, "the answer to tools/list is no result: %.200s", page.n ? page.p : "");
    if (ep_mcp_list_edit(ep_str_n(text, n), &json, take, f, &f->arena, &ignored) == EP_MCP_UNREADABLE || f->bad)
        return ep_error_set(err, "a list that can be read in more than one way, or a tool that can't be pinned");
    result = ep_agent_str(json.first->result.raw);
    *cursor = ep_json_member(result, "nextCursor");
    if (cursor->n && cursor->p[0] != '"')
        *cursor = (struct ep_str){NULL, 0};
    *cursor = ep_arena_str(&f->arena, *cursor);
    return true;
}

/* --- asking --- */

/* `meta`: of each request's params. True: the list was had; *none: the server doesn't speak this way. */
static bool list(struct found *f, struct ep_mcp_client *c, const char *meta, const char *extra, bool *none,
                 struct ep_error *err)
{
    struct ep_str cursor = {NULL, 0};
    unsigned status = 0;
    bool good = true;

    *none = false;
    for (unsigned page = 0; good && (page == 0 || cursor.n); page++) {
        bool between = cursor.n && *meta;
        struct ep_str body = ep_arena_printf(
            &f->arena, "{\"jsonrpc\":\"2.0\",\"id\":%u,\"method\":\"tools/list\",\"params\":{%s%.*s%s%s}}", page + 2,
            cursor.n ? "\"cursor\":" : "", EP_STR_ARG(cursor), between ? "," : "", meta);
        size_t n;
        char *text = page == PAGES_MAX ? NULL : ep_mcp_client_post(c, body, extra, &status, &n, err);
        if (page == PAGES_MAX)
            return ep_error_set(err, "more than %u pages", PAGES_MAX);
        if (!text)
            return false;
        *none = status != 200 && page == 0;
        good = status == 200 ? take_page(f, text, n, &cursor, err) : ep_error_set(err, "the server answers %u", status);
        free(text);
    }
    return good;
}

static bool with_session(struct found *f, struct ep_mcp_client *c, bool *none, struct ep_error *err)
{
    const struct ep_str hello =
        EP_STR("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\","
               "\"capabilities\":{},\"clientInfo\":{\"name\":\"ephor mcp pin\",\"version\":\"1\"}}}");
    const struct ep_str ready = EP_STR("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
    char version[64], *text;
    struct ep_str said;
    unsigned status = 0;
    size_t n;

    text = ep_mcp_client_post(c, hello, "", &status, &n, err);
    if (!text)
        return false;
    said = ep_json_member(ep_str_n(text, n), "result.protocolVersion");
    *none = status != 200 || said.n < 2 || said.n > 34 || said.p[0] != '"' || memchr(said.p, '\\', said.n);
    if (!*none)
        snprintf(version, sizeof version, "mcp-protocol-version: %.*s\r\n", (int)said.n - 2, said.p + 1);
    free(text);
    if (*none)
        return ep_error_set(err, "initialize is answered by %u and no session", status);
    text = ep_mcp_client_post(c, ready, version, &status, &n, err);
    free(text);
    return text && list(f, c, "", version, none, err);
}

static bool without_session(struct found *f, struct ep_mcp_client *c, bool *none, struct ep_error *err)
{
    return list(
        f, c,
        "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientInfo\":"
        "{\"name\":\"ephor mcp pin\",\"version\":\"1\"},\"io.modelcontextprotocol/clientCapabilities\":{}}",
        "mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/list\r\n", none, err);
}

/* Each generation on its own; it is enough when one of them answers. */
static bool ask(struct found *f, const struct options *o, struct ep_error *err)
{
    static bool (*const ways[])(struct found *, struct ep_mcp_client *, bool *, struct ep_error *) = {with_session,
                                                                                                      without_session};
    bool any = false;

    for (size_t i = 0; i < EP_COUNT(ways); i++) {
        struct ep_mcp_client_options client = o->client;
        struct ep_mcp_client c;
        bool none = false, good;
        client.url = o->url;
        client.headers = o->headers;
        if (!ep_mcp_client_init(&c, &client, err))
            return false;
        good = ways[i](f, &c, &none, err);
        ep_mcp_client_fini(&c);
        if (!good && !none && !(i > 0 && any))
            return false;
        any |= good;
    }
    return any;
}

/* --- telling --- */

static int by_name(const void *a_, const void *b_)
{
    const struct pin *a = a_, *b = b_;
    int order = memcmp(a->name.p, b->name.p, EP_MIN(a->name.n, b->name.n));

    if (order == 0 && a->name.n != b->name.n)
        order = a->name.n < b->name.n ? -1 : 1;
    return order ? order : memcmp(a->digest, b->digest, sizeof a->digest);
}

static int tell(struct found *f, const struct options *o)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    int failed = 0;

    qsort(f->v, f->n, sizeof *f->v, by_name);
    fprintf(out, "# By `ephor mcp pin`: SHA-256 of each tool's definition as canonical JSON (docs/mcp.md).\ntools:%s\n",
            f->n ? "" : " []");
    for (size_t i = 0; i < f->n; i++) {
        struct ep_json name;
        if (i && by_name(&f->v[i], &f->v[i - 1]) == 0)
            continue;
        ep_json_init(&name);
        ep_json_str(&name, f->v[i].name);
        fprintf(out, "  - {name: %.*s, sha256: ", EP_STR_ARG(ep_json_text(&name)));
        for (size_t k = 0; k < sizeof f->v[i].digest; k++)
            fprintf(out, "%02x", f->v[i].digest[k]);
        fprintf(out, "}\n");
        ep_json_fini(&name);
    }
    fclose(out);
    if (o->out)
        failed = ep_file_write(o->out, ep_str_n(text, n), 0644);
    else
        fwrite(text, 1, n, stdout);
    free(text);
    if (failed)
        fprintf(stderr, "%s: %s\n", o->out, strerror(-failed));
    return failed ? EP_EXIT_ENVIRONMENT : EP_EXIT_GOOD;
}

static int pin(int argc, char **argv)
{
    struct options o = {0};
    struct found f = {.v = ep_calloc(PINS_MAX + 1, sizeof(struct pin)), .scanner = ep_scanner_new(1)};
    struct ep_error err = {{0}};
    int exit_status = EP_EXIT_BAD;

    if (!f.scanner)
        abort();
    ep_chunk_pool_init(&f.chunks, 0);
    ep_arena_init(&f.arena, &f.chunks);
    argp_parse(&pin_argp, argc, argv, 0, NULL, &o);
    if (ask(&f, &o, &err))
        exit_status = tell(&f, &o);
    else
        fprintf(stderr, "%s: %s\n", o.url, err.text);
    ep_arena_fini(&f.arena);
    ep_chunk_pool_fini(&f.chunks);
    ep_scanner_free(f.scanner);
    free(f.v);
    free(o.headers);
    return exit_status;
}

int ep_cli_mcp(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "pin") == 0) {
        static char name[] = "ephor mcp pin";
        argv[1] = name;
        return pin(argc - 1, argv + 1);
    }
    fprintf(argc > 1 && strcmp(argv[1], "--help") == 0 ? stdout : stderr,
            "Usage: ephor mcp pin URL [--out FILE] [--header 'NAME: VALUE'] [--ca FILE] [--client-cert FILE --client-key FILE]\n");
    return argc > 1 && strcmp(argv[1], "--help") == 0 ? EP_EXIT_GOOD : EP_EXIT_USAGE;
}
