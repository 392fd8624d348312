/* What the files of MCP share. */
#ifndef EP_AGENT_MCP_H
#define EP_AGENT_MCP_H

#include "agent/json.h"
#include "filter/stream.h"

void ep_mcp_refuse(struct ep_stream *s, const struct ep_refusal *r);
void ep_mcp_refuse_midstream(struct ep_stream *s, const struct ep_refusal *r);

/* --- lists of what may be called: mcp_list.c, without a stream --- */

enum ep_mcp_list { EP_MCP_TOOLS, EP_MCP_PROMPTS, EP_MCP_RESOURCES, EP_MCP_TEMPLATES, EP_MCP_LISTS };
const char *ep_mcp_list_name(enum ep_mcp_list list); /* "tools" … */

/* Whether an entry stays. `name`: its name, of resources the URI, of templates the template, escapes undone; empty: it has
 * none. `entry`: its JSON. Slices are valid during the call. */
typedef bool ep_mcp_keep(void *user, enum ep_mcp_list list, struct ep_str name, struct ep_str entry);

enum ep_mcp_edit {
    EP_MCP_SAME,       /* nothing is taken out */
    EP_MCP_EDITED,     /* *out is the new text, in the arena */
    EP_MCP_UNREADABLE, /* it may be read as more than one list, or is nested too deep: nobody can say what is in it */
};

/* Asks `keep` about every entry of the lists in the results of `json`, which was scanned from `text`. Everything else stays
 * byte by byte, but that a cacheScope "public" becomes "private": what one caller may see is not for all. */
enum ep_mcp_edit ep_mcp_list_edit(struct ep_str text, const struct ep_scan *json, ep_mcp_keep *keep, void *user,
                                  struct ep_arena *arena, struct ep_str *out);

#endif
