/* The table of the sessions of 2024-11-05. agent/mcp_sessions.h has the picture. */
#include "agent/mcp_sessions.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "filter/chain.h"

#define BUCKETS 4096u

/* A call whose answer has not come yet. Its slices lie behind it. */
struct expected {
    struct ep_list node;
    struct ep_call call;
    size_t bytes;
    unsigned answers; /* that are to come with this id */
    bool doubtful;    /* to more than one call */
};

struct ep_mcp_session {
    struct ep_list node; /* of its bucket; of `ended` while its mail is on the way */
    struct ep_mcp_sessions *table;
    struct ep_worker *worker;
    ep_mcp_hear *hear; /* NULL: the stream has ended */
    void *user;
    struct ep_mail mail;
    bool posted;  /* the mail is on its way */
    bool clogged; /* the client didn't read */
    bool lost;    /* whose answers come isn't known any more */
    char *said;   /* what waits for the worker */
    size_t n_said, room;
    struct ep_list expected;
    size_t expected_bytes;
    struct ep_str key; /* behind the struct */
};

struct ep_mcp_sessions {
    pthread_mutex_t lock;
    atomic_uint n;
    struct ep_list ended;
    struct bucket {
        struct ep_list sessions;
        atomic_uint n; /* read without the lock */
    } buckets[BUCKETS];
};

struct ep_mcp_sessions *ep_mcp_sessions_new(void)
{
    struct ep_mcp_sessions *t = ep_calloc(1, sizeof *t);

    pthread_mutex_init(&t->lock, NULL);
    ep_list_init(&t->ended);
    for (unsigned i = 0; i < BUCKETS; i++)
        ep_list_init(&t->buckets[i].sessions);
    return t;
}

static void forget(struct ep_mcp_session *session)
{
    for (struct ep_list *n; (n = ep_list_pop(&session->expected)) != NULL;)
        free(EP_CONTAINER(n, struct expected, node));
    free(session->said);
    free(session);
}

