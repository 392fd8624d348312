/* A small MCP client over HTTP/1.1, with TLS or without: one request on a connection of its own, answered by JSON or by events.
 * For `ephor mcp`. */
#ifndef EP_CLI_MCP_CLIENT_H
#define EP_CLI_MCP_CLIENT_H

#include "net/worker.h"

struct ep_mcp_client_options {
    const char *url;               /* "http[s]://host[:port]/path" */
    const char *headers;           /* lines that go with every request, each with its CRLF; NULL: none */
    const char *ca;                /* file of the roots that the server is verified by; NULL: the system's */
    const char *certificate, *key; /* files, of what is shown to the server; NULL: nothing */
};

struct ep_mcp_client {
    struct ep_worker worker;
    struct ep_tls_context *tls;    /* NULL: without */
    struct ep_str host, port, path; /* of the URL */
    bool secure;
    const char *headers;
    struct ep_str session; /* of initialize; malloc'd, NUL-terminated */
};

/* False with err, and nothing to free. What `o` points to must outlive the client, but for the files. */
bool ep_mcp_client_init(struct ep_mcp_client *c, const struct ep_mcp_client_options *o, struct ep_error *err);
void ep_mcp_client_fini(struct ep_mcp_client *c);

/* Posts a message. The answer with this id: malloc'd, with EP_SCAN_PADDING bytes behind it; of a notification (id empty) or
 * of another status than 200 it is empty. NULL with err when there is none. `extra`: header lines of this request. */
char *ep_mcp_client_post(struct ep_mcp_client *c, struct ep_str body, const char *extra, unsigned *status, size_t *n,
                         struct ep_error *err);

#endif
