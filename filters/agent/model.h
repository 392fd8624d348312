/* What is asked of a language model, in OpenAI's and in Anthropic's words: one record for both.
 *
 * The scan (agent/json.h) has found the parts of the body; they are kept raw. What policies look at is made of them when
 * one first looks: the prompt's text, the tools that are offered, what the prompt carries beside text. */
#ifndef EP_AGENT_MODEL_H
#define EP_AGENT_MODEL_H

#include "agent/json.h"
#include "filter/call.h"

#define EP_MODEL_BATCH_MAX 1024u /* requests in one batch that are judged */

/* Parts of a body. All in front of EP_MODEL_TOOLS are the prompt, in the order in which a model reads them. */
enum ep_model_part {
    EP_MODEL_SYSTEM,
    EP_MODEL_INSTRUCTIONS,
    EP_MODEL_MESSAGES,
    EP_MODEL_INPUT,
    EP_MODEL_PROMPT,
    EP_MODEL_TOOLS,
    EP_MODEL_FUNCTIONS, /* the older name of tools */
    EP_MODEL_SERVERS,   /* mcp_servers */
    EP_MODEL_PARTS
};

/* What a prompt may carry that is no text, so that nobody has read it here. */
enum ep_model_media {
    EP_MODEL_IMAGE,
    EP_MODEL_AUDIO,
    EP_MODEL_FILE,
    EP_MODEL_REFERENCE, /* what the provider has kept: an earlier response, a conversation, a stored prompt */
    EP_MODEL_TOKENS,    /* numbers of tokens instead of text */
    EP_MODEL_MEDIA
};
const char *ep_model_media_name(enum ep_model_media m);

struct ep_model_names {
    struct ep_str *v;
    unsigned n;
};

struct ep_model_request {
    struct ep_str raw[EP_MODEL_PARTS];   /* JSON; empty: not given */
    struct ep_str max_tokens, choices;   /* the numbers as they are written; empty: not given */
    struct ep_str user;                  /* user, safety_identifier or metadata.user_id: whom the caller speaks for */
    struct ep_str previous;              /* the response or the conversation that it goes on */
    bool background;
    /* made by the functions below */
    bool read, named;
    struct ep_str prompt;
    unsigned media[EP_MODEL_MEDIA];
    struct ep_model_names tools, servers;
};

struct ep_arena;

/* Fills model, stream and to_model of the call from an object of the body. */
void ep_model_fill(struct ep_call *c, const struct ep_scan_message *m, struct ep_arena *arena);
/* A batch of Anthropic's: each of `requests` becomes a call, the first of them `first`, the others behind it. False: one is
 * malformed (a key given in two cases, no object) or there are too many: *too_many. */
bool ep_model_fill_batch(struct ep_call *first, struct ep_str requests, struct ep_arena *arena, bool *too_many);

/* All text of the prompt, one piece a line, whoever says it. Pictures and other data are left out; `media` counts them. */
struct ep_str ep_model_prompt(struct ep_model_request *r, struct ep_arena *arena);
/* How often the prompt carries each of enum ep_model_media. */
const unsigned *ep_model_media(struct ep_model_request *r, struct ep_arena *arena);
/* Names of the tools that are offered: a function's name, the label of an MCP server, else the kind ("web_search"). */
const struct ep_model_names *ep_model_tools(struct ep_model_request *r, struct ep_arena *arena);
/* URLs (or connectors) of the MCP servers that are offered. */
const struct ep_model_names *ep_model_servers(struct ep_model_request *r, struct ep_arena *arena);
/* After the parts were changed: all is made anew when it is asked for. */
void ep_model_forget(struct ep_model_request *r);

#endif
