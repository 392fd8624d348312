/* What MCP's headers say against the body's own words: Mcp-Method, Mcp-Name, MCP-Protocol-Version, Mcp-Param-….
 *
 * A server may go by either, and a proxy in front of it by the other. From 2026-07-28 on headers repeat what is called,
 * and must be there. Which argument a Mcp-Param-… mirrors is said by the tool's schema (x-mcp-header), which isn't
 * known here: it is compared with the argument of the same name, where there is one at the top. Sources: the
 * specification of 2026-07-28, AGENTS.md 2.5. */
#include <stdlib.h>

#include "agent/agent.h"
#include "agent/mcp.h"
#include "observe/json.h"

#define STATELESS "2026-07-28" /* from this revision on, headers repeat method and name */

static struct ep_str text_of(const struct ep_scan_value *v)
{
    return v->kind == EP_SCAN_STRING ? ep_agent_str(v->text) : (struct ep_str){NULL, 0};
}

bool ep_mcp_decode_header(struct ep_str value, struct ep_arena *arena, struct ep_str *out)
{
    struct ep_str open = EP_STR("=?base64?"), close = EP_STR("?=");
    unsigned bits = 0, n_bits = 0;
    char *bytes;
    size_t n = 0;

    *out = value = ep_str_trim(value);
    if (!ep_str_casestarts(value, open) || !ep_str_ends(value, close) || value.n < open.n + close.n)
        return true;
    value = ep_str_n(value.p + open.n, value.n - open.n - close.n);
    for (int padding = 0; padding < 2 && value.n && value.p[value.n - 1] == '='; padding++)
        value.n--;
    bytes = ep_arena_alloc(arena, value.n + 1);
    for (size_t i = 0; i < value.n; i++) {
        unsigned v = ep_base64_digit(value.p[i]);
        if (v > 63)
            return false;
        bits = (bits << 6 | v) & 0xffffu;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            bytes[n++] = (char)(bits >> n_bits & 0xff);
        }
    }
    *out = ep_str_n(bytes, n);
    return n_bits < 6 && (bits & ((1u << n_bits) - 1)) == 0;
}

/* Dates as text are in order. */
bool ep_mcp_is_stateless(struct ep_str version)
{
    struct ep_str first = EP_STR(STATELESS);

    return version.n == first.n && memcmp(version.p, first.p, first.n) >= 0;
}

/* --- Mcp-Param-… --- */

static bool is_number(struct ep_str s)
{
    return s.n && s.n < 64 && (s.p[0] == '-' || (s.p[0] >= '0' && s.p[0] <= '9'));
}

/* 42 and 42.0 are equal, by the specification. */
static bool same_number(struct ep_str a, struct ep_str b)
{
    char text[2][64], *end;
    double value[2];

    if (!is_number(a) || !is_number(b))
        return false;
    memcpy(text[0], a.p, a.n);
    memcpy(text[1], b.p, b.n);
    text[0][a.n] = text[1][b.n] = '\0';
    for (int i = 0; i < 2; i++) {
        value[i] = strtod(text[i], &end);
        if (*end)
            return false;
    }
    return value[0] <= value[1] && value[0] >= value[1];
}

/* `value`: raw JSON. Objects and arrays are never mirrored, and null isn't either. */
static bool is_primitive(struct ep_str value)
{
    return value.p[0] != '{' && value.p[0] != '[' && !ep_str_eq(value, EP_STR("null"));
}

static bool value_agrees(struct ep_stream *s, struct ep_str given, struct ep_str value)
{
    struct ep_str decoded;
    char *said;

    if (!ep_mcp_decode_header(given, &s->arena, &decoded))
        return false;
    if (value.p[0] != '"')
        return ep_str_eq(decoded, value) || same_number(decoded, value);
    said = ep_arena_alloc(&s->arena, value.n);
    return ep_str_eq(decoded, ep_str_n(said, ep_json_plain(value, said, value.n)));
}

static bool param_agrees(struct ep_stream *s, struct ep_str name, struct ep_str given, const struct ep_scan_message *m)
{
    const struct ep_str prefix = EP_STR("mcp-param-");
    struct ep_str rest, key, value;
    char room[EP_MCP_KEY_MAX];

    if (EP_LIKELY(name.n < prefix.n || name.p[3] != '-' || !ep_str_casestarts(name, prefix)) || m->arguments.kind != EP_SCAN_OBJECT)
        return true;
    name = ep_str_n(name.p + prefix.n, name.n - prefix.n);
    rest = ep_agent_str(m->arguments.raw);
    while (ep_json_next(&rest, &key, &value))
        if (ep_str_caseeq(ep_mcp_key(key, room), name) && is_primitive(value) && !value_agrees(s, given, value))
            return false;
    return true;
}

/* --- all of them --- */

const char *ep_mcp_header_mismatch(struct ep_stream *s, const struct ep_agent_head *h, const struct ep_scan_message *m)
{
    const struct ep_headers *t = &s->request.headers;
    struct ep_str method = text_of(&m->method), version = text_of(&m->meta_version), decoded;
    enum ep_mcp_names names = ep_mcp_names_of(method);
    struct ep_str named = text_of(names == EP_MCP_NAMES_URI ? &m->uri : &m->name);
    bool stateless = ep_mcp_is_stateless(version) || ep_mcp_is_stateless(h->mcp_version);

    if (!method.n)
        return NULL;
    for (uint32_t i = 0; i < t->n; i++) {
        struct ep_str value = t->v[i].value;
        switch (t->v[i].id) {
        case EP_HDR_MCP_METHOD:
            if (!ep_mcp_decode_header(value, &s->arena, &decoded) || !ep_str_eq(decoded, method))
                return "the header Mcp-Method differs from the body's method";
            break;
        case EP_HDR_MCP_NAME:
            if (names && (!ep_mcp_decode_header(value, &s->arena, &decoded) || !ep_str_eq(decoded, named)))
                return "the header Mcp-Name differs from the body's name";
            break;
        case EP_HDR_MCP_PROTOCOL_VERSION:
            if (version.n && !ep_str_eq(ep_str_trim(value), version))
                return "the header MCP-Protocol-Version differs from the body's";
            break;
        case EP_HDR_OTHER:
            if (!param_agrees(s, t->v[i].name, value, m))
                return "a header Mcp-Param-… differs from the argument of its name";
            break;
        default:
            break;
        }
    }
    if (!stateless || m->id.kind == EP_SCAN_ABSENT)
        return NULL;
    if (!h->mcp_method.p)
        return "the header Mcp-Method is missing";
    if (names && named.n && !h->mcp_name.p && !ep_str_eq(method, EP_STR("resources/subscribe")) &&
        !ep_str_eq(method, EP_STR("resources/unsubscribe")))
        return "the header Mcp-Name is missing";
    return NULL;
}
