/* The client of `ephor mcp`: cli/mcp_client.h. It runs a worker of its own, a turn at a time, so that its connections
 * and their TLS are those of the proxy. */
#include "cli/mcp_client.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "agent/json.h"
#include "config/files.h"
#include "net/alpn.h"
#include "net/tls.h"

#define TIMEOUT_NS (30 * EP_S) /* of the dial, and of the answer */
#define ANSWER_MAX ((size_t)16 << 20)
#define PEM_MAX    ((size_t)4 << 20)

/* --- the address --- */

static bool split(struct ep_mcp_client *c, const char *url, struct ep_error *err)
{
    static const struct {
        const char *scheme, *port;
    } schemes[] = {{"http://", "80"}, {"https://", "443"}};
    struct ep_str rest = {NULL, 0}, authority;
    ptrdiff_t slash, colon, bracket;

    for (size_t i = 0; i < EP_COUNT(schemes); i++) {
        struct ep_str scheme = ep_str(schemes[i].scheme);
        if (!ep_str_casestarts(ep_str(url), scheme))
            continue;
        rest = ep_str_n(url + scheme.n, strlen(url) - scheme.n);
        c->port = ep_str(schemes[i].port);
        c->secure = i == 1;
    }
    if (!rest.p)
        return ep_error_set(err, "'%s' is neither an http:// nor an https:// address", url);
    slash = ep_str_find(rest, '/', 0);
    authority = slash < 0 ? rest : ep_str_n(rest.p, (size_t)slash);
    c->path = slash < 0 ? EP_STR("/") : ep_str_n(rest.p + slash, rest.n - (size_t)slash);
    bracket = ep_str_find(authority, ']', 0);
    colon = ep_str_find(authority, ':', bracket < 0 ? 0 : (size_t)bracket);
    c->host = colon < 0 ? authority : ep_str_n(authority.p, (size_t)colon);
    if (colon >= 0)
        c->port = ep_str_n(authority.p + colon + 1, authority.n - (size_t)colon - 1);
    if (c->host.n > 2 && c->host.p[0] == '[')
        c->host = ep_str_n(c->host.p + 1, c->host.n - 2);
    return (c->host.n && c->port.n) || ep_error_set(err, "'%s' names no host", url);
}

static bool read_pem(const char *path, struct ep_str *out, struct ep_error *err)
{
    struct ep_error why;

    if (!path || ep_file_read(ep_str(path), PEM_MAX, out, &why))
        return true;
    return ep_error_set(err, "%s: %s", path, why.text);
}

static bool make_tls(struct ep_mcp_client *c, const struct ep_mcp_client_options *o, struct ep_error *err)
{
    static const char *const alpn[] = {EP_ALPN_HTTP1, NULL};
    struct ep_str roots = {NULL, 0}, certificate = {NULL, 0}, key = {NULL, 0};

    if (read_pem(o->ca, &roots, err) && read_pem(o->certificate, &certificate, err) && read_pem(o->key, &key, err))
        c->tls = ep_tls_context_new(&(struct ep_tls_options){.verify = EP_TLS_VERIFY_NAME,
                                                             .roots_pem = roots,
                                                             .certificate_pem = certificate,
                                                             .key_pem = key,
                                                             .alpn = alpn},
                                    err);
    ep_file_free(&roots, false);
    ep_file_free(&certificate, false);
    ep_file_free(&key, true);
    return c->tls != NULL;
}

bool ep_mcp_client_init(struct ep_mcp_client *c, const struct ep_mcp_client_options *o, struct ep_error *err)
{
    *c = (struct ep_mcp_client){.headers = o->headers};
    if (!split(c, o->url, err))
        return false;
    if (!c->secure && (o->ca || o->certificate))
        return ep_error_set(err, "'%s' is no https:// address, and options of TLS are given", o->url);
    if (c->secure && !make_tls(c, o, err))
        return false;
    if (ep_worker_init(&c->worker, 0, err))
        return true;
    ep_tls_context_unref(c->tls);
    return false;
}

/* --- the answer --- */

struct answer {
    char *text; /* malloc'd; a NUL follows */
    size_t n, room;
    size_t head; /* bytes of the head; 0: not there yet */
};

static struct ep_str header(const struct answer *a, const char *name)
{
    struct ep_str rest = ep_str_n(a->text, a->head), line;

    while (ep_str_next(&rest, '\n', &line)) {
        ptrdiff_t colon = ep_str_find(line, ':', 0);
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        if (colon > 0 && ep_str_caseeq(ep_str_n(line.p, (size_t)colon), ep_str(name)))
            return ep_str_trim(ep_str_n(line.p + colon + 1, line.n - (size_t)colon - 1));
    }
    return (struct ep_str){NULL, 0};
}

