/* What is in a line of a record, and what of it must not be. record_line.h has the contract. */
#include "lua/record_line.h"

#include <openssl/sha.h>

#include "filter/chain.h"
#include "http_call.h"
#include "lua/policy.h"
#include "lua/record.h"

void ep_record_line_init(struct ep_record_line *r)
{
    ep_json_init(&r->text);
    ep_json_init(&r->lost);
}

void ep_record_line_fini(struct ep_record_line *r)
{
    ep_json_fini(&r->text);
    ep_json_fini(&r->lost);
}

void ep_record_line_begin(struct ep_record_line *r)
{
    ep_json_reset(&r->text);
    ep_json_reset(&r->lost);
    ep_json_object(&r->lost);
    ep_json_object(&r->text);
}

void ep_record_line_lost(struct ep_record_line *r)
{
    ep_json_object_end(&r->lost);
    ep_json_key(&r->text, "lost");
    ep_json_raw(&r->text, ep_json_text(&r->lost));
}

/* --- what is secret --- */

static bool secret(struct ep_str name)
{
    static const char *const parts[] = {"auth",   "token",   "secret",  "passw",  "credential", "apikey",
                                        "api-key", "api_key", "session", "cookie", "signature",  "private"};
    static const char *const names[] = {"key", "code", "sig", "pwd"};
    char lower[64];
    size_t n = EP_MIN(name.n, sizeof lower);

    for (size_t i = 0; i < n; i++)
        lower[i] = ep_lower(name.p[i]);
    if (name.n > sizeof lower)
        return true; /* whatever that is */
    for (size_t i = 0; i < EP_COUNT(names); i++)
        if (ep_str_eq(ep_str_n(lower, n), ep_str(names[i])))
            return true;
    for (size_t i = 0; i < EP_COUNT(parts); i++)
        if (ep_str_search(ep_str_n(lower, n), ep_str(parts[i])) >= 0)
            return true;
    return false;
}

static void lose(struct ep_record_line *r, struct ep_str prefix, struct ep_str name, const char *why)
{
    char key[160];

    snprintf(key, sizeof key, "%.*s%.*s", (int)EP_MIN(prefix.n, 16u), prefix.p, (int)EP_MIN(name.n, 128u), name.p);
    ep_json_kstr(&r->lost, key, ep_str(why));
}

static bool utf8(struct ep_str s)
{
    for (size_t i = 0, n; i < s.n; i += n)
        if ((n = ep_utf8_length(s.p + i, s.n - i)) == 0)
            return false;
    return true;
}

/* --- the head of a line --- */

void ep_record_field(struct ep_record_line *r, const char *key, struct ep_str value)
{
    struct ep_json *j = &r->text;

    if (!value.n)
        return;
    if (value.n > EP_RECORD_FIELD_MAX) {
        lose(r, EP_STR(""), ep_str(key), "cut");
        value.n = EP_RECORD_FIELD_MAX;
    } else if (!utf8(value)) {
        lose(r, EP_STR(""), ep_str(key), "encoding");
    }
    ep_json_kstr(j, key, value);
}

static void session(struct ep_record_line *r, struct ep_str value)
{
    if (!value.n)
        return;
    lose(r, EP_STR(""), EP_STR("session"), "masked");
    ep_json_kstr(&r->text, "session", EP_STR("***"));
}

struct ep_str ep_record_path(struct ep_arena *arena, struct ep_str full, bool *masked)
{
    ptrdiff_t mark = ep_str_find(full, '?', 0);
    struct ep_str rest, part;
    char *out, *end;

