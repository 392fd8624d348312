/* What the first bytes of a connection say: TLS, HTTP/2, HTTP/1 or something else; and what a ClientHello asks for.
 *
 * All is pure: bytes in, a verdict out, nothing kept. A wrong "opaque" is worse than a wrong "HTTP", because opaque
 * bytes pass no policy: so a request that a lenient server might still understand (blank lines before it, a method in
 * small letters, tabs or runs of blanks) counts as HTTP/1, and the codec refuses it with a 400.
 * Sources: RFC 9112 section 3, RFC 9113 section 3.4, RFC 8446 sections 4.1.2 and 5.1, RFC 6066, RFC 7301. */
#include "net/listener.h"
#include "net/tls.h"

#define METHOD_MAX 32
#define BLANKS_MAX 32
#define TARGET_MAX 2048u

#define RECORD_HANDSHAKE 22
#define RECORD_HEADER    5
#define RECORD_MAX       (16384u + 256u)
#define HELLO_MAX        65536u

static bool is_alpha(unsigned char c)
{
    return (unsigned char)((c | 0x20) - 'a') < 26;
}

static bool is_lower(unsigned char c)
{
    return (unsigned char)(c - 'a') < 26;
}

static bool is_digit(unsigned char c)
{
    return (unsigned char)(c - '0') < 10;
}

