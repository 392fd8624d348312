/* The last ten configurations that were accepted, as texts: in memory, and in the state directory where there is one.
 */
#ifndef EP_CONFIG_HISTORY_H
#define EP_CONFIG_HISTORY_H

#include "base/base.h"

#define EP_HISTORY_MAX 10u

struct ep_history {
    char *directory; /* NULL: in memory only */
    uint64_t next;   /* number of the next file */
    struct {
        char *text;
        size_t n;
        uint64_t number;
    } v[EP_HISTORY_MAX]; /* oldest first */
    unsigned n;
};

/* Reads what an earlier process left. A directory that can't be used is warned of, and memory alone is used. */
void ep_history_init(struct ep_history *h, struct ep_str directory);
void ep_history_fini(struct ep_history *h);
/* Notes a text as the newest, unless it is. */
void ep_history_push(struct ep_history *h, struct ep_str text);
/* The one before the newest; {NULL, 0} when there is none. */
struct ep_str ep_history_previous(const struct ep_history *h);
/* Forgets the newest. */
void ep_history_pop(struct ep_history *h);

#endif
