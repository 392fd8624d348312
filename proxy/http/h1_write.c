/* Writes a header table as an HTTP/1 head.
 *
 * What comes from elsewhere (an h2 peer, a filter) is looked at once more here: a name that is no token, a value with
 * a control character or a path with a space would be the start of another message on this connection.
 * Cookies are joined (RFC 9113 section 8.2.3), Host comes first, fields of the connection are ours alone. */
#include <stdio.h>

#include "http/h1.h"

#define FIXED_BYTES 320u /* status line, reason, our own fields */

static char *put(char *to, struct ep_str s)
{
    memcpy(to, s.p, s.n);
    return to + s.n;
}

static char *put_field(char *to, struct ep_str name, struct ep_str value)
{
    to = put(to, name);
    *to++ = ':';
    *to++ = ' ';
    to = put(to, value);
    *to++ = '\r';
    *to++ = '\n';
    return to;
}

size_t h1_write_bound(const struct h1_write *w)
{
    size_t n = FIXED_BYTES + w->reason.n;

    for (uint32_t i = 0; i < w->headers->n; i++)
        n += w->headers->v[i].name.n + w->headers->v[i].value.n + 8;
    return n;
}

static bool field_good(const struct ep_header *e)
{
    return (e->id != EP_HDR_OTHER || ep_header_name_valid(e->name)) && ep_header_value_valid(e->value);
}

static bool left_out(const struct h1_write *w, const struct ep_header *e, bool request)
{
    switch (e->id) {
    case EP_HDR_CONNECTION:
    case EP_HDR_HTTP2_SETTINGS:
    case EP_HDR_KEEP_ALIVE:
    case EP_HDR_PROXY_CONNECTION:
    case EP_HDR_SEC_WEBSOCKET_ACCEPT:
    case EP_HDR_TE:
    case EP_HDR_TRANSFER_ENCODING:
    case EP_HDR_UPGRADE:
        return true;
    case EP_HDR_CONTENT_LENGTH:
        return w->drop_length;
    case EP_HDR_COOKIE:
    case EP_HDR_EXPECT:
    case EP_HDR_HOST:
    case EP_HDR_SEC_WEBSOCKET_KEY:
        return request;
    default:
        return EP_HDR_IS_PSEUDO(e->id);
    }
}

/* The fields that aren't ours. NULL when one is bad. */
static char *put_fields(const struct h1_write *w, char *to, bool request)
{
    const struct ep_headers *h = w->headers;

    for (uint32_t i = 0; i < h->n; i++) {
        const struct ep_header *e = &h->v[i];

        if (left_out(w, e, request))
            continue;
        if (EP_UNLIKELY(!field_good(e)))
            return NULL;
        to = put_field(to, e->name, e->value);
    }
    return to;
}

static char *put_cookies(const struct h1_write *w, char *to)
{
    const struct ep_headers *h = w->headers;
    bool first = true;

    for (uint32_t i = 0; i < h->n; i++) {
        const struct ep_header *e = &h->v[i];

        if (e->id != EP_HDR_COOKIE)
            continue;
        if (!ep_header_value_valid(e->value))
            return NULL;
        to = put(to, first ? EP_STR("cookie: ") : EP_STR("; "));
        to = put(to, e->value);
        first = false;
    }
    return first ? to : put(to, EP_STR("\r\n"));
}

static char *put_length(const struct h1_write *w, char *to)
{
    if (w->framing == H1_CHUNKED)
        return put(to, EP_STR("transfer-encoding: chunked\r\n"));
    return w->zero_length ? put(to, EP_STR("content-length: 0\r\n")) : to;
}

static char *put_connection(const struct h1_write *w, char *to)
{
    static const struct ep_str lines[] = {
        [H1_CONNECTION_NONE] = EP_STR_INIT(""),
        [H1_CONNECTION_CLOSE] = EP_STR_INIT("connection: close\r\n"),
        [H1_CONNECTION_KEEP_ALIVE] = EP_STR_INIT("connection: keep-alive\r\n"),
    };

    return put(to, lines[w->connection]);
}

struct request {
    struct ep_str method, authority, path;
    bool te_trailers;
};

