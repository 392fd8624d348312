/* The client of `ephor mcp`: cli/mcp_client.h. */
#include "cli/mcp_client.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "agent/json.h"

#define TIMEOUT_S  30
#define ANSWER_MAX ((size_t)16 << 20)

bool ep_mcp_client_init(struct ep_mcp_client *c, const char *url, const char *headers, struct ep_error *err)
{
    const struct ep_str scheme = EP_STR("http://");
    struct ep_str rest = ep_str(url), authority;
    ptrdiff_t slash, colon, bracket;

    *c = (struct ep_mcp_client){.headers = headers};
    if (!ep_str_casestarts(rest, scheme))
        return ep_error_set(
            err, "'%s' is no http:// address; for https:// ask through a listener of ephor that goes there", url);
    rest = ep_str_n(rest.p + scheme.n, rest.n - scheme.n);
    slash = ep_str_find(rest, '/', 0);
    authority = slash < 0 ? rest : ep_str_n(rest.p, (size_t)slash);
    c->path = slash < 0 ? EP_STR("/") : ep_str_n(rest.p + slash, rest.n - (size_t)slash);
    bracket = ep_str_find(authority, ']', 0);
    colon = ep_str_find(authority, ':', bracket < 0 ? 0 : (size_t)bracket);
    c->host = colon < 0 ? authority : ep_str_n(authority.p, (size_t)colon);
    c->port = colon < 0 ? EP_STR("80") : ep_str_n(authority.p + colon + 1, authority.n - (size_t)colon - 1);
    if (c->host.n > 2 && c->host.p[0] == '[')
        c->host = ep_str_n(c->host.p + 1, c->host.n - 2);
    return (c->host.n && c->port.n) || ep_error_set(err, "'%s' names no host", url);
}

/* --- the wire --- */

static int dial(const struct ep_mcp_client *c, struct ep_error *err)
{
    struct timeval limit = {.tv_sec = TIMEOUT_S};
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    char host[256], port[16];
    int fd = -1, failed;

    if (c->host.n >= sizeof host || c->port.n >= sizeof port) {
        ep_error_set(err, "the address is too long");
        return -1;
    }
    snprintf(host, sizeof host, "%.*s", EP_STR_ARG(c->host));
    snprintf(port, sizeof port, "%.*s", EP_STR_ARG(c->port));
    failed = getaddrinfo(host, port, &hints, &found);
    if (failed) {
        ep_error_set(err, "%s: %s", host, gai_strerror(failed));
        return -1;
    }
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
                        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0 ||
                        connect(fd, a->ai_addr, a->ai_addrlen) < 0)) {
            ep_error_set(err, "%s port %s: %s", host, port, strerror(errno));
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

static bool say(const struct ep_mcp_client *c, int fd, const char *method, struct ep_str body, const char *extra,
                struct ep_error *err)
{
    bool v6 = ep_str_find(c->host, ':', 0) >= 0;
    size_t sent = 0, n;
    char *text;
    int length =
        asprintf(&text,
                 "%s %.*s HTTP/1.1\r\nhost: %s%.*s%s:%.*s\r\ncontent-type: application/json\r\n"
                 "accept: application/json, text/event-stream\r\ncontent-length: %zu\r\nconnection: close\r\n"
                 "%s%s%s%s%s\r\n%.*s",
                 method, EP_STR_ARG(c->path), v6 ? "[" : "", EP_STR_ARG(c->host), v6 ? "]" : "", EP_STR_ARG(c->port),
                 body.n, c->headers ? c->headers : "", extra, c->session.n ? "mcp-session-id: " : "",
                 c->session.n ? c->session.p : "", c->session.n ? "\r\n" : "", EP_STR_ARG(body));

    if (length < 0)
        abort();
    for (n = (size_t)length; sent < n;) {
        ssize_t more = send(fd, text + sent, n - sent, MSG_NOSIGNAL);
        if (more <= 0)
            break;
        sent += (size_t)more;
    }
    free(text);
    return sent == n || ep_error_set(err, "sending: %s", strerror(errno));
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

static void find_head(struct answer *a)
{
    const char *end = a->head ? NULL : memmem(a->text, a->n, "\r\n\r\n", 4);

    if (end)
        a->head = (size_t)(end - a->text) + 4;
}

/* Reads until the answer is whole: a server may leave its events open. */
static char *hear(int fd, struct answer *a, unsigned *status, size_t *n, struct ep_error *err)
{
    char *body = NULL;
    ssize_t got = 1;

    while (got > 0 && a->n < ANSWER_MAX) {
        if (a->n + 1 >= a->room)
            a->text = ep_realloc(a->text, a->room = a->room ? 2 * a->room : 1u << 16);
        got = recv(fd, a->text + a->n, a->room - a->n - 1, 0);
        a->n += got > 0 ? (size_t)got : 0;
        a->text[a->n] = '\0';
        find_head(a);
        if (!a->head)
            continue;
        if (sscanf(a->text, "HTTP/1.%*c %3u", status) != 1)
            break;
        if (*status != 200) {
            *n = 0;
            return ep_calloc(1, EP_SCAN_PADDING);
        }
        body = body_of(a, got == 0, n);
        if (body)
            return body;
    }
    ep_error_set(err, "the answer: %s",
                 got < 0              ? strerror(errno)
                 : a->n >= ANSWER_MAX ? "longer than 16 MiB"
                                      : "it is cut");
    return NULL;
}

/* Ends the session, if there is one; what the server thinks of that is its own matter. */
void ep_mcp_client_fini(struct ep_mcp_client *c)
{
    struct ep_error ignored;
    int fd = c->session.n ? dial(c, &ignored) : -1;

    if (fd >= 0) {
        say(c, fd, "DELETE", (struct ep_str){"", 0}, "", &ignored);
        shutdown(fd, SHUT_WR);
        for (char rest[512]; recv(fd, rest, sizeof rest, 0) > 0;)
            continue;
        close(fd);
    }
    free((char *)(uintptr_t)c->session.p);
}

char *ep_mcp_client_post(struct ep_mcp_client *c, struct ep_str body, const char *extra, unsigned *status, size_t *n,
                         struct ep_error *err)
{
    struct answer a = {0};
    struct ep_str session;
    char *text = NULL;
    int fd = dial(c, err);

    if (fd >= 0 && say(c, fd, "POST", body, extra, err))
        text = hear(fd, &a, status, n, err);
    if (fd >= 0)
        close(fd);
    session = text && !c->session.n ? header(&a, "mcp-session-id") : (struct ep_str){NULL, 0};
    if (session.n)
        c->session = ep_str_n(ep_strndup(session.p, session.n), session.n);
    free(a.text);
    return text;
}