    *masked = false;
    if (mark < 0)
        return full;
    out = end = ep_arena_alloc(arena, full.n * 4 + 8); /* an empty value becomes three bytes */
    memcpy(end, full.p, (size_t)mark + 1);
    end += mark + 1;
    for (rest = ep_str_n(full.p + mark + 1, full.n - (size_t)mark - 1); rest.n > 0;) {
        ptrdiff_t amp = ep_str_find(rest, '&', 0);
        part = amp < 0 ? rest : ep_str_n(rest.p, (size_t)amp);
        ptrdiff_t equals = ep_str_find(part, '=', 0);
        if (equals >= 0 && secret(ep_str_n(part.p, (size_t)equals))) {
            *masked = true;
            memcpy(end, part.p, (size_t)equals + 1);
            memcpy(end + equals + 1, "***", 3);
            end += equals + 4;
        } else {
            memcpy(end, part.p, part.n);
            end += part.n;
        }
        rest = amp < 0 ? ep_str_n(rest.p, 0) : ep_str_n(rest.p + amp + 1, rest.n - (size_t)amp - 1);
        if (amp >= 0)
            *end++ = '&';
    }
    return ep_str_n(out, (size_t)(end - out));
}

static void path(struct ep_record_line *r, struct ep_stream *s)
{
    bool masked;
    struct ep_str shown = ep_record_path(&s->arena, ep_stream_path(s), &masked);

    if (masked)
        lose(r, EP_STR(""), EP_STR("path"), "masked");
    ep_record_field(r, "path", shown);
}

void ep_record_headers(struct ep_record_line *r, const struct ep_headers *h)
{
    struct ep_json *j = &r->text;

    ep_json_key(j, "headers");
    ep_json_array(j);
    for (uint32_t i = 0; i < h->n; i++) {
        struct ep_str name = h->v[i].name, value = h->v[i].value;
        uint16_t id = h->v[i].id;
        if (id == EP_HDR_METHOD || id == EP_HDR_AUTHORITY || id == EP_HDR_PATH || id == EP_HDR_STATUS)
            continue;
        if (secret(name)) {
            lose(r, EP_STR("headers."), name, "masked");
            value = EP_STR("***");
        } else if (!utf8(value)) {
            lose(r, EP_STR("headers."), name, "encoding");
        }
        ep_json_array(j);
        ep_json_str(j, name);
        ep_json_str(j, value);
        ep_json_array_end(j);
    }
    ep_json_array_end(j);
}

static void names(struct ep_json *j, const char *key, const struct ep_model_names *v)
{
    ep_json_key(j, key);
    ep_json_array(j);
    for (unsigned i = 0; i < v->n; i++)
        ep_json_str(j, v->v[i]);
    ep_json_array_end(j);
}

/* What a language model is asked: as policies see it, since a replay has no scanner. */
static void asked(struct ep_record_line *r, const struct ep_call *c, struct ep_arena *arena)
{
    struct ep_model_request *m = c->to_model;
    struct ep_json *j = &r->text;
    const unsigned *media;

    if (!m)
        return;
    media = ep_model_media(m, arena);
    ep_record_field(r, "prompt", ep_model_prompt(m, arena));
    ep_record_field(r, "max_tokens", m->max_tokens);
    ep_record_field(r, "n", m->choices);
    ep_record_field(r, "user", m->user);
    ep_record_field(r, "previous", m->previous);
    if (m->background)
        ep_json_kbool(j, "background", true);
    names(j, "tools", ep_model_tools(m, arena));
    names(j, "servers", ep_model_servers(m, arena));
    ep_json_key(j, "media");
    ep_json_object(j);
    for (int i = 0; i < EP_MODEL_MEDIA; i++)
        if (media[i])
            ep_json_kuint(j, ep_model_media_name((enum ep_model_media)i), media[i]);
    ep_json_object_end(j);
}

