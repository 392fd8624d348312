/* The access log: one JSON line a request, gathered in memory and written at the end of a turn.
 *
 * A worker has its own object, so there is no lock; several of them may write to one file or pipe. In a file opened
 * for appending a write of any size stays whole. In a pipe only PIPE_BUF bytes do, and a reader that is slow would
 * stop the worker: so pipes (and terminals, and sockets) get whole lines of at most PIPE_BUF a write, only while
 * poll says that they fit; what can't be written waits, and past a limit lines are dropped and counted. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "observe/observe.h"

#define WRITE_BYTES (64u * 1024u)   /* flush without waiting for the end of the turn */
#define HELD_BYTES  (1024u * 1024u) /* what waits for a slow reader, at most */

struct ep_access_log {
    struct ep_access_log_config config;
    struct ep_json lines;
    size_t written; /* of lines */
    int fd;
    bool is_file, own_fd;
    uint64_t dropped;
};

static const struct ep_field access_log_fields[] = {
    {.key = "enabled",
     .type = EP_TYPE_BOOL,
     .offset = offsetof(struct ep_access_log_config, enabled),
     .preset = "true",
     .help = "Whether requests are logged at all."},
    {.key = "path",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct ep_access_log_config, path),
     .preset = "-",
     .help = "The file to append to; - is standard output."},
    {.key = "sample",
     .type = EP_TYPE_PERCENT,
     .offset = offsetof(struct ep_access_log_config, sample),
     .preset = "0%",
     .max = 100,
     .help = "The share of good requests that is logged; refused and failed ones always are."},
    {.key = "query",
     .type = EP_TYPE_BOOL,
     .offset = offsetof(struct ep_access_log_config, query),
     .preset = "false",
     .help = "Log the query string too. Off, since secrets hide there."},
};
const struct ep_schema ep_access_log_schema = EP_SCHEMA("access_log", "One JSON line for each request.",
                                                        struct ep_access_log_config, access_log_fields, .check = NULL);

struct ep_access_log *ep_access_log_new(const struct ep_access_log_config *c, struct ep_error *err)
{
    struct ep_access_log *l;
    struct stat st;
    bool standard = ep_str_eq(c->path, EP_STR("-"));
    int fd = STDOUT_FILENO;

    if (!standard) {
        char *path = ep_strndup(c->path.p, c->path.n);

        fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
        if (fd < 0)
            (void)ep_error_set(err, "access log %s: %s", path, strerror(errno));
        free(path);
        if (fd < 0)
            return NULL;
    }
    l = ep_calloc(1, sizeof(*l));
    l->config = *c;
    l->config.path = (struct ep_str){NULL, 0}; /* lives in the configuration, which may go before the log */
    l->fd = fd;
    l->own_fd = !standard;
    l->is_file = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    ep_json_init(&l->lines);
    return l;
}

void ep_access_log_free(struct ep_access_log *l)
{
    if (!l)
        return;
    ep_access_log_flush(l);
    if (l->own_fd)
        (void)close(l->fd);
    ep_json_fini(&l->lines);
    free(l);
}

bool ep_access_log_wants(struct ep_access_log *l, bool wrong, struct ep_rng *rng)
{
    if (!l->config.enabled)
        return false;
    return wrong || l->config.sample >= 1 || (l->config.sample > 0 && ep_rng_unit(rng) < l->config.sample);
}

static void text(struct ep_json *j, const char *key, struct ep_str s)
{
    if (s.n)
        ep_json_kstr(j, key, s);
}

static struct ep_str without_query(struct ep_str path)
{
    ptrdiff_t mark = ep_str_find(path, '?', 0);

    return mark < 0 ? path : ep_str_n(path.p, (size_t)mark);
}

static void tokens(struct ep_json *j, const struct ep_access_record *r)
{
    char cost[32];

    if (!r->metered)
        return;
    ep_json_kuint(j, "tokens_input", r->tokens_input);
    ep_json_kuint(j, "tokens_output", r->tokens_output);
    if (r->tokens_estimated)
        ep_json_kbool(j, "tokens_estimated", true);
    if (!r->priced)
        return;
    int n = snprintf(cost, sizeof cost, "%" PRIu64 ".%09" PRIu64, (uint64_t)(r->cost_nano / EP_S), (uint64_t)(r->cost_nano % EP_S));
    ep_json_key(j, "cost");
    ep_json_raw(j, ep_str_n(cost, (size_t)n));
}

