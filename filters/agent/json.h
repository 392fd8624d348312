/* A JSON body, read once for what makes it a call: the scan behind the protocols that speak JSON.
 *
 * simdjson finds the structure and checks the UTF-8 (filters/agent_json.cpp); the walk over it checks everything
 * else, so that what is accepted here is JSON as RFC 8259 has it, and nothing that two parsers could read as two
 * calls goes unnoticed: a key given twice (in any object, escapes undone), a key that only a parser without case takes
 * for one of the protocol's (Go's), more than one value, nesting without end. A byte order mark in front is skipped, as
 * servers do.
 *
 * This header is for C and C++, so it has a slice type of its own. Slices point into the text given, or, when there
 * were escapes to undo, into memory of `alloc`. */
#ifndef EP_AGENT_JSON_H
#define EP_AGENT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EP_SCAN_PADDING   64u /* bytes behind the text that may be read, whatever they are */
#define EP_SCAN_DEPTH_MAX 64u
#define EP_SCAN_BATCH_MAX 128u

enum ep_scan_kind {
    EP_SCAN_ABSENT,
    EP_SCAN_NULL,
    EP_SCAN_BOOL,
    EP_SCAN_NUMBER,
    EP_SCAN_STRING,
    EP_SCAN_ARRAY,
    EP_SCAN_OBJECT
};

struct ep_scan_text {
    const char *p;
    size_t n;
};

struct ep_scan_value {
    enum ep_scan_kind kind;
    struct ep_scan_text raw;  /* verbatim, quotes and brackets included */
    struct ep_scan_text text; /* of a string: its characters; else as raw */
};

/* One object: the body, or an element of a batch. What a protocol may ask for is a member; the rest is checked and
 * forgotten. */
struct ep_scan_message {
    struct ep_scan_value jsonrpc, id, method, params, result, error;      /* JSON-RPC */
    struct ep_scan_value name, arguments, uri, task_id, protocol_version; /* of params */
    struct ep_scan_value meta_version; /* params._meta["io.modelcontextprotocol/protocolVersion"] */
    /* language models */
    struct ep_scan_value model, stream, background, system, instructions, messages, input, prompt;
    struct ep_scan_value tools, functions, mcp_servers, max_tokens, max_completion_tokens, max_output_tokens;
    struct ep_scan_value choices /* "n" */, user, safety_identifier, metadata, previous_response_id, conversation, requests;
    /* the agent bus */
    struct ep_scan_value message_type, message_id, conversation_id, priority, impact_score, tenant_id, constitutional_hash;
    struct ep_scan_value from_agent, sender_id, sender, to_agent, recipient, content, payload;
    struct ep_scan_value source_agent_id, target_agent_id; /* of routing */
    /* Agent2Agent: of params or of a request that is the body; of its message; "request" is 0.3's other name for that */
    struct ep_scan_value a2a_id, a2a_task_id, list_context_id, a2a_message, request_skill;
    struct ep_scan_value message_task_id, context_id, parts, message_content, skill;
    bool is_object;                                              /* an element of a batch may be anything */
    bool ambiguous;        /* "Params" for "params" among the members of JSON-RPC … */
    bool ambiguous_method; /* … and it was "method" or "jsonrpc", which alone make a message of it */
    bool ambiguous_params; /* … or "Name" for "name" among the judged ones of params */
    bool ambiguous_model;  /* … or "Model" for "model" among those of a language model */
    bool ambiguous_a2a;    /* … or "Parts" for "parts" of Agent2Agent; or one member under two of its names */
    struct ep_scan_message *next;
};

struct ep_scan {
    struct ep_scan_message *first;
    unsigned n;
    bool batch;
    bool duplicate; /* an object somewhere has a key twice */
};

enum ep_scan_result {
    EP_SCAN_OK,
    EP_SCAN_NOT_JSON, /* or more than one value, or neither object nor array */
    EP_SCAN_TOO_DEEP,
    EP_SCAN_TOO_MANY, /* elements in a batch */
};

typedef void *ep_scan_alloc(void *user, size_t n); /* never NULL, aligned to 8 */

/* One a worker and chain; keeps its buffers between texts, but not those of an unusually large one. */
struct ep_scanner;
struct ep_scanner *ep_scanner_new(uint64_t seed); /* NULL when the system has no memory */
void ep_scanner_free(struct ep_scanner *s);

/* Reads n bytes at `text`; EP_SCAN_PADDING more must be readable. `out` is valid as long as text and alloc's memory. */
enum ep_scan_result ep_scan_json(struct ep_scanner *s, const char *text, size_t n, ep_scan_alloc *alloc, void *user,
                                 struct ep_scan *out);

#ifdef __cplusplus
}
#endif
#endif