static void call(struct ep_record_line *r, const struct ep_call *c, struct ep_arena *arena)
{
    static const char *const visible[] = {"full", "headers", "none"};
    struct ep_json *j = &r->text;

    ep_record_field(r, "protocol", c->protocol);
    ep_record_field(r, "version", c->version);
    ep_record_field(r, "method", c->method);
    ep_record_field(r, "service", c->service);
    ep_record_field(r, "tool", c->tool);
    ep_record_field(r, "uri", c->uri);
    ep_record_field(r, "prompt", c->prompt_name);
    ep_record_field(r, "model", c->model);
    ep_record_field(r, "agent", c->agent);
    ep_record_field(r, "task", c->task);
    session(r, c->session);
    ep_record_field(r, "tenant", c->tenant);
    ep_record_field(r, "id", c->id_text.n ? c->id_text : c->id_raw);
    ep_record_field(r, "arguments", c->arguments);
    ep_record_field(r, "body", c->body);
    asked(r, c, arena);
    ep_record_field(r, "recipient", c->recipient);
    ep_record_field(r, "conversation", c->conversation);
    ep_record_field(r, "hash", c->hash);
    ep_record_field(r, "claimed_tenant", c->claimed_tenant);
    ep_record_field(r, "context", c->context);
    ep_record_field(r, "parts", c->parts);
    ep_record_field(r, "priority", c->priority);
    ep_record_field(r, "impact", c->impact);
    if (c->stream)
        ep_json_kbool(j, "stream", true);
    if (c->notification)
        ep_json_kbool(j, "notification", true);
    if (c->visible != EP_VISIBLE_FULL)
        ep_json_kstr(j, "visible", ep_str(visible[c->visible]));
    if (c->blind != EP_BLIND_NOT)
        ep_json_kstr(j, "blind", ep_str(ep_blind_reason_name(c->blind)));
}

/* Without the stream's noting it: a policy may yet change what it hangs on. */
static const struct ep_route *route_of(struct ep_stream *s)
{
    bool known = s->route_known;
    const struct ep_route *before = s->route, *route = ep_stream_route(s);

    s->route_known = known;
    s->route = before;
    return route;
}

void ep_record_request(struct ep_record_line *r, struct ep_stream *s)
{
    struct ep_json *j = &r->text;
    const struct ep_route *route = route_of(s);

    ep_json_key(j, "request");
    ep_json_object(j);
    ep_json_kstr(j, "http_method", ep_stream_method(s));
    ep_json_kstr(j, "host", ep_stream_authority(s));
    path(r, s);
    ep_json_kstr(j, "direction", s->direction == EP_OUTBOUND ? EP_STR("outbound") : EP_STR("inbound"));
    if (s->chain && s->chain->config)
        ep_json_kstr(j, "listener", s->chain->config->name);
    if (route) {
        ep_json_kstr(j, "route", route->name);
        ep_json_kstr(j, "cluster", route->config->cluster);
    }
    if (s->peer_id.n) {
        ep_json_key(j, "peer");
        ep_json_object(j);
        ep_json_kstr(j, "id", s->peer_id);
        ep_json_object_end(j);
    }
    ep_record_headers(r, &s->request.headers);
    call(r, &s->call, &s->arena);
    if (s->call.batch) {
        ep_json_key(j, "batch");
        ep_json_array(j);
        for (const struct ep_call *c = s->call.next; c; c = c->next) {
            ep_json_object(j);
            call(r, c, &s->arena);
            ep_json_object_end(j);
        }
        ep_json_array_end(j);
    }
    ep_json_object_end(j);
}

/* --- a question of a policy's --- */

void ep_record_question(struct ep_arena *arena, struct ep_str cluster, const struct ep_http_call_request *q,
                        struct ep_record_question *out)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256_CTX hash;
    bool masked;

    *out = (struct ep_record_question){.cluster = ep_arena_str(arena, cluster),
                                       .method = ep_arena_str(arena, q->method),
                                       .host = ep_arena_str(arena, q->authority)};
    out->path = ep_arena_str(arena, ep_record_path(arena, q->path, &masked));
    SHA256_Init(&hash);
    for (size_t i = 0; i < q->n_headers; i++) {
        if (secret(q->headers[i].name))
            continue;
        SHA256_Update(&hash, q->headers[i].name.p, q->headers[i].name.n);
        SHA256_Update(&hash, ":", 1);
        SHA256_Update(&hash, q->headers[i].value.p, q->headers[i].value.n);
        SHA256_Update(&hash, "\n", 1);
    }
    SHA256_Update(&hash, "\n", 1);
    if (q->body.n)
        SHA256_Update(&hash, q->body.p, q->body.n);
    SHA256_Final(digest, &hash);
    for (size_t i = 0; i < sizeof digest; i++) {
        out->digest[2 * i] = hex[digest[i] >> 4];
        out->digest[2 * i + 1] = hex[digest[i] & 15];
    }
}
