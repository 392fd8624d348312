/* Definitions of tools that were pinned: what a server said of its tools when somebody looked at them.
 *
 * A server that changes what a tool says of itself afterwards changes what a model does with it (a rug pull). A pin is
 * the SHA-256 over the canonical JSON of one definition: members sorted by the bytes of their keys, no white space, the
 * shortest escapes, numbers as they came; without `_meta` and `icons`. */
#ifndef EP_AGENT_MCP_PINS_H
#define EP_AGENT_MCP_PINS_H

#include "base/base.h"
#include "filter/mcp_config.h"

/* False: it is nested too deep for us, or no object. `entry`: JSON that was scanned, without a key twice. */
bool ep_mcp_pin_digest(struct ep_str entry, struct ep_arena *arena, uint8_t out[EP_MCP_DIGEST_BYTES]);

enum ep_mcp_pinned {
    EP_MCP_PINNED_SAME,
    EP_MCP_PINNED_CHANGED,
    EP_MCP_PINNED_UNKNOWN, /* no pin has that name */
};

/* What a definition is by the pins, and noted for calls: the last list that was seen counts. *news: it wasn't so
 * before. */
enum ep_mcp_pinned ep_mcp_pins_see(struct ep_mcp_pins *pins, struct ep_str name,
                                   const uint8_t digest[EP_MCP_DIGEST_BYTES], bool *news);
/* What is known of a tool that is called; SAME too when no list was seen yet. */
enum ep_mcp_pinned ep_mcp_pins_of(const struct ep_mcp_pins *pins, struct ep_str name);

#endif
