/* Streams that wait for the disk: `audit.sync: always`. The audit's thread posts one mail for each group and worker; the
 * worker then goes through its list, which is in the order of the records. */
#include <stdatomic.h>
#include <stdlib.h>

#include "filter/decision.h"
#include "filter/private.h"

bool ep_stream_unsettled(struct ep_stream *s)
{
    return ep_list_linked(&s->audit_node);
}

struct ep_audit_ear {
    struct ep_worker *worker;
    struct ep_audit *audit; /* that it listens to; NULL: none that waits */
    struct ep_mail mail;
    atomic_bool posted;
};

static void go_on(struct ep_stream *s, bool lost)
{
    ep_list_remove(&s->audit_node);
    if (s->ending)
        return;
    if (lost)
        ep_stream_unaudited(s);
    else if (s->refusal_waits)
        ep_refusal_deliver(s);
    else
        ep_walk_response(s);
}

static void wake_all(struct ep_worker *w, struct ep_audit *a)
{
    while (!ep_list_empty(&w->unsettled)) {
        struct ep_stream *s = EP_CONTAINER(w->unsettled.next, struct ep_stream, audit_node);
        enum ep_audit_state state = ep_audit_state(a, s->audit_seq);

        if (state == EP_AUDIT_UNSETTLED)
            return;
        go_on(s, state == EP_AUDIT_SPOILED && ep_audit_required(a));
    }
}

static void on_mail(struct ep_mail *m, struct ep_worker *w)
{
    struct ep_audit_ear *e = EP_CONTAINER(m, struct ep_audit_ear, mail);

    atomic_store(&e->posted, false); /* first: what is settled from here on comes with another mail */
    if (e->audit)
        wake_all(w, e->audit);
}

/* In the audit's thread. */
static void wake(void *user)
{
    struct ep_audit_ear *e = user;

    if (!atomic_exchange(&e->posted, true))
        ep_worker_post(e->worker, &e->mail);
}

struct ep_audit_ear *ep_audit_ear_new(struct ep_worker *w)
{
    struct ep_audit_ear *e = ep_calloc(1, sizeof *e);

    e->worker = w;
    e->mail.run = on_mail;
    atomic_init(&e->posted, false);
    return e;
}

void ep_audit_ear_set(struct ep_audit_ear *e, struct ep_audit *a)
{
    struct ep_worker *w = e->worker;

    if (w->audit == a)
        return;
    if (e->audit) {
        ep_audit_deafen(e->audit, e);
        ep_audit_sync(e->audit); /* once in the life of a configuration that moves its audit */
        wake_all(w, e->audit);
    }
    w->audit = a;
    e->audit = ep_audit_waits(a) && ep_audit_listen(a, wake, e) ? a : NULL;
}

void ep_audit_ear_free(struct ep_audit_ear *e)
{
    if (e && e->audit)
        ep_audit_deafen(e->audit, e);
    free(e);
}
