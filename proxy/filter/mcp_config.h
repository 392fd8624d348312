/* What `mcp:` of a listener becomes. The filter `mcp` reads it. */
#ifndef EP_FILTER_MCP_CONFIG_H
#define EP_FILTER_MCP_CONFIG_H

#include "base/base.h"

struct ep_mcp_config {
    bool filter_lists; /* what the caller may not call is not in its lists */
};

extern const struct ep_schema ep_mcp_schema;

#endif