static bool request_of(const struct h1_write *w, struct request *r)
{
    const struct ep_headers *h = w->headers;
    struct ep_str host = {NULL, 0};
    bool connect;

    *r = (struct request){.path = {NULL, 0}};
    for (uint32_t i = 0; i < h->n; i++) {
        const struct ep_header *e = &h->v[i];

        if (e->id == EP_HDR_METHOD)
            r->method = e->value;
        else if (e->id == EP_HDR_AUTHORITY)
            r->authority = e->value;
        else if (e->id == EP_HDR_PATH)
            r->path = e->value;
        else if (e->id == EP_HDR_HOST && !host.p)
            host = e->value;
        else if (e->id == EP_HDR_TE && ep_header_has_token(e->value, EP_STR("trailers")))
            r->te_trailers = true;
    }
    if (r->authority.n == 0)
        r->authority = host;
    if (r->authority.n && !h1_authority_good(r->authority))
        return false;
    if (w->websocket_key.n)
        r->method = EP_STR("GET");
    connect = ep_str_eq(r->method, EP_STR("CONNECT"));
    if (connect)
        r->path = r->authority;
    if (!ep_header_name_valid(r->method) || !h1_target_good(r->path))
        return false;
    return connect || r->path.p[0] == '/' || (r->path.n == 1 && r->path.p[0] == '*');
}

size_t h1_write_request(const struct h1_write *w, char *out)
{
    struct request r;
    char *to = out;

    if (!request_of(w, &r))
        return 0;
    to = put(to, r.method);
    *to++ = ' ';
    to = put(to, r.path);
    to = put(to, EP_STR(" HTTP/1.1\r\n"));
    to = put_field(to, EP_STR("host"), r.authority.p ? r.authority : EP_STR(""));
    to = put_fields(w, to, true);
    if (!to || !(to = put_cookies(w, to)))
        return 0;
    to = put_length(w, to);
    if (w->websocket_key.n) {
        to = put(to, EP_STR("connection: upgrade\r\nupgrade: websocket\r\n"));
        to = put_field(to, EP_STR("sec-websocket-key"), w->websocket_key);
        if (!ep_headers_find_id(w->headers, EP_HDR_SEC_WEBSOCKET_VERSION))
            to = put(to, EP_STR("sec-websocket-version: 13\r\n"));
    } else if (r.te_trailers) {
        to = put(to, EP_STR("te: trailers\r\nconnection: te\r\n"));
    } else {
        to = put_connection(w, to);
    }
    to = put(to, EP_STR("\r\n"));
    return (size_t)(to - out);
}

size_t h1_write_response(const struct h1_write *w, unsigned status, char *out)
{
    struct ep_str reason = w->reason.n ? w->reason : ep_str(ep_status_reason(status));
    char digits[16];
    char *to;

    if (status < 100 || status > 999)
        return 0;
    snprintf(digits, sizeof digits, "%u ", status);
    to = put(put(put(put(out, EP_STR("HTTP/1.1 ")), ep_str(digits)), reason), EP_STR("\r\n"));
    to = put_fields(w, to, false);
    if (!to)
        return 0;
    to = put_length(w, to);
    if (w->websocket_key.n) {
        to = put(to, EP_STR("connection: upgrade\r\nupgrade: websocket\r\n"));
        to = put_field(to, EP_STR("sec-websocket-accept"), w->websocket_key);
    } else {
        to = put_connection(w, to);
    }
    to = put(to, EP_STR("\r\n"));
    return (size_t)(to - out);
}

size_t h1_write_trailers(const struct ep_headers *h, char *out)
{
    struct h1_write w = {.headers = h, .drop_length = true};
    char *to = put(out, EP_STR("0\r\n"));

    to = put_fields(&w, to, true);
    if (!to)
        return 0;
    to = put(to, EP_STR("\r\n"));
    return (size_t)(to - out);
}

size_t h1_write_chunk_line(uint64_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";
    char reversed[16];
    size_t k = 0, length;

    do
        reversed[k++] = digits[n & 15];
    while (n >>= 4);
    length = k;
    while (k)
        *out++ = reversed[--k];
    *out++ = '\r';
    *out = '\n';
    return length + 2;
}
