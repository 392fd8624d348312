/* What events of MCP and A2A say. Results of MCP are whole; A2A's artifacts may come in parts. AGENTS.md sections 2 and 3. */
#include "agent/texts.h"

#define KEY(text) {.key = EP_STR_INIT(text)}

/* `text` of each part; part number i goes on in channel `what`, i, unless `what` is empty. */
static void parts(struct ep_event_texts *t, struct ep_str data, struct ep_str list, struct ep_str what, bool last)
{
    struct ep_texts_member m[] = {KEY("text")};
    struct ep_event_text *x;
    struct ep_str part;

    for (uint64_t i = 0; ep_texts_element(t, &list, &part); i++) {
        ep_texts_members(t, part, m, EP_COUNT(m));
        if (!m[0].value.n)
            continue;
        x = ep_texts_add(t, data, m[0].value, EP_TEXT_CONTENT, what.n ? ep_texts_channel(what, i, 0, 0) : 0,
                         what.n ? ep_texts_channel(what, 0, 0, 1) : 0, i);
        if (x)
            x->last = last;
    }
}

void ep_texts_mcp(struct ep_event_texts *t, struct ep_str method, const struct ep_event *e)
{
    struct ep_texts_member top[] = {KEY("result")}, result[] = {KEY("content")};

    (void)method;
    ep_texts_members(t, e->data, top, EP_COUNT(top));
    ep_texts_members(t, top[0].value, result, EP_COUNT(result));
    parts(t, e->data, result[0].value, (struct ep_str){NULL, 0}, true);
}

/* A task, a message, or an update of one: in JSON-RPC under `result`, in REST as it is; in 1.0 under its kind. */
void ep_texts_a2a(struct ep_event_texts *t, struct ep_str method, const struct ep_event *e)
{
    struct ep_texts_member top[] = {KEY("result")};
    struct ep_texts_member r[] = {KEY("artifactUpdate"), KEY("statusUpdate"), KEY("message"),  KEY("artifact"),
                                  KEY("status"),         KEY("parts"),        KEY("lastChunk"), KEY("append")};
    struct ep_texts_member update[] = {KEY("artifact"), KEY("status"), KEY("lastChunk"), KEY("append")};
    struct ep_texts_member artifact[] = {KEY("artifactId"), KEY("parts")}, status[] = {KEY("message")}, message[] = {KEY("parts")};

    (void)method;
    ep_texts_members(t, e->data, top, EP_COUNT(top));
    ep_texts_members(t, top[0].value.n ? top[0].value : e->data, r, EP_COUNT(r));
    ep_texts_members(t, r[0].value.n ? r[0].value : r[1].value, update, EP_COUNT(update));
    struct ep_str of = update[0].value.n ? update[0].value : r[3].value;
    bool last = ep_str_eq(update[2].value.n ? update[2].value : r[6].value, EP_STR("true"));
    bool appends = ep_str_eq(update[3].value.n ? update[3].value : r[7].value, EP_STR("true"));
    ep_texts_members(t, of, artifact, EP_COUNT(artifact));
    /* What doesn't append takes the place of what was there: its rest can't be told by an event of ours. */
    parts(t, e->data, artifact[1].value, appends ? artifact[0].value : (struct ep_str){NULL, 0}, last);
    ep_texts_members(t, update[1].value.n ? update[1].value : r[4].value, status, EP_COUNT(status));
    ep_texts_members(t, r[2].value.n ? r[2].value : status[0].value, message, EP_COUNT(message));
    parts(t, e->data, message[0].value.n ? message[0].value : r[5].value, (struct ep_str){NULL, 0}, true);
}
