/* Asking all workers at once and waiting for their answers.
 *
 * The mails of a question with a deadline may be answered when nobody waits any more, so the question is counted: the
 * asker and each mail hold it. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "config/process.h"

struct letter {
    struct ep_mail mail;
    struct question *question;
    unsigned index;
};

struct question {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    unsigned refs, open;
    ep_round_fn *fn; /* one of both */
    void (*describe)(struct ep_worker *w, struct ep_json *out);
    void *arg;
    struct ep_json *answers; /* of describe */
    bool *done;
    struct letter letters[];
};

static void question_unref(struct question *q, unsigned n)
{
    pthread_mutex_lock(&q->lock);
    bool last = --q->refs == 0;
    pthread_mutex_unlock(&q->lock);
    if (!last)
        return;
    for (unsigned i = 0; q->answers && i < n; i++)
        ep_json_fini(&q->answers[i]);
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->answered);
    free(q->answers);
    free(q->done);
    free(q);
}

static void open_letter(struct ep_mail *m, struct ep_worker *w)
{
    struct letter *letter = EP_CONTAINER(m, struct letter, mail);
    struct question *q = letter->question;
    struct ep_serving *v = EP_CONTAINER(w, struct ep_serving, worker);
    unsigned n = v->server->n;

    if (q->fn)
        q->fn(v, q->arg, letter->index);
    else
        q->describe(w, &q->answers[letter->index]);
    pthread_mutex_lock(&q->lock);
    q->done[letter->index] = true;
    if (--q->open == 0)
        pthread_cond_signal(&q->answered);
    pthread_mutex_unlock(&q->lock);
    question_unref(q, n);
}

static struct question *question_new(unsigned n)
{
    struct question *q = ep_calloc(1, sizeof *q + n * sizeof q->letters[0]);
    pthread_condattr_t monotonic;

    pthread_mutex_init(&q->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&q->answered, &monotonic);
    pthread_condattr_destroy(&monotonic);
    q->refs = n + 1;
    q->open = n;
    q->done = ep_calloc(n + 1, sizeof *q->done);
    return q;
}

/* Posts it and waits; 0: as long as it takes. The lock is held when it returns. */
static void post_and_wait(struct ep_server *s, struct question *q, uint64_t timeout_ns)
{
    uint64_t until = ep_clock_ns() + timeout_ns;
    struct timespec deadline = {.tv_sec = (time_t)(until / EP_S), .tv_nsec = (long)(until % EP_S)};

    for (unsigned i = 0; i < s->n; i++) {
        q->letters[i] = (struct letter){{NULL, open_letter}, q, i};
        ep_worker_post(&s->serving[i].worker, &q->letters[i].mail);
    }
    pthread_mutex_lock(&q->lock);
    while (q->open) {
        if (!timeout_ns)
            pthread_cond_wait(&q->answered, &q->lock);
        else if (pthread_cond_timedwait(&q->answered, &q->lock, &deadline) == ETIMEDOUT)
            break;
    }
}

void ep_round(struct ep_server *s, ep_round_fn *fn, void *arg)
{
    struct question *q = question_new(s->n);

    q->fn = fn;
    q->arg = arg;
    post_and_wait(s, q, 0);
    pthread_mutex_unlock(&q->lock);
    question_unref(q, s->n);
}

void ep_server_ask(struct ep_server *s, void (*describe)(struct ep_worker *w, struct ep_json *out), uint64_t timeout_ns,
                   struct ep_json *out)
{
    struct question *q = question_new(s->n);

    q->describe = describe;
    q->answers = ep_calloc(s->n, sizeof *q->answers);
    for (unsigned i = 0; i < s->n; i++) {
        ep_json_init(&q->answers[i]);
        ep_json_object(&q->answers[i]);
        ep_json_kuint(&q->answers[i], "worker", i);
    }
    post_and_wait(s, q, timeout_ns);
    ep_json_array(out);
    for (unsigned i = 0; i < s->n; i++) {
        if (q->done[i]) {
            ep_json_object_end(&q->answers[i]);
            ep_json_raw(out, ep_json_text(&q->answers[i]));
        } else {
            ep_json_object(out);
            ep_json_kuint(out, "worker", i);
            ep_json_kstr(out, "error", EP_STR("no answer"));
            ep_json_object_end(out);
        }
    }
    ep_json_array_end(out);
    pthread_mutex_unlock(&q->lock);
    question_unref(q, s->n);
}
