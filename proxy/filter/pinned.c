/* See pinned.h. */
#include "filter/pinned.h"

#include <pthread.h>
#include <stdlib.h>

#include "observe/json.h"

#define LOG_NS (3600 * EP_S)

struct entry {
    struct ep_list node; /* latest first */
    struct ep_addr source; /* without port */
    uint64_t alerts, closes; /* since it is known */
    unsigned in_a_row;     /* closes without a request in between */
    uint64_t seen_ns;      /* the last time of either */
    uint64_t refused_ns;   /* the last time that it was sure; 0: never */
    uint64_t logged_ns;
    size_t n_host;
    char host[];
};

struct ep_pinned {
    pthread_mutex_t lock;
    struct ep_list entries;
    unsigned n;
};

const char *ep_pinned_sign_name(enum ep_pinned_sign s)
{
    return s == EP_PINNED_ALERT ? "alert" : "closed";
}

struct ep_pinned *ep_pinned_new(void)
{
    struct ep_pinned *p = ep_calloc(1, sizeof *p);

    pthread_mutex_init(&p->lock, NULL);
    ep_list_init(&p->entries);
    return p;
}

static void drop(struct ep_pinned *p, struct entry *e)
{
    ep_list_remove(&e->node);
    p->n--;
    free(e);
}

void ep_pinned_free(struct ep_pinned *p)
{
    if (!p)
        return;
    while (!ep_list_empty(&p->entries))
        drop(p, EP_CONTAINER(p->entries.next, struct entry, node));
    pthread_mutex_destroy(&p->lock);
    free(p);
}

bool ep_pinned_alert(unsigned alert)
{
    return (alert >= 42 && alert <= 46) || alert == 48; /* bad_certificate … certificate_unknown, unknown_ca */
}

static struct entry *find(struct ep_pinned *p, struct ep_str host, const struct ep_addr *source)
{
    struct ep_addr bare = *source;

    ep_addr_set_port(&bare, 0);
    EP_LIST_FOREACH (n, &p->entries) {
        struct entry *e = EP_CONTAINER(n, struct entry, node);
        if (ep_str_eq(ep_str_n(e->host, e->n_host), host) && ep_addr_equal(&e->source, &bare))
            return e;
    }
    return NULL;
}

static struct entry *add(struct ep_pinned *p, struct ep_str host, const struct ep_addr *source)
{
    struct entry *e = ep_calloc(1, sizeof *e + host.n);

    if (p->n >= EP_PINNED_MAX)
        drop(p, EP_CONTAINER(p->entries.prev, struct entry, node));
    e->source = *source;
    ep_addr_set_port(&e->source, 0);
    e->n_host = host.n;
    memcpy(e->host, host.p, host.n);
    ep_list_push(&p->entries, &e->node);
    p->n++;
    return e;
}

/* Once an hour for a host, whatever source. */
static bool to_be_logged(struct ep_pinned *p, struct entry *e, uint64_t now_ns)
{
    EP_LIST_FOREACH (n, &p->entries) {
        const struct entry *other = EP_CONTAINER(n, struct entry, node);
        if (other->logged_ns && now_ns - other->logged_ns < LOG_NS &&
            ep_str_eq(ep_str_n(other->host, other->n_host), ep_str_n(e->host, e->n_host)))
            return false;
    }
    e->logged_ns = now_ns;
    return true;
}

bool ep_pinned_note(struct ep_pinned *p, struct ep_str host, const struct ep_addr *source, enum ep_pinned_sign sign,
                    uint64_t now_ns)
{
    struct entry *e;
    bool sure, log;

    pthread_mutex_lock(&p->lock);
    e = find(p, host, source);
    if (!e)
        e = add(p, host, source);
    ep_list_remove(&e->node);
    ep_list_push_front(&p->entries, &e->node);
    e->seen_ns = now_ns;
    if (sign == EP_PINNED_ALERT) {
        e->alerts++;
    } else {
        e->closes++;
        e->in_a_row++;
    }
    sure = sign == EP_PINNED_ALERT || e->in_a_row >= EP_PINNED_CLOSES;
    if (sure)
        e->refused_ns = now_ns;
    log = sure && to_be_logged(p, e, now_ns);
    pthread_mutex_unlock(&p->lock);
    return log;
}

void ep_pinned_good(struct ep_pinned *p, struct ep_str host, const struct ep_addr *source)
{
    struct entry *e;

    pthread_mutex_lock(&p->lock);
    e = find(p, host, source);
    if (e)
        e->in_a_row = 0;
    pthread_mutex_unlock(&p->lock);
}

bool ep_pinned_refuses(struct ep_pinned *p, struct ep_str host, const struct ep_addr *source, uint64_t for_ns, uint64_t now_ns)
{
    const struct entry *e;
    bool refuses;

    pthread_mutex_lock(&p->lock);
    e = find(p, host, source);
    refuses = e && e->refused_ns && now_ns - e->refused_ns < for_ns;
    pthread_mutex_unlock(&p->lock);
    return refuses;
}

static void describe(const struct entry *e, uint64_t now_ns, struct ep_json *out)
{
    char source[128];
    int n = ep_addr_format(&e->source, source);
    struct ep_str text = ep_str_n(source, (size_t)EP_MAX(n, 0));

    if (ep_str_ends(text, EP_STR(":0")))
        text.n -= 2;
    ep_json_object(out);
    ep_json_kstr(out, "host", ep_str_n(e->host, e->n_host));
    ep_json_kstr(out, "source", text);
    ep_json_kbool(out, "sure", e->refused_ns != 0);
    ep_json_kuint(out, "alerts", e->alerts);
    ep_json_kuint(out, "closed", e->closes);
    ep_json_key(out, "seconds_ago");
    ep_json_double(out, (double)(now_ns - e->seen_ns) / 1e9);
    ep_json_object_end(out);
}

void ep_pinned_json(struct ep_pinned *p, uint64_t now_ns, struct ep_json *out)
{
    ep_json_array(out);
    pthread_mutex_lock(&p->lock);
    EP_LIST_FOREACH (n, &p->entries)
        describe(EP_CONTAINER(n, struct entry, node), EP_MAX(now_ns, EP_CONTAINER(n, struct entry, node)->seen_ns), out);
    pthread_mutex_unlock(&p->lock);
    ep_json_array_end(out);
}
