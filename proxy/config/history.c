/* Files are accepted-0000000007.yaml, mode 0600, since a configuration may hold a token. */
#include "config/history.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/files.h"

#define TEXT_MAX (4u << 20)

static char *path_of(const struct ep_history *h, uint64_t number)
{
    char *path = NULL;

    if (asprintf(&path, "%s/accepted-%010llu.yaml", h->directory, (unsigned long long)number) < 0)
        abort();
    return path;
}

static void drop(struct ep_history *h, unsigned i, bool file)
{
    if (file && h->directory) {
        char *path = path_of(h, h->v[i].number);
        unlink(path);
        free(path);
    }
    free(h->v[i].text);
    h->n--;
    memmove(&h->v[i], &h->v[i + 1], (h->n - i) * sizeof h->v[0]);
}

static void append(struct ep_history *h, struct ep_str text, uint64_t number)
{
    if (h->n == EP_HISTORY_MAX)
        drop(h, 0, true);
    h->v[h->n].text = ep_strndup(text.p, text.n);
    h->v[h->n].n = text.n;
    h->v[h->n++].number = number;
}

static int ours(const struct dirent *d)
{
    unsigned long long number;
    int end = 0;

    return sscanf(d->d_name, "accepted-%10llu.yaml%n", &number, &end) == 1 && end == 24 && d->d_name[end] == 0;
}

static void read_directory(struct ep_history *h)
{
    struct dirent **names = NULL;
    int n = scandir(h->directory, &names, ours, alphasort);

    if (n < 0)
        ep_warn("config", "state %s: %s", h->directory, strerror(errno));
    for (int i = 0; i < n; i++) {
        uint64_t number = strtoull(names[i]->d_name + 9, NULL, 10);
        char *path = path_of(h, number);
        struct ep_error err;
        struct ep_str text;
        if (ep_file_read(ep_str(path), TEXT_MAX, &text, &err)) {
            append(h, text, number);
            ep_file_free(&text, false);
        } else {
            ep_warn("config", "%s %s", path, err.text);
        }
        h->next = EP_MAX(h->next, number + 1);
        free(path);
        free(names[i]);
    }
    free(names);
}

void ep_history_init(struct ep_history *h, struct ep_str directory)
{
    memset(h, 0, sizeof *h);
    h->next = 1;
    if (!directory.n)
        return;
    h->directory = ep_strndup(directory.p, directory.n);
    if (mkdir(h->directory, 0700) < 0 && errno != EEXIST) {
        ep_warn("config", "state %s: %s; accepted configurations are kept in memory only", h->directory,
                strerror(errno));
        free(h->directory);
        h->directory = NULL;
        return;
    }
    read_directory(h);
}

void ep_history_fini(struct ep_history *h)
{
    while (h->n)
        drop(h, h->n - 1, false);
    free(h->directory);
    memset(h, 0, sizeof *h);
}

void ep_history_push(struct ep_history *h, struct ep_str text)
{
    int rc;

    if (h->n && ep_str_eq(ep_str_n(h->v[h->n - 1].text, h->v[h->n - 1].n), text))
        return;
    append(h, text, h->next++);
    if (!h->directory)
        return;
    char *path = path_of(h, h->v[h->n - 1].number);
    rc = ep_file_write(path, text, 0600);
    if (rc)
        ep_warn("config", "%s: %s", path, strerror(-rc));
    free(path);
}

struct ep_str ep_history_previous(const struct ep_history *h)
{
    return h->n < 2 ? (struct ep_str){NULL, 0} : ep_str_n(h->v[h->n - 2].text, h->v[h->n - 2].n);
}

void ep_history_pop(struct ep_history *h)
{
    if (h->n)
        drop(h, h->n - 1, true);
}