static bool is_tchar(unsigned char c)
{
    return is_alpha(c) || is_digit(c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* A target that begins with a letter: "http://…", or not of HTTP at all ("HELO there", "USER me"). The end of the line
 * tells, and what calls itself HTTP there is the codec's to refuse. */
static enum ep_sniff sniff_target(const unsigned char *p, size_t n)
{
    struct ep_str s = ep_str_n(p, n);
    ptrdiff_t end = ep_str_find(s, '\n', 0);

    if (ep_str_casestarts(s, EP_STR("http:")) || ep_str_casestarts(s, EP_STR("https:")))
        return EP_SNIFF_HTTP1;
    if (end < 0) /* not the whole line yet; of what goes on and on the codec makes a 414 */
        return n > TARGET_MAX ? EP_SNIFF_HTTP1 : EP_SNIFF_MORE;
    return ep_str_search(ep_str_n(p, (size_t)end), EP_STR("HTTP/")) >= 0 ? EP_SNIFF_HTTP1 : EP_SNIFF_OPAQUE;
}

static enum ep_sniff sniff_http1(const unsigned char *p, size_t n)
{
    size_t start = 0, i;
    bool lower = false;

    while (start < n && (p[start] == '\r' || p[start] == '\n' || p[start] == ' ' || p[start] == '\t'))
        start++; /* RFC 9112 section 2.2 has servers skip the first two; some skip the others */
    for (i = start; i < n && is_tchar(p[i]); i++) {
        if (i - start >= METHOD_MAX)
            return EP_SNIFF_OPAQUE;
        lower |= is_lower(p[i]);
    }
    if (i == n)
        return EP_SNIFF_MORE;
    if (i == start)
        return EP_SNIFF_OPAQUE;

    bool connect = ep_str_eq(ep_str_n(p + start, i - start), EP_STR("CONNECT"));
    size_t blanks = i;
    while (i < n && (p[i] == ' ' || p[i] == '\t'))
        if (++i - blanks > BLANKS_MAX)
            return EP_SNIFF_OPAQUE;
    if (i == blanks)
        return EP_SNIFF_OPAQUE;
    if (i == n)
        return EP_SNIFF_MORE;
    if (p[i] == '/')
        return EP_SNIFF_HTTP1;
    if (lower) /* "SSH-2.0-OpenSSH_9.2p1 Debian", "get key" */
        return EP_SNIFF_OPAQUE;
    if (p[i] == '*' || (connect && (is_alpha(p[i]) || is_digit(p[i]) || p[i] == '[')))
        return EP_SNIFF_HTTP1;
    return is_alpha(p[i]) ? sniff_target(p + i, n - i) : EP_SNIFF_OPAQUE;
}

/* A first line that calls itself HTTP, however it begins (" GET / HTTP/1.1", a method with a high byte): no server should
 * take it, but some would, so it is the codec's to refuse and not bytes that pass no policy. */
static bool says_http(const unsigned char *p, size_t n)
{
    size_t at = 0;

    while (at < n && (p[at] == '\r' || p[at] == '\n' || p[at] == ' ' || p[at] == '\t'))
        at++;
    struct ep_str line = ep_str_n(p + at, EP_MIN(n - at, TARGET_MAX));
    ptrdiff_t end = ep_str_find(line, '\n', 0);

    if (end >= 0)
        line.n = (size_t)end;
    return ep_str_search(line, EP_STR(" HTTP/")) >= 0;
}

enum ep_sniff ep_sniff_bytes(const unsigned char *p, size_t n)
{
    static const unsigned char preface[] = "PRI * "; /* no HTTP/1 request begins so: RFC 9113 reserves the method */
    size_t preface_n = sizeof preface - 1;
    enum ep_sniff what;

    if (n == 0)
        return EP_SNIFF_MORE;
    if (p[0] == RECORD_HANDSHAKE) {
        if (n > 1 && p[1] != 3)
            return EP_SNIFF_OPAQUE;
        if (n > 2)
            return p[2] <= 4 ? EP_SNIFF_TLS : EP_SNIFF_OPAQUE;
        return EP_SNIFF_MORE;
    }
    if (memcmp(p, preface, EP_MIN(n, preface_n)) == 0)
        return n >= preface_n ? EP_SNIFF_H2 : EP_SNIFF_MORE;
    what = sniff_http1(p, n);
    return what == EP_SNIFF_OPAQUE && says_http(p, n) ? EP_SNIFF_HTTP1 : what;
}

/* Reads a handshake message that may be spread over several records; `left` bytes of the current one remain. */
struct cursor {
    const unsigned char *p;
    size_t n, at, left;
    int state; /* 1: good so far, 0: more bytes are needed, -1: malformed */
};

static bool next_record(struct cursor *c)
{
    while (c->state == 1 && c->left == 0) {
        const unsigned char *h = c->p + c->at;
        size_t have = c->n - c->at;

        if ((have > 0 && h[0] != RECORD_HANDSHAKE) || (have > 1 && h[1] != 3) || (have > 2 && h[2] > 4)) {
            c->state = -1;
        } else if (have < RECORD_HEADER) {
            c->state = 0;
        } else {
            c->left = (size_t)h[3] << 8 | h[4];
            c->at += RECORD_HEADER;
            if (c->left == 0 || c->left > RECORD_MAX)
                c->state = -1;
        }
    }
    if (c->state == 1 && c->at >= c->n)
        c->state = 0;
    return c->state == 1;
}

static uint32_t take_int(struct cursor *c, int bytes)
{
    uint32_t v = 0;

    for (int i = 0; i < bytes; i++) {
        if (!next_record(c))
            return 0;
        v = v << 8 | c->p[c->at++];
        c->left--;
    }
    return v;
}

static void skip(struct cursor *c, size_t n)
{
    while (n && next_record(c)) {
        size_t part = EP_MIN(n, EP_MIN(c->left, c->n - c->at));

        c->at += part;
        c->left -= part;
        n -= part;
    }
}

/* n bytes in one piece. A name that a record boundary cuts in two is what somebody does who wants to hide it. */
static struct ep_str take(struct cursor *c, size_t n)
{
    struct ep_str s = {NULL, 0};

    if (n == 0 || !next_record(c))
        return s;
    if (n > c->left) {
        c->state = -1;
    } else if (n > c->n - c->at) {
        c->state = 0;
    } else {
        s = ep_str_n(c->p + c->at, n);
        c->at += n;
        c->left -= n;
    }
    return s;
}

/* The one host_name of a server_name extension of n bytes. */
static struct ep_str take_sni(struct cursor *c, size_t n)
{
    size_t list = take_int(c, 2);
    uint32_t type = take_int(c, 1);
    size_t length = take_int(c, 2);
    struct ep_str name = take(c, length);

    if (c->state != 1)
        return name;
    if (list + 2 != n || length + 5 != n || type != 0 || length == 0 || length > 255)
        c->state = -1;
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] <= ' ' || name.p[i] >= 0x7f)
            c->state = -1;
    return name;
}