/* Chunks undone, as many as are whole. *end: the last one was seen. Malloc'd, with padding. */
static char *dechunked(struct ep_str body, size_t *n, bool *end)
{
    char *out = ep_calloc(1, body.n + EP_SCAN_PADDING);
    const char *p = body.p, *stop = body.p + body.n;

    *n = 0;
    *end = false;
    while (p < stop) {
        char *behind;
        const char *line = memchr(p, '\n', (size_t)(stop - p));
        unsigned long long size = line ? strtoull(p, &behind, 16) : 0;
        if (!line || behind == p || size > (size_t)(stop - line - 1))
            break;
        *end = size == 0;
        if (*end)
            break;
        memcpy(out + *n, line + 1, size);
        *n += size;
        p = line + 1 + size;
        p += EP_MIN(2, stop - p);
    }
    return out;
}

/* The data of the event whose JSON is an answer (it has a result or an error, and no method), in place. */
static bool take_event(char *text, size_t *n)
{
    struct ep_str rest = ep_str_n(text, *n), line;
    size_t data = 0;
    bool any = false;

    while (rest.n && memchr(rest.p, '\n', rest.n) && ep_str_next(&rest, '\n', &line)) {
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        if (line.n == 0) {
            if (any && (memmem(text, data, "\"result\"", 8) || memmem(text, data, "\"error\"", 7))) {
                memset(text + data, 0, *n - data);
                *n = data;
                return true;
            }
            any = false;
            data = 0;
        } else if (ep_str_starts(line, EP_STR("data:"))) {
            struct ep_str value = ep_str_n(line.p + 5, line.n - 5);
            if (value.n && value.p[0] == ' ')
                value = ep_str_n(value.p + 1, value.n - 1);
            if (any)
                text[data++] = '\n';
            memmove(text + data, value.p, value.n); /* over what was read: each line is longer than its value */
            data += value.n;
            any = true;
        }
    }
    return false;
}

/* The body as far as it is there; NULL: not whole yet. */
static char *body_of(const struct answer *a, bool closed, size_t *n)
{
    struct ep_str body = ep_str_n(a->text + a->head, a->n - a->head), length = header(a, "content-length");
    bool events = ep_str_casestarts(header(a, "content-type"), EP_STR("text/event-stream")), end = closed;
    uint64_t wanted;
    char *text;

    if (ep_str_caseeq(header(a, "transfer-encoding"), EP_STR("chunked"))) {
        text = dechunked(body, n, &end);
    } else {
        end = closed || (ep_str_u64(length, &wanted) && body.n >= wanted);
        text = ep_calloc(1, body.n + EP_SCAN_PADDING);
        memcpy(text, body.p, body.n);
        *n = body.n;
    }
    if (events ? take_event(text, n) : end)
        return text;
    free(text);
    return NULL;
}

/* --- one request and its answer --- */

struct exchange {
    char *request;
    size_t n_request;
    struct answer a;
    char *body; /* of the answer; NULL: not whole yet */
    size_t n;
    unsigned status;
    bool over; /* the connection is */
    enum ep_close why;
    int error;
    char text[128];
};

static void find_head(struct answer *a)
{
    const char *end = a->head ? NULL : memmem(a->text, a->n, "\r\n\r\n", 4);

    if (end)
        a->head = (size_t)(end - a->text) + 4;
}

/* A server may leave its events open: what is looked for is the answer. */
static void look(struct ep_conn *c, struct exchange *x, bool closed)
{
    struct answer *a = &x->a;
    bool http = false;

    if (a->n)
        find_head(a);
    if (a->head) {
        http = sscanf(a->text, "HTTP/1.%*c %3u", &x->status) == 1;
        if (http && x->status == 200)
            x->body = body_of(a, closed, &x->n);
        else if (http)
            x->body = ep_calloc(1, EP_SCAN_PADDING);
    }
    if (x->body || closed || (a->head && !http) || a->n >= ANSWER_MAX)
        ep_conn_close(c);
}

static void on_ready(struct ep_conn *c)
{
    struct exchange *x = c->user;

    ep_conn_deadline(c, TIMEOUT_NS);
    ep_conn_write(c, x->request, x->n_request);
}

static void on_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    struct exchange *x = c->user;
    struct answer *a = &x->a;

    (void)slab;
    if (a->n + n >= a->room)
        a->text = ep_realloc(a->text, a->room = EP_MAX(2 * a->room, a->n + n + 1));
    memcpy(a->text + a->n, p, n);
    a->n += n;
    a->text[a->n] = '\0';
    look(c, x, false);
}

/* Without a close_notify the end may be anybody's. */
static void on_eof(struct ep_conn *c)
{
    const struct ep_tls_info *tls = ep_conn_tls_info(c);
    struct exchange *x = c->user;

    if (!tls || tls->close_notify)
        look(c, x, true);
    else
        ep_conn_close(c);
}

