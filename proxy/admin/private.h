/* Shared by the files of proxy/admin and nobody else. */
#ifndef EP_ADMIN_PRIVATE_H
#define EP_ADMIN_PRIVATE_H

#include "admin/admin.h"
#include "observe/observe.h"

struct ep_admin_call {
    struct ep_server *server;
    struct ep_str path, query;   /* without '?' */
    bool post;
    /* out */
    unsigned status;             /* 200 */
    const char *type;            /* application/json */
    struct ep_json body;         /* text of any type */
};

struct ep_endpoint_row {
    const char *path;
    bool on_metrics;             /* also on the metrics address */
    bool get;
    bool post;                   /* POST changes something */
    void (*handle)(struct ep_admin_call *c);
    const char *help;
};
extern const struct ep_endpoint_row ep_admin_endpoints[];
extern const size_t ep_admin_n_endpoints;

#endif