static struct ep_str take_alpn(struct cursor *c, size_t n)
{
    size_t length = take_int(c, 2);
    struct ep_str list = take(c, length);
    size_t at = 0;

    if (c->state != 1)
        return list;
    if (length + 2 != n || length == 0)
        c->state = -1;
    while (c->state == 1 && at < list.n) {
        size_t one = (unsigned char)list.p[at];
        if (one == 0 || one > list.n - at - 1)
            c->state = -1;
        at += 1 + one;
    }
    return list;
}

#define ECH 0xfe0du /* encrypted_client_hello */

static void take_extensions(struct cursor *c, size_t total, struct ep_client_hello *h)
{
    while (total && c->state == 1) {
        uint32_t type = take_int(c, 2);
        size_t n = take_int(c, 2);

        if (c->state != 1)
            return;
        if (total < 4 || n > total - 4 || (type == 0 && h->sni.n) || (type == 16 && h->alpn.n)) {
            c->state = -1;
            return;
        }
        total -= 4 + n;
        if (type == 0)
            h->sni = take_sni(c, n);
        else if (type == 16)
            h->alpn = take_alpn(c, n);
        else
            skip(c, n);
        h->ech |= type == ECH;
    }
}

int ep_client_hello_parse(const unsigned char *p, size_t n, struct ep_client_hello *out)
{
    struct cursor c = {.p = p, .n = n, .state = 1};
    struct ep_client_hello found = {.ech = false};
    size_t length, used, part;

    *out = found;
    if (take_int(&c, 1) != 1 && c.state == 1) /* client_hello */
        return -1;
    length = take_int(&c, 3);
    if (c.state != 1)
        return c.state;
    if (length > HELLO_MAX)
        return -1;
    take_int(&c, 2); /* legacy_version */
    skip(&c, 32);
    used = 2 + 32;
    for (int field = 0; field < 3 && c.state == 1; field++) { /* session id, cipher suites, compression methods */
        int bytes = field == 1 ? 2 : 1;
        part = take_int(&c, bytes);
        skip(&c, part);
        used += (size_t)bytes + part;
    }
    if (c.state == 1 && used > length)
        c.state = -1;
    if (c.state == 1 && used < length) {
        size_t total = take_int(&c, 2);
        if (c.state == 1 && used + 2 + total != length)
            c.state = -1;
        take_extensions(&c, total, &found);
    }
    if (c.state == 1)
        *out = found;
    return c.state;
}

bool ep_alpn_list_has(struct ep_str list, struct ep_str protocol)
{
    for (size_t at = 0; at < list.n;) {
        size_t n = (unsigned char)list.p[at];

        if (n > list.n - at - 1)
            return false;
        if (ep_str_eq(ep_str_n(list.p + at + 1, n), protocol))
            return true;
        at += 1 + n;
    }
    return false;
}

/* --- names of hosts --- */

static bool is_host_char(char c)
{
    return is_lower((unsigned char)c) || is_digit((unsigned char)c) || c == '-' || c == '_';
}

size_t ep_host_normalise(struct ep_str name, char out[EP_HOST_MAX + 1])
{
    size_t label = 0; /* where the present one begins */
    bool digits = true;

    if (name.n && name.p[name.n - 1] == '.')
        name.n--;
    if (name.n == 0 || name.n > EP_HOST_MAX)
        return 0;
    for (size_t i = 0; i < name.n; i++) {
        char c = ep_lower(name.p[i]);

        out[i] = c;
        if (c == '.') {
            if (i == label)
                return 0;
            label = i + 1;
            digits = true;
        } else if (is_host_char(c)) {
            digits = digits && is_digit((unsigned char)c);
        } else {
            return 0;
        }
    }
    if (label == name.n || digits) /* no top-level name is a number: this is an address */
        return 0;
    out[name.n] = 0;
    return name.n;
}
