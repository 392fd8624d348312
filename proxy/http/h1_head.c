/* Reads a whole head: the start line here, the fields by llhttp.
 *
 * llhttp is fed a constant start line and then the block of fields, for requests, responses and trailers alike: so
 * every method passes, and a start line is never read leniently. What its spans leave open is checked here: that
 * a name is a token with its colon right behind it, that a value has no control character. The gatherer has seen to
 * the line ends before. Sources: RFC 9110 section 5, RFC 9112 sections 3, 4, 5. */
#include <llhttp.h>

#include "http/h1.h"

#define NAME_WITH_ID_MAX 32u

static bool problem_set(struct h1_problem *problem, unsigned status, const char *reason)
{
    *problem = (struct h1_problem){status, reason};
    return false;
}

struct reader {
    struct h1_head *head;
    const struct ep_http_options *options;
    struct h1_problem problem; /* reason NULL: none yet */
    const char *value_end;     /* of the last field's value, before trimming */
    bool complete;
};

static int stop(struct reader *r, unsigned status, const char *reason)
{
    if (!r->problem.reason)
        r->problem = (struct h1_problem){status, reason};
    return HPE_USER;
}

/* The id of a name in any case; false when it is no token. */
static bool name_id(struct ep_str name, uint16_t *id)
{
    char low[NAME_WITH_ID_MAX];
    size_t n = EP_MIN(name.n, sizeof low);

    for (size_t i = 0; i < n; i++) {
        if (!(low[i] = ep_token_lower[(unsigned char)name.p[i]]))
            return false;
    }
    *id = n == name.n ? ep_header_id(ep_str_n(low, n)) : EP_HDR_OTHER;
    return n == name.n ? n > 0 : ep_header_name_valid(name);
}

static int on_field(llhttp_t *parser, const char *at, size_t n)
{
    struct reader *r = parser->data;
    struct h1_head *h = r->head;
    uint16_t id;

    if (at < h->block.p || at + n >= h->block.p + h->block.n || at[n] != ':')
        return stop(r, 400, "bad header name");
    if (!name_id(ep_str_n(at, n), &id))
        return stop(r, 400, "bad header name");
    if (h->n >= EP_MIN(r->options->max_header_count, H1_FIELDS_MAX))
        return stop(r, 431, "too many header fields");
    h->v[h->n++] = (struct h1_field){.id = id, .name = ep_str_n(at, n), .value = ep_str_n(at + n + 1, 0)};
    r->value_end = NULL;
    return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t n)
{
    struct reader *r = parser->data;
    struct h1_field *f;

    if (n == 0)
        return 0;
    if (r->head->n == 0 || (r->value_end && r->value_end != at))
        return stop(r, 400, "bad header value");
    f = &r->head->v[r->head->n - 1];
    if (!r->value_end)
        f->value.p = at;
    r->value_end = at + n;
    f->value.n = (size_t)(r->value_end - f->value.p);
    return 0;
}

static int on_complete(llhttp_t *parser)
{
    struct reader *r = parser->data;

    r->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_complete,
};

static bool field_problem(const llhttp_t *parser, const struct reader *r, struct h1_problem *problem)
{
    if (r->problem.reason) {
        *problem = r->problem;
        return false;
    }
    switch (llhttp_get_errno(parser)) {
    case HPE_INVALID_CONTENT_LENGTH:
        return problem_set(problem, 400, "bad content-length");
    case HPE_UNEXPECTED_CONTENT_LENGTH:
        return problem_set(problem, 400, "conflicting lengths");
    case HPE_INVALID_TRANSFER_ENCODING:
        return problem_set(problem, 400, "bad transfer-encoding");
    default:
        return problem_set(problem, 400, "bad header field");
    }
}

bool h1_parse_fields(struct h1_head *h, struct ep_str fields, bool request, const struct ep_http_options *o,
                     struct h1_problem *problem)
{
    struct ep_str start = request ? EP_STR("GET / HTTP/1.1\r\n") : EP_STR("HTTP/1.1 200 OK\r\n");
    struct reader r = {.head = h, .options = o};
    llhttp_t parser;

