/* Recording requests and their decisions. record.h has the form and the design. */
#include "lua/record.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "filter/chain.h"

#define FLUSH_BYTES (64u * 1024u) /* without waiting for the end of the turn */

struct ep_recorder {
    struct ep_worker *worker;
    double sample;
    bool shadow; /* all policies are shadows */
    uint64_t limit;
    int fd;
    bool full;  /* the limit is reached, or writing fails: said once */
    bool torn;  /* a line was written in part */
    struct ep_json lines, scratch, lost;
    size_t n_lines;
    struct ep_task flush;
    uint64_t *written, *dropped; /* NULL without statistics */
    char *path;
};

struct decision {
    struct decision *next;
    const struct ep_policy *policy;
    unsigned call;
    bool matched;
    enum ep_policy_decision decision;
    const char *code;
    struct ep_str reason;
};

struct ep_record {
    struct ep_policy_hearing hearing;
    struct ep_arena *arena;
    struct ep_str head; /* all of the line before `decisions` */
    struct decision *first, **last;
};

/* --- the file --- */

static void count(uint64_t *cell, size_t n)
{
    if (cell)
        ep_cell_add(cell, n);
}

static void give_up(struct ep_recorder *r, const char *why)
{
    if (!r->full)
        ep_warn("policy", "%s: %s: nothing more is recorded", r->path, why);
    r->full = true;
}

static bool put(struct ep_recorder *r, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = write(r->fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0) {
            give_up(r, strerror(errno));
            return false;
        }
        r->torn = (size_t)done < n;
        p += done;
        n -= (size_t)done;
    }
    return true;
}

static void flush(struct ep_recorder *r)
{
    struct stat st;

    if (r->n_lines == 0)
        return;
    if (fstat(r->fd, &st) != 0)
        give_up(r, strerror(errno));
    else if ((uint64_t)st.st_size + r->lines.n > r->limit)
        give_up(r, "policies.record.limit is reached");
    bool good = !r->full && (!r->torn || put(r, "\n", 1)) && put(r, r->lines.p, r->lines.n);
    count(good ? r->written : r->dropped, r->n_lines);
    r->n_lines = 0;
    ep_json_reset(&r->lines);
}

static void on_turn_end(struct ep_task *t)
{
    flush(EP_CONTAINER(t, struct ep_recorder, flush));
}

static int open_file(const char *path, struct ep_error *err)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    struct stat st;

    if (fd < 0) {
        ep_error_set(err, "policies.record.file %s: %s", path, strerror(errno));
        return -1;
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || fchmod(fd, 0600) != 0) {
        ep_error_set(err, "policies.record.file %s: not a file of our own", path);
        close(fd);
        return -1;
    }
    return fd;
}

struct ep_recorder *ep_recorder_new(const struct ep_policies_config *policies, struct ep_worker *w, struct ep_error *err)
{
    const struct ep_policies_record *c = policies->record;
    char *path = ep_strndup(c->file.p, c->file.n);
    int fd = open_file(path, err);
    struct ep_recorder *r;

    if (fd < 0) {
        free(path);
        return NULL;
    }
    r = ep_calloc(1, sizeof *r);
    r->worker = w;
    r->sample = c->sample;
    r->limit = c->limit;
    r->shadow = policies->mode == EP_MODE_SHADOW;
    r->fd = fd;
    r->path = path;
    ep_json_init(&r->lines);
    ep_json_init(&r->scratch);
    ep_json_init(&r->lost);
    ep_task_init(&r->flush, on_turn_end);
    if (w->stats) {
        r->written = ep_stats_cell(w->stats, EP_METRIC_POLICY_RECORDS, EP_LABELS(EP_STR("written")));
        r->dropped = ep_stats_cell(w->stats, EP_METRIC_POLICY_RECORDS, EP_LABELS(EP_STR("dropped")));
    }
    return r;
}

