/* Watching files by the directories they are in (inotify): that way an editor's rename, a plain write and the swap of a
 * ConfigMap's `..data` link all are seen. Events are gathered for a while before they are told. */
#ifndef EP_CONFIG_WATCH_H
#define EP_CONFIG_WATCH_H

#include "net/worker.h"

#define EP_WATCH_MAX 16u

struct ep_watch {
    struct ep_worker *worker;
    void (*on_change)(struct ep_watch *w);
    int fd; /* -1: can't watch */
    struct event event;
    struct ep_timer settle;
    uint64_t since_ns; /* the first event of those gathered; 0: none */
    struct {
        int wd;
        char *path;
        bool wanted;
    } v[EP_WATCH_MAX];
    unsigned n;
    char *names[EP_WATCH_MAX]; /* base names of interest */
    unsigned n_names;
};

/* Without inotify the files are just not watched; that is warned of. */
void ep_watch_init(struct ep_watch *w, struct ep_worker *worker, void (*on_change)(struct ep_watch *w));
void ep_watch_fini(struct ep_watch *w);
/* What is watched is told anew each time: begin, add…, end. */
void ep_watch_begin(struct ep_watch *w);
void ep_watch_file(struct ep_watch *w, struct ep_str path);      /* and what it is a link to */
void ep_watch_directory(struct ep_watch *w, struct ep_str path); /* every *.lua in it */
void ep_watch_end(struct ep_watch *w);

#endif
