/* What the fields of a head mean for its message: length, connection, upgrade; and what is refused because two
 * parties could read it in two ways. Sources: RFC 9112 sections 3.2, 6, 9, 11; RFC 6455 section 4.2.1. */
#include "http/h1.h"

#define LENGTH_DIGITS_MAX 18u

static bool problem_set(struct h1_problem *problem, unsigned status, const char *reason)
{
    *problem = (struct h1_problem){status, reason};
    return false;
}

/* What one walk over the fields found. */
struct found {
    const struct h1_field *host, *length, *encoding, *expect, *upgrade, *key, *accept;
    bool two_hosts, two_lengths, two_encodings, two_keys, two_accepts;
    bool close, keep_alive, connection_upgrade;
};

static void note(const struct h1_field **slot, bool *two, const struct h1_field *f)
{
    *two |= *slot != NULL;
    *slot = f;
}

static void note_connection(struct h1_head *h, struct found *found, struct ep_str value)
{
    struct ep_str rest = value, token;

    while (ep_str_next(&rest, ',', &token)) {
        if (ep_str_caseeq(token, EP_STR("close")))
            found->close = true;
        else if (ep_str_caseeq(token, EP_STR("keep-alive")))
            found->keep_alive = true;
        else if (ep_str_caseeq(token, EP_STR("upgrade")))
            found->connection_upgrade = true;
        else if (token.n && !ep_str_caseeq(token, EP_STR("te")) && !ep_str_caseeq(token, EP_STR("http2-settings")))
            h->nominates = true;
    }
}

static void look(struct h1_head *h, struct found *found)
{
    bool ignored = false;

    for (unsigned i = 0; i < h->n; i++) {
        const struct h1_field *f = &h->v[i];

        switch (f->id) {
        case EP_HDR_HOST:
            note(&found->host, &found->two_hosts, f);
            break;
        case EP_HDR_CONTENT_LENGTH:
            note(&found->length, &found->two_lengths, f);
            break;
        case EP_HDR_TRANSFER_ENCODING:
            note(&found->encoding, &found->two_encodings, f);
            break;
        case EP_HDR_EXPECT:
            note(&found->expect, &ignored, f);
            break;
        case EP_HDR_UPGRADE:
            note(&found->upgrade, &ignored, f);
            break;
        case EP_HDR_SEC_WEBSOCKET_KEY:
            note(&found->key, &found->two_keys, f);
            break;
        case EP_HDR_SEC_WEBSOCKET_ACCEPT:
            note(&found->accept, &found->two_accepts, f);
            break;
        case EP_HDR_CONNECTION:
            note_connection(h, found, f->value);
            break;
        default:
            break;
        }
    }
}

/* Length fields, the same for both directions. `framing` stays as it is when there is none. */
static bool check_length(struct h1_head *h, const struct found *f, struct h1_problem *problem)
{
    if (f->encoding && f->length)
        return problem_set(problem, 400, "transfer-encoding with content-length");
    if (f->encoding) {
        if (h->minor == 0)
            return problem_set(problem, 400, "transfer-encoding in HTTP/1.0");
        if (f->two_encodings || !ep_str_caseeq(f->encoding->value, EP_STR("chunked")))
            return problem_set(problem, 400, "bad transfer-encoding");
        h->framing = H1_CHUNKED;
    } else if (f->length) {
        if (f->two_lengths)
            return problem_set(problem, 400, "several content-lengths");
        if (f->length->value.n > LENGTH_DIGITS_MAX || !ep_str_u64(f->length->value, &h->length))
            return problem_set(problem, 400, "bad content-length");
        h->framing = h->length ? H1_LENGTH : H1_EMPTY;
    }
    return true;
}

/* Letters, digits and -._~%!$&'()*+,;=:[] : RFC 3986 section 3.2, without userinfo. */
bool h1_authority_good(struct ep_str authority)
{
    static const uint64_t set[4] = {0x2fff7ff200000000u, 0x47fffffeaffffffeu, 0, 0};

    if (authority.n == 0)
        return false;
    for (size_t i = 0; i < authority.n; i++) {
        unsigned char c = (unsigned char)authority.p[i];

        if (!(set[c >> 6] >> (c & 63) & 1))
            return false;
    }
    return true;
}

/* host:port, both needed (RFC 9112 section 3.2.3). */
static bool authority_form(struct ep_str s)
{
    size_t colon = s.n;
    uint64_t port;

    while (colon > 0 && s.p[colon - 1] != ':')
        colon--;
    return colon > 1 && h1_authority_good(s) && ep_str_u64(ep_str_n(s.p + colon, s.n - colon), &port) && port > 0 &&
           port < 65536;
}

