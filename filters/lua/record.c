/* Recording requests and their decisions. record.h has the form and the design. */
#include "lua/record.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "filter/chain.h"
#include "http_call.h"
#include "lua/record_line.h"

#define FLUSH_BYTES   (64u * 1024u) /* without waiting for the end of the turn */
#define ANSWERS_BYTES (4 * EP_RECORD_FIELD_MAX) /* of one request; further ones are without their bodies */

struct ep_recorder {
    struct ep_worker *worker;
    double sample;
    bool shadow; /* all policies are shadows */
    uint64_t limit;
    int fd;
    bool full;  /* the limit is reached, or writing fails: said once */
    bool torn;  /* a line was written in part */
    struct ep_json lines;
    struct ep_record_line line; /* while a piece of a record is made */
    size_t n_lines;
    struct ep_task flush;
    uint64_t *written, *dropped; /* NULL without statistics */
    char *path;
};

struct decision {
    struct decision *next;
    const struct ep_policy *policy;
    enum ep_policy_phase phase;
    unsigned call;
    bool matched;
    enum ep_policy_decision decision;
    const char *code;
    struct ep_str reason;
};

struct asked {
    struct asked *next;
    struct ep_record_question question;
    struct ep_str text; /* of the whole, as JSON, when it was answered */
};

struct ep_record {
    struct ep_policy_hearing hearing;
    struct ep_recorder *recorder;
    struct ep_arena *arena;
    struct ep_str head; /* all of the line before `decisions` */
    struct decision *first, **last;
    struct asked *answers, **last_answer;
    size_t answers_bytes;
    struct ep_str reply; /* its head as JSON; empty: there was none */
    struct ep_str body;  /* of the reply */
    size_t body_room;
    bool decoded, cut, whole; /* the body: not as it came; longer than it may be; seen to its end */
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
    ep_record_line_init(&r->line);
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
    ep_record_line_fini(&r->line);
    free(r->path);
    free(r);
}

/* --- a request --- */

/* Of a reply and its events the first that was not good stands for all: there may be thousands. */
static struct decision *decision_of(struct ep_record *rec, const struct ep_policy *p, enum ep_policy_phase phase)
{
    struct decision *d;

    for (d = rec->first; phase != EP_POLICY_CALL && d; d = d->next)
        if (d->policy == p && d->phase == phase)
            return d->decision == EP_POLICY_ALLOW ? d : NULL;
    d = EP_ARENA_NEW(rec->arena, struct decision);
    *rec->last = d;
    rec->last = &d->next;
    return d;
}

static void on_decided(struct ep_policy_hearing *h, const struct ep_policy *p, enum ep_policy_phase phase, unsigned number,
                       const struct ep_policy_verdict *v)
{
    struct decision *d = decision_of(EP_CONTAINER(h, struct ep_record, hearing), p, phase);

    if (d)
        *d = (struct decision){d->next, p, phase, number, v->matched || phase != EP_POLICY_CALL, v->decision, v->code, v->reason};
}

static void *on_asked(struct ep_policy_hearing *h, struct ep_str cluster, const struct ep_http_call_request *q)
{
    struct ep_record *rec = EP_CONTAINER(h, struct ep_record, hearing);
    struct asked *a = EP_ARENA_NEW(rec->arena, struct asked);

    ep_record_question(rec->arena, cluster, q, &a->question);
    return a;
}

static void on_answered(struct ep_policy_hearing *h, void *token, const struct ep_policy *p,
                        const struct ep_http_call_reply *reply)
{
    struct ep_record *rec = EP_CONTAINER(h, struct ep_record, hearing);
    struct ep_record_line *line = &rec->recorder->line;
    struct ep_json *j = &line->text;
    struct asked *a = token;

    ep_record_line_begin(line);
    ep_json_kstr(j, "policy", p->name);
    ep_json_kstr(j, "cluster", a->question.cluster);
    ep_json_kstr(j, "method", a->question.method);
    ep_json_kstr(j, "host", a->question.host);
    ep_json_kstr(j, "path", a->question.path);
    ep_json_kstr(j, "digest", ep_str_n(a->question.digest, sizeof a->question.digest));
    if (reply->failure) {
        ep_json_kstr(j, "failure", ep_str(reply->failure));
    } else {
        ep_json_kuint(j, "status", reply->status);
        ep_record_headers(line, reply->headers);
        rec->answers_bytes += EP_MIN(reply->body.n, EP_RECORD_FIELD_MAX);
        if (rec->answers_bytes > ANSWERS_BYTES)
            ep_json_kstr(&line->lost, "body", EP_STR("cut"));
        else
            ep_record_field(line, "body", reply->body);
    }
    ep_record_line_lost(line);
    ep_json_object_end(j);
    a->text = ep_arena_str(rec->arena, ep_json_text(j));
    *rec->last_answer = a;
    rec->last_answer = &a->next;
}

struct ep_policy_hearing *ep_record_hearing(struct ep_record *rec)
{
    return &rec->hearing;
}

struct ep_record *ep_record_begin(struct ep_recorder *r, struct ep_stream *s)
{
    struct ep_json *j = &r->line.text;
    struct ep_record *rec;

