/* The two files of MCP. */
#ifndef EP_AGENT_MCP_H
#define EP_AGENT_MCP_H

#include "filter/stream.h"

void ep_mcp_refuse(struct ep_stream *s, const struct ep_refusal *r);
void ep_mcp_refuse_midstream(struct ep_stream *s, const struct ep_refusal *r);

#endif
