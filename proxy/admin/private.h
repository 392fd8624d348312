/* Shared by the files of proxy/admin. */
#ifndef EP_ADMIN_PRIVATE_H
#define EP_ADMIN_PRIVATE_H

#include "admin/admin.h"
#include "http/http.h"

/* A request being answered. */
struct ep_exchange {
    struct ep_admin *admin;
    struct ep_server *server;
    struct ep_leg *leg;
    struct ep_arena arena;
    struct ep_str method, path, query, authority, authorization, origin;
    bool metrics; /* came over the metrics bind */
    bool answered;
    struct ep_headers response;
    struct ep_task release;
};

struct ep_endpoint_row {
    const char *path;
    const char *method; /* "GET" (HEAD too), or "POST": it changes something */
    bool metrics;       /* is on the metrics bind too */
    void (*answer)(struct ep_exchange *x);
    const char *help;
};
extern const struct ep_endpoint_row ep_admin_endpoints[];
extern const size_t ep_admin_endpoints_n;

/* The text is copied. Once for each exchange. */
void ep_admin_reply(struct ep_exchange *x, unsigned status, const char *content_type, struct ep_str body);
/* {"error": …} or {"result": …}, by status. */
void ep_admin_say(struct ep_exchange *x, unsigned status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void ep_admin_reply_json(struct ep_exchange *x, unsigned status, struct ep_json *json); /* frees the json */
/* The value of a key in the query; {NULL, 0} when absent. */
struct ep_str ep_admin_query(const struct ep_exchange *x, const char *key);

/* constitution.c */
void ep_admin_constitution(struct ep_exchange *x);
/* Who asks, for the audit: "admin 127.0.0.1:40312". */
void ep_admin_caller(const struct ep_exchange *x, char out[128]);

/* page.c: the page at /. malloc'd. */
char *ep_admin_page(const struct ep_server *server);

#endif
