/* A small MCP client over HTTP/1.1 without TLS: one request on a connection of its own, answered by JSON or by events. For
 * `ephor mcp`. */
#ifndef EP_CLI_MCP_CLIENT_H
#define EP_CLI_MCP_CLIENT_H

#include "base/base.h"

struct ep_mcp_client {
    struct ep_str host, port, path;
    const char *headers;   /* lines that go with every request, each with its CRLF */
    struct ep_str session; /* of initialize; malloc'd, NUL-terminated */
};

/* "http://host[:port]/path". False with err. Slices point into `url`. */
bool ep_mcp_client_init(struct ep_mcp_client *c, const char *url, const char *headers, struct ep_error *err);
void ep_mcp_client_fini(struct ep_mcp_client *c);

/* Posts a message. The answer with this id: malloc'd, with EP_SCAN_PADDING bytes behind it; of a notification (id empty) or
 * of another status than 200 it is empty. NULL with err when there is none. `extra`: header lines of this request. */
char *ep_mcp_client_post(struct ep_mcp_client *c, struct ep_str body, const char *extra, unsigned *status, size_t *n,
                         struct ep_error *err);

#endif