    h->n = 0;
    llhttp_init(&parser, request ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
    parser.data = &r;
    if (llhttp_execute(&parser, start.p, start.n) != HPE_OK)
        return problem_set(problem, 500, "parser");
    if (llhttp_execute(&parser, fields.p, fields.n) != HPE_PAUSED || !r.complete)
        return field_problem(&parser, &r, problem);
    for (unsigned i = 0; i < h->n; i++) {
        h->v[i].value = ep_str_trim(h->v[i].value);
        if (!ep_header_value_valid(h->v[i].value))
            return problem_set(problem, 400, "bad header value");
    }
    return true;
}

/* "HTTP/1.x" */
static bool version(struct h1_head *h, struct ep_str s, struct h1_problem *problem)
{
    if (s.n != 8 || memcmp(s.p, "HTTP/", 5) != 0 || s.p[6] != '.' || s.p[5] < '0' || s.p[5] > '9' || s.p[7] < '0' ||
        s.p[7] > '9')
        return problem_set(problem, 400, "bad request line");
    if (s.p[5] != '1' || s.p[7] > '1')
        return problem_set(problem, 505, "unsupported HTTP version");
    h->minor = (unsigned)(s.p[7] - '0');
    return true;
}

bool h1_target_good(struct ep_str target)
{
    if (target.n == 0)
        return false;
    for (size_t i = 0; i < target.n; i++) {
        unsigned char c = (unsigned char)target.p[i];

        if (c <= 0x20 || c >= 0x7f || c == '#')
            return false;
    }
    return true;
}

/* The start line without its CRLF; the rest of the block follows it. */
static struct ep_str first_line(struct ep_str block, struct ep_str *rest)
{
    const char *lf = memchr(block.p, '\n', block.n);
    size_t n = (size_t)(lf - block.p) + 1;

    *rest = ep_str_n(block.p + n, block.n - n);
    return ep_str_n(block.p, n - 2);
}

static bool request_line(struct h1_head *h, struct ep_str line, struct h1_problem *problem)
{
    ptrdiff_t a = ep_str_find(line, ' ', 0);
    ptrdiff_t b = a < 0 ? -1 : ep_str_find(line, ' ', (size_t)a + 1);

    if (b < 0)
        return problem_set(problem, 400, "bad request line");
    h->method = ep_str_n(line.p, (size_t)a);
    h->target = ep_str_n(line.p + a + 1, (size_t)(b - a - 1));
    if (!ep_header_name_valid(h->method))
        return problem_set(problem, 400, "bad method");
    if (!version(h, ep_str_n(line.p + b + 1, line.n - (size_t)b - 1), problem))
        return false;
    if (!h1_target_good(h->target))
        return problem_set(problem, 400, "bad request target");
    return true;
}

static bool status_line(struct h1_head *h, struct ep_str line, struct h1_problem *problem)
{
    uint64_t status;

    /* A missing space before an empty reason is common, and harmless. */
    if (line.n < 12 || line.p[8] != ' ' || (line.n > 12 && line.p[12] != ' '))
        return problem_set(problem, 502, "bad status line");
    if (!version(h, ep_str_n(line.p, 8), problem))
        return false;
    h->status_text = ep_str_n(line.p + 9, 3);
    if (!ep_str_u64(h->status_text, &status) || status < 100 || !ep_header_value_valid(line))
        return problem_set(problem, 502, "bad status line");
    h->status = (unsigned)status;
    return true;
}

static void begin(struct h1_head *h, struct ep_str block)
{
    memset(h, 0, offsetof(struct h1_head, v));
    h->block = block;
}

bool h1_parse_request(struct h1_head *h, struct ep_str block, const struct ep_http_options *o, struct h1_problem *problem)
{
    struct ep_str rest;

    begin(h, block);
    return request_line(h, first_line(block, &rest), problem) && h1_parse_fields(h, rest, true, o, problem) &&
           h1_check_request(h, problem);
}

bool h1_parse_response(struct h1_head *h, struct ep_str block, struct h1_asked asked, const struct ep_http_options *o,
                       struct h1_problem *problem)
{
    struct ep_str rest;

    begin(h, block);
    return status_line(h, first_line(block, &rest), problem) && h1_parse_fields(h, rest, false, o, problem) &&
           h1_check_response(h, asked, problem);
}

bool h1_parse_trailers(struct h1_head *h, struct ep_str block, const struct ep_http_options *o, struct h1_problem *problem)
{
    static const uint16_t framing[] = {EP_HDR_CONTENT_LENGTH, EP_HDR_TRANSFER_ENCODING, EP_HDR_HOST};

    begin(h, block);
    if (block.n == 2) /* the usual: none */
        return true;
    if (!h1_parse_fields(h, block, true, o, problem))
        return false;
    for (unsigned i = 0; i < h->n; i++) {
        for (size_t k = 0; k < EP_COUNT(framing); k++) {
            if (h->v[i].id == framing[k])
                return problem_set(problem, 400, "framing field in trailers");
        }
    }
    return true;
}
