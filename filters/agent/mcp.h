/* What the files of MCP share. */
#ifndef EP_AGENT_MCP_H
#define EP_AGENT_MCP_H

#include "agent/json.h"
#include "filter/stream.h"

/* Whether it is one of MCP's own; tasks/… it has in common with A2A. */
bool ep_mcp_is_method(struct ep_str method);
void ep_mcp_refuse(struct ep_stream *s, const struct ep_refusal *r);
void ep_mcp_refuse_midstream(struct ep_stream *s, const struct ep_refusal *r);

/* What a request of this method names. */
enum ep_mcp_names { EP_MCP_NAMES_NOTHING, EP_MCP_NAMES_TOOL, EP_MCP_NAMES_PROMPT, EP_MCP_NAMES_URI };
enum ep_mcp_names ep_mcp_names_of(struct ep_str method);

/* mcp_headers.c: why the headers and this message of the body differ; NULL: they don't. */
struct ep_agent_head;
const char *ep_mcp_header_mismatch(struct ep_stream *s, const struct ep_agent_head *h, const struct ep_scan_message *m);
/* Whether the revision is 2026-07-28 or a later one: no sessions, and headers that repeat what is called. */
bool ep_mcp_is_stateless(struct ep_str version);

/* A key of an object as ep_json_next gives it, escapes undone. Longer ones are cut. */
#define EP_MCP_KEY_MAX 128u
struct ep_str ep_mcp_key(struct ep_str raw, char room[EP_MCP_KEY_MAX]);

/* For walks by ep_json_next. Nothing but JSON's white space. */
bool ep_mcp_is_blank(struct ep_str json);
/* Whether only the closing bracket is left of a container: the reader didn't stop in the
 * middle. */
bool ep_mcp_at_end(struct ep_str rest, char bracket);
/* "{}" and "[ ]", which the reader takes for an end at once. */
bool ep_mcp_is_empty(struct ep_str container);

/* --- lists of what may be called: mcp_list.c, without a stream --- */

enum ep_mcp_list { EP_MCP_TOOLS, EP_MCP_PROMPTS, EP_MCP_RESOURCES, EP_MCP_TEMPLATES, EP_MCP_LISTS };
const char *ep_mcp_list_name(enum ep_mcp_list list); /* "tools" … */

/* Whether an entry stays. `name`: its name, of resources the URI, of templates the template, escapes undone; empty: it
 * has none. `entry`: its JSON. Slices are valid during the call. */
typedef bool ep_mcp_keep(void *user, enum ep_mcp_list list, struct ep_str name, struct ep_str entry);

enum ep_mcp_edit {
    EP_MCP_SAME,       /* nothing is taken out */
    EP_MCP_EDITED,     /* *out is the new text, in the arena */
    EP_MCP_UNREADABLE, /* it may be read as more than one list, or is nested too deep: nobody can say what is in it */
};

/* Asks `keep` about every entry of the lists in the results of `json`, which was scanned from `text`. Everything else
 * stays byte by byte, but that a cacheScope "public" becomes "private": what one caller may see is not for all. */
enum ep_mcp_edit ep_mcp_list_edit(struct ep_str text, const struct ep_scan *json, ep_mcp_keep *keep, void *user,
                                  struct ep_arena *arena, struct ep_str *out);

#endif