/* http://authority/path: RFC 9112 section 3.2.2. */
static bool absolute_form(struct h1_head *h)
{
    struct ep_str rest;
    size_t n = 0;

    if (ep_str_casestarts(h->target, EP_STR("http://")))
        h->scheme = ep_str_n(h->target.p, 4);
    else if (ep_str_casestarts(h->target, EP_STR("https://")))
        h->scheme = ep_str_n(h->target.p, 5);
    else
        return false;
    rest = ep_str_n(h->target.p + h->scheme.n + 3, h->target.n - h->scheme.n - 3);
    while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
        n++;
    h->authority = ep_str_n(rest.p, n);
    h->path = ep_str_n(rest.p + n, rest.n - n);
    return h1_authority_good(h->authority);
}

static bool check_target(struct h1_head *h, const struct found *f, struct h1_problem *problem)
{
    if (f->two_hosts)
        return problem_set(problem, 400, "several hosts");
    if (!f->host && h->minor > 0)
        return problem_set(problem, 400, "no host");
    if (f->host && !h1_authority_good(f->host->value))
        return problem_set(problem, 400, "bad host");
    if (h->connect) {
        if (!authority_form(h->target))
            return problem_set(problem, 400, "bad request target");
        h->authority = h->target;
        return true;
    }
    if (f->host)
        h->authority = f->host->value;
    h->path = h->target;
    if (h->target.p[0] == '/')
        return true;
    if (h->target.n == 1 && h->target.p[0] == '*' && ep_str_eq(h->method, EP_STR("OPTIONS")))
        return true;
    if (!absolute_form(h))
        return problem_set(problem, 400, "bad request target");
    if (f->host && !ep_str_caseeq(h->authority, f->host->value))
        return problem_set(problem, 400, "host differs from the request target");
    return true;
}

static bool check_upgrade(struct h1_head *h, const struct found *f, struct h1_problem *problem)
{
    if (!f->upgrade || !f->connection_upgrade || h->minor == 0 || h->framing != H1_EMPTY ||
        !ep_str_eq(h->method, EP_STR("GET")) || !ep_header_has_token(f->upgrade->value, EP_STR("websocket")))
        return true; /* another protocol, or none: served as HTTP/1.1 */
    if (!f->key || f->two_keys || !h1_websocket_key_good(f->key->value))
        return problem_set(problem, 400, "bad sec-websocket-key");
    h->websocket = true;
    h->websocket_key = f->key->value;
    h->framing = H1_TUNNEL;
    return true;
}

bool h1_check_request(struct h1_head *h, struct h1_problem *problem)
{
    struct found f = {.host = NULL};

    h->connect = ep_str_eq(h->method, EP_STR("CONNECT"));
    h->head = ep_str_eq(h->method, EP_STR("HEAD"));
    h->framing = H1_EMPTY;
    look(h, &f);
    h->keep_alive = !f.close && (h->minor > 0 || f.keep_alive);
    if (!check_length(h, &f, problem) || !check_target(h, &f, problem) || !check_upgrade(h, &f, problem))
        return false;
    if (h->connect) {
        if (h->framing != H1_EMPTY)
            return problem_set(problem, 400, "CONNECT with a body");
        h->framing = H1_TUNNEL;
    }
    if (f.expect && h->minor > 0) {
        if (!ep_str_caseeq(f.expect->value, EP_STR("100-continue")))
            return problem_set(problem, 417, "unknown expectation");
        h->expect_continue = h->framing == H1_LENGTH || h->framing == H1_CHUNKED;
    }
    return true;
}

bool h1_check_response(struct h1_head *h, struct h1_asked asked, struct h1_problem *problem)
{
    struct found f = {.host = NULL};

    h->framing = H1_CLOSE;
    look(h, &f);
    h->keep_alive = !f.close && (h->minor > 0 || f.keep_alive);
    if (!check_length(h, &f, problem))
        return false;
    if (h->status == 101) {
        if (!asked.websocket || !f.upgrade || !f.connection_upgrade || !f.accept || f.two_accepts ||
            !ep_str_caseeq(f.upgrade->value, EP_STR("websocket")))
            return problem_set(problem, 502, "101 that was not asked for");
        h->websocket = true;
        h->websocket_key = f.accept->value;
        h->framing = H1_TUNNEL;
        return true;
    }
    if (asked.connect && h->status >= 200 && h->status < 300) {
        h->framing = H1_TUNNEL; /* RFC 9110 section 9.3.6: length fields don't count */
        return true;
    }
    if (asked.head || h->status < 200 || h->status == 204 || h->status == 304)
        h->framing = H1_EMPTY;
    if (h->framing == H1_CLOSE)
        h->keep_alive = false;
    return true;
}