void ep_mcp_sessions_free(struct ep_mcp_sessions *t)
{
    if (!t)
        return;
    for (struct ep_list *n; (n = ep_list_pop(&t->ended)) != NULL;) /* whose worker ended before its mail came */
        forget(EP_CONTAINER(n, struct ep_mcp_session, node));
    assert(atomic_load(&t->n) == 0);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static struct bucket *bucket(struct ep_mcp_sessions *t, struct ep_str key)
{
    return &t->buckets[ep_hash(key.p, key.n) % BUCKETS];
}

/* --- names --- */

struct ep_str ep_mcp_endpoint(struct ep_str authority, struct ep_str path, struct ep_str endpoint,
                              struct ep_arena *arena)
{
    static const char *const schemes[] = {"http:", "https:"};
    struct ep_str uri = ep_str_trim(endpoint);
    ptrdiff_t at = ep_str_find(uri, '#', 0), colon;

    if (at >= 0)
        uri.n = (size_t)at;
    for (size_t i = 0; i < EP_COUNT(schemes); i++) {
        struct ep_str scheme = ep_str(schemes[i]);
        if (ep_str_casestarts(uri, scheme) && uri.n > scheme.n + 2 && uri.p[scheme.n] == '/' &&
            uri.p[scheme.n + 1] == '/')
            uri = ep_str_n(uri.p + scheme.n, uri.n - scheme.n);
    }
    if (ep_str_starts(uri, EP_STR("//"))) {
        uri = ep_str_n(uri.p + 2, uri.n - 2);
        at = ep_str_find(uri, '/', 0);
        authority = at < 0 ? uri : ep_str_n(uri.p, (size_t)at);
        uri = at < 0 ? EP_STR("/") : ep_str_n(uri.p + at, uri.n - (size_t)at);
    }
    colon = ep_str_find(uri, ':', 0);
    at = ep_str_find(uri, '/', 0);
    if (uri.n == 0 || uri.n > EP_MCP_ENDPOINT_MAX || memchr(uri.p, '\0', uri.n) || authority.n == 0 ||
        (colon >= 0 && at != 0 && (at < 0 || colon < at)))
        return (struct ep_str){NULL, 0};
    if (at == 0)
        path.n = 0;
    else if ((at = ep_str_find(path, '?', 0)) >= 0)
        path.n = (size_t)at;
    while (path.n && uri.p[0] != '?' && path.p[path.n - 1] != '/')
        path.n--;
    return ep_arena_printf(arena, "%.*s%c%.*s%.*s", EP_STR_ARG(authority), '\0', EP_STR_ARG(path), EP_STR_ARG(uri));
}

/* Who posts there must be who opened the stream, as far as that is known. No name has a NUL. */
static struct ep_str key_of(struct ep_stream *s, struct ep_str place)
{
    const struct ep_str parts[] = {s->chain->config->name, s->peer_id, place};
    size_t n = 0, bytes = 0;
    char *out;

    if (place.n == 0)
        return place;
    for (size_t i = 0; i < EP_COUNT(parts); i++)
        bytes += parts[i].n + 1;
    out = ep_arena_zalloc(&s->arena, bytes);
    for (size_t i = 0; i < EP_COUNT(parts); i++) {
        if (parts[i].n)
            memcpy(out + n, parts[i].p, parts[i].n);
        n += parts[i].n + 1;
    }
    return ep_str_n(out, bytes);
}

/* --- the stream's side --- */

static void on_mail(struct ep_mail *m, struct ep_worker *w)
{
    struct ep_mcp_session *session = EP_CONTAINER(m, struct ep_mcp_session, mail);
    struct ep_mcp_sessions *t = session->table;
    ep_mcp_hear *hear;
    struct ep_str said;
    bool more;

    (void)w;
    pthread_mutex_lock(&t->lock);
    session->posted = false;
    hear = session->hear;
    if (!hear)
        ep_list_remove(&session->node);
    said = ep_str_n(session->said, session->n_said);
    session->said = NULL;
    session->n_said = session->room = 0;
    pthread_mutex_unlock(&t->lock);
    if (!hear) {
        free((char *)(uintptr_t)said.p);
        forget(session);
        return;
    }
    more = hear(session->user, said); /* may not close the session: streams end in tasks */
    free((char *)(uintptr_t)said.p);
    pthread_mutex_lock(&t->lock);
    session->clogged = !more;
    pthread_mutex_unlock(&t->lock);
}

struct ep_mcp_session *ep_mcp_session_open(struct ep_stream *s, struct ep_str place, ep_mcp_hear *hear, void *user)
{
    struct ep_mcp_sessions *t = s->worker->mcp_sessions;
    struct ep_str key = key_of(s, place);
    struct ep_mcp_session *session;
    char *text;

    if (!t || key.n == 0)
        return NULL;
    if (atomic_fetch_add(&t->n, 1) >= EP_MCP_SESSIONS_MAX) {
        atomic_fetch_sub(&t->n, 1);
        return NULL;
    }
    session = ep_calloc(1, sizeof *session + key.n);
    text = (char *)(session + 1);
    memcpy(text, key.p, key.n);
    session->key = ep_str_n(text, key.n);
    session->table = t;
    session->worker = s->worker;
    session->hear = hear;
    session->user = user;
    session->mail.run = on_mail;
    ep_list_init(&session->expected);
    pthread_mutex_lock(&t->lock);
    ep_list_push(&bucket(t, key)->sessions, &session->node);
    atomic_fetch_add(&bucket(t, key)->n, 1);
    pthread_mutex_unlock(&t->lock);
    return session;
}

void ep_mcp_session_close(struct ep_mcp_session *session)
{
    struct ep_mcp_sessions *t = session->table;
    bool posted;

    pthread_mutex_lock(&t->lock);
    ep_list_remove(&session->node);
    atomic_fetch_sub(&bucket(t, session->key)->n, 1);
    session->hear = NULL;
    posted = session->posted;
    if (posted)
        ep_list_push(&t->ended, &session->node);
    pthread_mutex_unlock(&t->lock);
    atomic_fetch_sub(&t->n, 1);
    if (!posted)
        forget(session);
}

static void exchange(struct ep_str *a, struct ep_header *b)
{
    struct ep_str value = b->value;

    b->value = *a;
    *a = value;
}

void ep_mcp_session_exchange(struct ep_stream *s, struct ep_call *call)
{
    struct ep_mcp_stream *m = s->mcp_session;
    struct ep_call before = s->call;

    s->call = *call;
    *call = before;
    if (m->target.n == 0)
        return;
    exchange(&m->method, ep_headers_find_id(&s->request.headers, EP_HDR_METHOD));
    exchange(&m->target, ep_headers_find_id(&s->request.headers, EP_HDR_PATH));
}

/* --- the side of who posts --- */

/* With the lock. NULL: none, or who knows which. */
static struct ep_mcp_session *find(struct ep_mcp_sessions *t, struct ep_str key)
{
    struct ep_mcp_session *found = NULL;
    bool both = false;

    EP_LIST_FOREACH(n, &bucket(t, key)->sessions)
    {
        struct ep_mcp_session *session = EP_CONTAINER(n, struct ep_mcp_session, node);
        if (!ep_str_eq(session->key, key))
            continue;
        if (found)
            both = found->lost = session->lost = true;
        found = session;
    }
    return both ? NULL : found;
}

/* The table, when it may have the session of this POST, and then its key. */
static struct ep_mcp_sessions *table_of(struct ep_stream *post, struct ep_str *key)
{
    struct ep_mcp_sessions *t = post->worker->mcp_sessions;
    struct ep_str path;

    if (EP_LIKELY(!t || atomic_load_explicit(&t->n, memory_order_relaxed) == 0))
        return NULL;
    path = ep_stream_path(post);
    if (path.n == 0 || path.p[0] != '/')
        return NULL;
    *key = key_of(post, ep_mcp_endpoint(ep_stream_authority(post), path, path, &post->arena));
    return key->n && atomic_load_explicit(&bucket(t, *key)->n, memory_order_relaxed) ? t : NULL;
}

bool ep_mcp_session_is_known(struct ep_stream *post)
{
    struct ep_str key;
    struct ep_mcp_sessions *t = table_of(post, &key);
    bool known;

    if (!t)
        return false;
    pthread_mutex_lock(&t->lock);
    known = find(t, key) != NULL;
    pthread_mutex_unlock(&t->lock);
    return known;
}

static bool append(struct ep_mcp_session *session, struct ep_str events)
{
    if (session->clogged || events.n > EP_MCP_SAID_MAX - session->n_said)
        return false;
    if (events.n > session->room - session->n_said) {
        session->room = EP_MIN(EP_MCP_SAID_MAX, 2 * session->room + events.n);
        session->said = ep_realloc(session->said, session->room);
    }
    memcpy(session->said + session->n_said, events.p, events.n);
    session->n_said += events.n;
    return true;
}

bool ep_mcp_session_say(struct ep_stream *post, struct ep_str events)
{
    struct ep_str key;
    struct ep_mcp_sessions *t = table_of(post, &key);
    struct ep_mcp_session *session;
    bool said = false;

    if (!t)
        return false;
    pthread_mutex_lock(&t->lock);
    session = find(t, key);
    if (session) {
        said = append(session, events);
        if (!session->posted) /* with nothing to say too: whether the client reads again */
            ep_worker_post(session->worker, &session->mail);
        session->posted = true;
    }
    pthread_mutex_unlock(&t->lock);
    return said;
}

/* --- which call an answer belongs to --- */

/* What a policy may ask of a call. */
static const size_t kept[] = {
    offsetof(struct ep_call, id_raw),  offsetof(struct ep_call, id_text), offsetof(struct ep_call, method),
    offsetof(struct ep_call, tool),    offsetof(struct ep_call, uri),     offsetof(struct ep_call, prompt_name),
    offsetof(struct ep_call, task),    offsetof(struct ep_call, version), offsetof(struct ep_call, agent),
    offsetof(struct ep_call, session), offsetof(struct ep_call, tenant),  offsetof(struct ep_call, arguments),
};

static struct ep_str *member(struct ep_call *c, size_t i)
{
    return (struct ep_str *)(void *)((char *)c + kept[i]);
}

/* NULL: there is no room. */
static struct expected *remember(struct ep_mcp_session *session, const struct ep_call *c)
{
    struct ep_call call = *c;
    struct expected *e;
    size_t n = sizeof *e;
    char *at;

    if (call.arguments.n > EP_MCP_ARGUMENTS_MAX) {
        call.arguments.n = 0;
        call.blind = EP_BLIND_TOO_LARGE;
    }
    for (size_t i = 0; i < EP_COUNT(kept); i++)
        n += member(&call, i)->n;
    if (n > EP_MCP_CALLS_MAX - session->expected_bytes)
        return NULL;
    e = ep_calloc(1, n);
    e->bytes = n;
    e->call = (struct ep_call){.protocol = call.protocol, .visible = call.visible, .blind = call.blind};
    at = (char *)(e + 1);
    for (size_t i = 0; i < EP_COUNT(kept); i++) {
        struct ep_str from = *member(&call, i);
        if (from.n)
            memcpy(at, from.p, from.n);
        *member(&e->call, i) = ep_str_n(at, from.n);
        at += from.n;
    }
    session->expected_bytes += n;
    ep_list_push(&session->expected, &e->node);
    return e;
}

static struct expected *find_expected(struct ep_mcp_session *session, struct ep_str id_raw)
{
    EP_LIST_FOREACH(n, &session->expected)
    {
        struct expected *e = EP_CONTAINER(n, struct expected, node);
        if (ep_str_eq(e->call.id_raw, id_raw))
            return e;
    }
    return NULL;
}

static void expect(struct ep_mcp_session *session, const struct ep_call *c)
{
    struct expected *e = find_expected(session, c->id_raw);

    if (e)
        e->doubtful = true;
    else
        e = remember(session, c);
    if (e)
        e->answers++;
    else
        session->lost = true;
}

/* One answer less. */
static void answered(struct ep_mcp_session *session, struct expected *e)
{
    if (--e->answers)
        return;
    session->expected_bytes -= e->bytes;
    ep_list_remove(&e->node);
    free(e);
}

static void unexpect(struct ep_mcp_session *session, const struct ep_call *c)
{
    struct expected *e = find_expected(session, c->id_raw);

    if (e)
        answered(session, e);
}

static bool each_call(struct ep_stream *post, void (*f)(struct ep_mcp_session *, const struct ep_call *))
{
    struct ep_str key;
    struct ep_mcp_sessions *t = table_of(post, &key);
    struct ep_mcp_session *session;

    if (!t)
        return false;
    pthread_mutex_lock(&t->lock);
    session = find(t, key);
    if (session && post->call.visible != EP_VISIBLE_FULL)
        session->lost = true;
    for (const struct ep_call *c = &post->call; session && c; c = c->next)
        if (c->id_raw.n)
            f(session, c);
    pthread_mutex_unlock(&t->lock);
    return session != NULL;
}

bool ep_mcp_session_expect(struct ep_stream *post)
{
    return each_call(post, expect);
}

void ep_mcp_session_unexpect(struct ep_stream *post)
{
    each_call(post, unexpect);
}

bool ep_mcp_session_answered(struct ep_mcp_session *session, struct ep_str id_raw, struct ep_arena *arena,
                             struct ep_call *out)
{
    struct ep_mcp_sessions *t = session->table;
    struct expected *e;
    bool known;

    pthread_mutex_lock(&t->lock);
    e = find_expected(session, id_raw);
    known = e && !e->doubtful && !session->lost;
    if (known) {
        *out = e->call;
        for (size_t i = 0; i < EP_COUNT(kept); i++)
            *member(out, i) = ep_arena_str(arena, *member(out, i));
    }
    if (e)
        answered(session, e);
    pthread_mutex_unlock(&t->lock);
    return known;
}