static void on_closed(struct ep_conn *c, enum ep_close why)
{
    struct exchange *x = c->user;

    x->over = true;
    x->why = why;
    x->error = c->error;
    memcpy(x->text, c->error_text, sizeof x->text);
}

static const struct ep_conn_handler handler = {
    .name = "mcp client", .on_ready = on_ready, .on_data = on_data, .on_eof = on_eof, .on_closed = on_closed};

static void write_request(struct exchange *x, const struct ep_mcp_client *c, const char *method, struct ep_str body,
                          const char *extra)
{
    bool v6 = ep_str_find(c->host, ':', 0) >= 0;
    int length =
        asprintf(&x->request,
                 "%s %.*s HTTP/1.1\r\nhost: %s%.*s%s:%.*s\r\ncontent-type: application/json\r\n"
                 "accept: application/json, text/event-stream\r\ncontent-length: %zu\r\nconnection: close\r\n"
                 "%s%s%s%s%s\r\n%.*s",
                 method, EP_STR_ARG(c->path), v6 ? "[" : "", EP_STR_ARG(c->host), v6 ? "]" : "", EP_STR_ARG(c->port),
                 body.n, c->headers ? c->headers : "", extra, c->session.n ? "mcp-session-id: " : "",
                 c->session.n ? c->session.p : "", c->session.n ? "\r\n" : "", EP_STR_ARG(body));

    if (length < 0)
        abort();
    x->n_request = (size_t)length;
}

/* False: nothing was heard. */
static bool ask(struct ep_mcp_client *c, struct exchange *x, const struct addrinfo *a)
{
    struct ep_addr to = {.len = a->ai_addrlen};

    x->over = false;
    if (a->ai_addrlen > sizeof to.u)
        return false;
    memcpy(&to.u, a->ai_addr, a->ai_addrlen);
    if (!ep_conn_connect(&c->worker, &to, NULL, TIMEOUT_NS, c->tls, c->host, &handler, x))
        return false;
    while (!x->over)
        ep_worker_turn(&c->worker, true);
    return x->a.n > 0;
}

static bool explain(const struct ep_mcp_client *c, const struct exchange *x, struct ep_error *err)
{
    const char *where = x->a.n ? "the answer" : "the connection";

    if (x->why == EP_CLOSE_TLS)
        return ep_error_set(err, "%.*s port %.*s: TLS: %s", EP_STR_ARG(c->host), EP_STR_ARG(c->port), x->text);
    if (x->a.n >= ANSWER_MAX)
        return ep_error_set(err, "the answer: longer than 16 MiB");
    return ep_error_set(err, "%.*s port %.*s: %s: %s", EP_STR_ARG(c->host), EP_STR_ARG(c->port), where,
                        x->error                     ? strerror(x->error)
                        : x->why == EP_CLOSE_TIMEOUT ? "it takes too long"
                                                     : "it is cut");
}

/* At the first address that answers anything. False with err. */
static bool exchange(struct ep_mcp_client *c, struct exchange *x, struct ep_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    char *host = ep_strndup(c->host.p, c->host.n), *port = ep_strndup(c->port.p, c->port.n);
    int failed = getaddrinfo(host, port, &hints, &found);
    bool heard = false;

    if (failed)
        ep_error_set(err, "%s: %s", host, gai_strerror(failed));
    for (const struct addrinfo *a = found; a && !heard; a = a->ai_next)
        heard = ask(c, x, a);
    if (found)
        freeaddrinfo(found);
    free(host);
    free(port);
    return x->body || (!failed && explain(c, x, err));
}

char *ep_mcp_client_post(struct ep_mcp_client *c, struct ep_str body, const char *extra, unsigned *status, size_t *n,
                         struct ep_error *err)
{
    struct exchange x = {0};
    struct ep_str session = {NULL, 0};

    write_request(&x, c, "POST", body, extra);
    if (exchange(c, &x, err) && !c->session.n)
        session = header(&x.a, "mcp-session-id");
    if (session.n)
        c->session = ep_str_n(ep_strndup(session.p, session.n), session.n);
    *status = x.status;
    *n = x.n;
    free(x.request);
    free(x.a.text);
    return x.body;
}

/* Ends the session, if there is one; what the server thinks of that is its own matter. */
void ep_mcp_client_fini(struct ep_mcp_client *c)
{
    struct exchange x = {0};
    struct ep_error ignored;

    if (c->session.n) {
        write_request(&x, c, "DELETE", (struct ep_str){"", 0}, "");
        exchange(c, &x, &ignored);
        free(x.request);
        free(x.a.text);
        free(x.body);
    }
    ep_worker_fini(&c->worker);
    ep_tls_context_unref(c->tls);
    free((char *)(uintptr_t)c->session.p);
}