    if (r->sample < 1 && ep_rng_unit(&s->worker->rng) >= r->sample)
        return NULL;
    if (r->full) {
        count(r->dropped, 1);
        return NULL;
    }
    ep_record_line_begin(&r->line);
    ep_json_kuint(j, "v", 1);
    if (r->shadow)
        ep_json_kstr(j, "mode", EP_STR("shadow"));
    ep_json_key(j, "now");
    ep_json_raw(j, ep_arena_printf(&s->arena, "%.6f", (double)ep_clock_wall_ns() / 1e9));
    ep_record_request(&r->line, s);
    ep_record_line_lost(&r->line);
    if (j->n > EP_RECORD_LINE_MAX) {
        count(r->dropped, 1);
        return NULL;
    }
    rec = EP_ARENA_NEW(&s->arena, struct ep_record);
    rec->hearing = (struct ep_policy_hearing){.decided = on_decided, .asked = on_asked, .answered = on_answered};
    rec->recorder = r;
    rec->arena = &s->arena;
    rec->head = ep_arena_str(&s->arena, ep_json_text(j));
    rec->last = &rec->first;
    rec->last_answer = &rec->answers;
    return rec;
}

/* --- its reply --- */

void ep_record_reply(struct ep_record *rec, struct ep_stream *s)
{
    struct ep_record_line *line = &rec->recorder->line;

    ep_record_line_begin(line);
    ep_json_kuint(&line->text, "status", s->status);
    ep_record_headers(line, &s->response.headers);
    ep_record_line_lost(line);
    ep_json_object_end(&line->text);
    rec->reply = ep_arena_str(rec->arena, ep_json_text(&line->text));
}

static void keep(struct ep_record *rec, const void *p, size_t n)
{
    size_t some = EP_MIN(n, EP_RECORD_FIELD_MAX - rec->body.n);
    char *room;

    rec->cut |= some < n;
    if (some > rec->body_room - rec->body.n) {
        rec->body_room = EP_MIN(EP_MAX(2 * rec->body_room, rec->body.n + some), EP_RECORD_FIELD_MAX);
        room = ep_arena_alloc(rec->arena, rec->body_room);
        if (rec->body.n)
            memcpy(room, rec->body.p, rec->body.n);
        rec->body.p = room;
    }
    if (some)
        memcpy((char *)(uintptr_t)rec->body.p + rec->body.n, p, some);
    rec->body.n += some;
}

void ep_record_body(struct ep_record *rec, struct ep_body *b, bool end)
{
    rec->whole |= end;
    for (uint32_t i = 0; b && i < b->count && !rec->decoded && !rec->cut; i++) {
        const struct ep_slice *slice = ep_body_at(b, i);
        keep(rec, slice->p, slice->n);
    }
}

void ep_record_decoded(struct ep_record *rec, struct ep_str body)
{
    rec->body.n = 0;
    rec->cut = false;
    rec->decoded = true;
    keep(rec, body.p, body.n);
}

/* --- the end of it --- */

static void decisions(struct ep_json *j, const struct decision *d, bool matched)
{
    static const char *const phases[] = {[EP_POLICY_REPLY] = "reply", [EP_POLICY_EVENT] = "event"};

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
        if (d->phase != EP_POLICY_CALL)
            ep_json_kstr(j, "phase", ep_str(phases[d->phase]));
        else
            ep_json_kuint(j, "call", d->call);
        ep_json_kstr(j, "decision", ep_str(ep_policy_decision_name(d->decision)));
        if (d->code)
            ep_json_kstr(j, "code", ep_str(d->code));
        if (d->reason.n)
            ep_json_kstr(j, "reason", d->reason);
        ep_json_object_end(j);
    }
}

static void reply(struct ep_record_line *line, const struct ep_record *rec)
{
    struct ep_json *j = &line->text;

    ep_json_key(j, "reply");
    if (!rec->reply.n) {
        ep_json_null(j);
        return;
    }
    ep_json_object(j);
    ep_json_key(j, "head");
    ep_json_raw(j, rec->reply);
    ep_record_field(line, "body", rec->body);
    if (rec->cut || !rec->whole)
        ep_json_kstr(&line->lost, "body", EP_STR("cut"));
    if (rec->decoded)
        ep_json_kbool(j, "decoded", true);
    ep_record_line_lost(line);
    ep_json_object_end(j);
}

static void list(struct ep_json *j, const char *key, const struct ep_record *rec, bool matched)
{
    ep_json_key(j, key);
    ep_json_array(j);
    decisions(j, rec->first, matched);
    ep_json_array_end(j);
}

void ep_record_end(struct ep_record *rec)
{
    struct ep_recorder *r = rec->recorder;
    struct ep_json *j = &r->line.text;

    ep_record_line_begin(&r->line);
    list(j, "decisions", rec, true);
    list(j, "unmatched", rec, false);
    ep_json_key(j, "http");
    ep_json_array(j);
    for (const struct asked *a = rec->answers; a; a = a->next)
        ep_json_raw(j, a->text);
    ep_json_array_end(j);
    reply(&r->line, rec);
    ep_json_object_end(j);
    if (rec->head.n + j->n > EP_RECORD_LINE_MAX) {
        count(r->dropped, 1);
        return;
    }
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