static void line(struct ep_json *j, const struct ep_access_record *r, bool query)
{
    const struct {
        const char *key;
        struct ep_str value;
    } texts[] = {
        {"listener", r->listener},
        {"direction", r->direction},
        {"protocol", r->protocol},
        {"version", r->version},
        {"downstream", r->downstream},
        {"peer_id", r->peer_id},
        {"method", r->method},
        {"authority", r->authority},
        {"path", query ? r->path : without_query(r->path)},
        {"user_agent", r->user_agent},
        {"request_id", r->request_id},
        {"trace_id", r->trace_id},
        {"route", r->route},
        {"cluster", r->cluster},
        {"endpoint", r->endpoint},
        {"upstream_peer_id", r->upstream_peer_id},
        {"call_method", r->call_method},
        {"tool", r->tool},
        {"model", r->model},
        {"tenant", r->tenant},
        {"denied_by", r->denied_by},
        {"code", r->code},
        {"decision_id", r->decision_id},
        {"flag", ep_str(r->flag)},
    };
    const struct {
        const char *key;
        uint64_t ns;
    } spans[] = {
        {"total_us", r->total_ns}, {"self_us", r->self_ns},         {"filter_us", r->filter_ns},
        {"queue_us", r->queue_ns}, {"upstream_us", r->upstream_ns},
    };
    char time[32];
    int n = ep_time_rfc3339(r->wall_ns, time);

    ep_json_object(j);
    ep_json_kstr(j, "time", ep_str_n(time, (size_t)n));
    for (size_t i = 0; i < EP_COUNT(texts); i++)
        text(j, texts[i].key, texts[i].value);
    ep_json_kuint(j, "status", r->status);
    if (r->grpc_status >= 0)
        ep_json_kint(j, "grpc_status", r->grpc_status);
    if (r->attempts > 1)
        ep_json_kuint(j, "attempts", r->attempts);
    ep_json_kuint(j, "bytes_in", r->bytes_in);
    ep_json_kuint(j, "bytes_out", r->bytes_out);
    tokens(j, r);
    for (size_t i = 0; i < EP_COUNT(spans); i++)
        ep_json_kuint(j, spans[i].key, spans[i].ns / EP_US);
    ep_json_object_end(j);
}

void ep_access_log_record(struct ep_access_log *l, const struct ep_access_record *r)
{
    if (l->lines.n - l->written >= HELD_BYTES) {
        l->dropped++;
        return;
    }
    l->lines.has_member = 0; /* each line is a document of its own */
    line(&l->lines, r, l->config.query);
    l->lines.has_member = 0;
    ep_json_raw(&l->lines, EP_STR("\n"));
    if (l->lines.n - l->written >= WRITE_BYTES)
        ep_access_log_flush(l);
}

/* How much to give to one write: all to a file, whole lines that fit elsewhere. One line that is longer than
 * PIPE_BUF goes as it is. */
static size_t portion(const struct ep_access_log *l, const char *p, size_t n)
{
    const char *end;

    if (l->is_file || n <= PIPE_BUF)
        return n;
    end = memrchr(p, '\n', PIPE_BUF);
    if (!end)
        end = memchr(p, '\n', n);
    return end ? (size_t)(end - p) + 1 : n;
}

static bool writable(const struct ep_access_log *l)
{
    struct pollfd p = {.fd = l->fd, .events = POLLOUT};

    return l->is_file || (poll(&p, 1, 0) == 1 && (p.revents & (POLLOUT | POLLERR | POLLHUP | POLLNVAL)));
}

static void drop(struct ep_access_log *l)
{
    for (; l->written < l->lines.n; l->written++)
        l->dropped += l->lines.p[l->written] == '\n';
}

void ep_access_log_flush(struct ep_access_log *l)
{
    while (l->written < l->lines.n && writable(l)) {
        const char *p = l->lines.p + l->written;
        ssize_t n = write(l->fd, p, portion(l, p, l->lines.n - l->written));

        if (n < 0 && (errno == EINTR))
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) { /* a full disk, a reader that is gone: these lines are lost, the next may not be */
            drop(l);
            break;
        }
        l->written += (size_t)n;
    }
    if (l->written < l->lines.n)
        return;
    l->written = 0;
    ep_json_reset(&l->lines);
    if (l->dropped) {
        ep_warn("access_log", "%llu lines were lost: the reader is slow, or writing failed",
                (unsigned long long)l->dropped);
        l->dropped = 0;
    }
}
