/* What `mcp:` of a listener becomes. The filter `mcp` reads it. */
#ifndef EP_FILTER_MCP_CONFIG_H
#define EP_FILTER_MCP_CONFIG_H

#include <stdatomic.h>

#include "base/base.h"

#define EP_MCP_DIGEST_BYTES 32u

struct ep_mcp_digest {
    uint8_t bytes[EP_MCP_DIGEST_BYTES];
};

/* A tool by its name: the definitions that were seen and found good. */
struct ep_mcp_pin {
    struct ep_str name;
    struct ep_mcp_digest *digests;
    size_t n;
    _Atomic bool changed; /* the last list that any worker saw had another definition */
};

/* A file of pins. Read once for each configuration and shared by all workers; only `changed` is written. */
struct ep_mcp_pins {
    struct ep_chunk_pool chunks;
    struct ep_arena arena; /* of all of it */
    struct ep_mcp_pin *v;  /* by name, each once */
    size_t n;
};

enum ep_mcp_on_change { EP_MCP_DENY, EP_MCP_SHADOW };

struct ep_mcp_config {
    bool filter_lists;        /* what the caller may not call is not in its lists */
    struct ep_str pins_file;  /* empty: none */
    int on_change;            /* enum ep_mcp_on_change: of a tool that isn't the one that was pinned */
    struct ep_mcp_pins *pins; /* of that file; NULL: none. The configuration frees it */
};

extern const struct ep_schema ep_mcp_schema;

#endif