void ep_recorder_free(struct ep_recorder *r)
{
    if (!r)
        return;
    flush(r);
    if (ep_list_linked(&r->flush.node))
        ep_list_remove(&r->flush.node);
    close(r->fd);
    ep_json_fini(&r->lines);
    ep_json_fini(&r->scratch);
    ep_json_fini(&r->lost);
    free(r->path);
    free(r);
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

static void lose(struct ep_recorder *r, struct ep_str prefix, struct ep_str name, const char *why)
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

static void field(struct ep_recorder *r, const char *key, struct ep_str value)
{
    struct ep_json *j = &r->scratch;

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

static void session(struct ep_recorder *r, struct ep_str value)
{
    if (!value.n)
        return;
    lose(r, EP_STR(""), EP_STR("session"), "masked");
    ep_json_kstr(&r->scratch, "session", EP_STR("***"));
}

/* The path with the values of its secret parameters masked. */
static void path(struct ep_recorder *r, struct ep_stream *s)
{
    struct ep_str full = ep_stream_path(s), rest, part;
    ptrdiff_t mark = ep_str_find(full, '?', 0);
    bool masked = false;
    char *out, *end;

    if (mark < 0) {
        field(r, "path", full);
        return;
    }
    out = end = ep_arena_alloc(&s->arena, full.n * 4 + 8); /* an empty value becomes three bytes */
    memcpy(end, full.p, (size_t)mark + 1);
    end += mark + 1;
    for (rest = ep_str_n(full.p + mark + 1, full.n - (size_t)mark - 1); rest.n > 0;) {
        ptrdiff_t amp = ep_str_find(rest, '&', 0);
        part = amp < 0 ? rest : ep_str_n(rest.p, (size_t)amp);
        ptrdiff_t equals = ep_str_find(part, '=', 0);
        if (equals >= 0 && secret(ep_str_n(part.p, (size_t)equals))) {
            masked = true;
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
    if (masked)
        lose(r, EP_STR(""), EP_STR("path"), "masked");
    field(r, "path", ep_str_n(out, (size_t)(end - out)));
}

static void headers(struct ep_recorder *r, const struct ep_headers *h)
{
    struct ep_json *j = &r->scratch;

    ep_json_key(j, "headers");
    ep_json_array(j);
    for (uint32_t i = 0; i < h->n; i++) {
        struct ep_str name = h->v[i].name, value = h->v[i].value;
        uint16_t id = h->v[i].id;
        if (id == EP_HDR_METHOD || id == EP_HDR_AUTHORITY || id == EP_HDR_PATH)
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
static void asked(struct ep_recorder *r, const struct ep_call *c, struct ep_arena *arena)
{
    struct ep_model_request *m = c->to_model;
    struct ep_json *j = &r->scratch;
    const unsigned *media;

    if (!m)
        return;
    media = ep_model_media(m, arena);
    field(r, "prompt", ep_model_prompt(m, arena));
    field(r, "max_tokens", m->max_tokens);
    field(r, "n", m->choices);
    field(r, "user", m->user);
    field(r, "previous", m->previous);
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

static void call(struct ep_recorder *r, const struct ep_call *c, struct ep_arena *arena)
{
    static const char *const visible[] = {"full", "headers", "none"};
    struct ep_json *j = &r->scratch;

    field(r, "protocol", c->protocol);
    field(r, "version", c->version);
    field(r, "method", c->method);
    field(r, "service", c->service);
    field(r, "tool", c->tool);
    field(r, "uri", c->uri);
    field(r, "prompt", c->prompt_name);
    field(r, "model", c->model);
    field(r, "agent", c->agent);
    field(r, "task", c->task);
    session(r, c->session);
    field(r, "tenant", c->tenant);
    field(r, "id", c->id_text.n ? c->id_text : c->id_raw);
    field(r, "arguments", c->arguments);
    field(r, "body", c->body);
    asked(r, c, arena);
    field(r, "recipient", c->recipient);
    field(r, "conversation", c->conversation);
    field(r, "hash", c->hash);
    field(r, "claimed_tenant", c->claimed_tenant);
    field(r, "context", c->context);
    field(r, "parts", c->parts);
    field(r, "priority", c->priority);
    field(r, "impact", c->impact);
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

static void request(struct ep_recorder *r, struct ep_stream *s)
{
    struct ep_json *j = &r->scratch;
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
    headers(r, &s->request.headers);
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

static void on_decided(struct ep_policy_hearing *h, const struct ep_policy *p, enum ep_policy_phase phase, unsigned number,
                       const struct ep_policy_verdict *v)
{
    struct ep_record *rec = EP_CONTAINER(h, struct ep_record, hearing);
    struct decision *d;

    if (phase != EP_POLICY_CALL)
        return;
    d = EP_ARENA_NEW(rec->arena, struct decision);
    *d = (struct decision){NULL, p, number, v->matched, v->decision, v->code, v->reason};
    *rec->last = d;
    rec->last = &d->next;
}

struct ep_policy_hearing *ep_record_hearing(struct ep_record *rec)
{
    return &rec->hearing;
}

struct ep_record *ep_record_begin(struct ep_recorder *r, struct ep_stream *s)
{
    struct ep_json *j = &r->scratch;
    struct ep_record *rec;

    if (r->sample < 1 && ep_rng_unit(&s->worker->rng) >= r->sample)
        return NULL;
    if (r->full) {
        count(r->dropped, 1);
        return NULL;
    }
    ep_json_reset(j);
    ep_json_reset(&r->lost);
    ep_json_object(&r->lost);
    ep_json_object(j);
    ep_json_kuint(j, "v", 1);
    if (r->shadow)
        ep_json_kstr(j, "mode", EP_STR("shadow"));
    ep_json_key(j, "now");
    ep_json_raw(j, ep_arena_printf(&s->arena, "%.6f", (double)ep_clock_wall_ns() / 1e9));
    request(r, s);
    ep_json_object_end(&r->lost);
    ep_json_key(j, "lost");
    ep_json_raw(j, ep_json_text(&r->lost));
    if (j->n > EP_RECORD_LINE_MAX) {
        count(r->dropped, 1);
        return NULL;
    }
    rec = EP_ARENA_NEW(&s->arena, struct ep_record);
    rec->hearing.decided = on_decided;
    rec->arena = &s->arena;
    rec->head = ep_arena_str(&s->arena, ep_json_text(j));
    rec->last = &rec->first;
    return rec;
}

/* --- the decisions --- */

static void decisions(struct ep_json *j, const struct decision *d, bool matched)
{
    for (; d; d = d->next) {
        if (d->matched != matched)
            continue;
        if (!matched) {
            if (d->call == 0) /* of a batch that is matched in part, the others say enough */
                ep_json_str(j, d->policy->name);
            continue;
        }
        ep_json_object(j);
        ep_json_kstr(j, "policy", d->policy->name);
        ep_json_kuint(j, "call", d->call);
        ep_json_kstr(j, "decision", ep_str(ep_policy_decision_name(d->decision)));
        if (d->code)
            ep_json_kstr(j, "code", ep_str(d->code));
        if (d->reason.n)
            ep_json_kstr(j, "reason", d->reason);
        ep_json_object_end(j);
    }
}

void ep_record_end(struct ep_recorder *r, struct ep_record *rec)
{
    struct ep_json *j = &r->scratch;

    ep_json_reset(j);
    ep_json_object(j);
    ep_json_key(j, "decisions");
    ep_json_array(j);
    decisions(j, rec->first, true);
    ep_json_array_end(j);
    ep_json_key(j, "unmatched");
    ep_json_array(j);
    decisions(j, rec->first, false);
    ep_json_array_end(j);
    ep_json_object_end(j);
    r->lines.has_member = 0;
    ep_json_raw(&r->lines, rec->head);
    r->lines.has_member = 0;
    ep_json_raw(&r->lines, EP_STR(","));
    r->lines.has_member = 0;
    ep_json_raw(&r->lines, ep_str_n(j->p + 1, j->n - 1)); /* without its first brace */
    r->lines.has_member = 0;
    ep_json_raw(&r->lines, EP_STR("\n"));
    r->n_lines++;
    if (r->lines.n >= FLUSH_BYTES)
        flush(r);
    else
        ep_worker_defer(r->worker, &r->flush);
}
