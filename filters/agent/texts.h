/* What an event of a stream says, whatever the protocol: the texts in it, and which of them go on from event to event.
 *
 * Language models send a text in deltas, of several texts side by side (choices, content blocks, arguments of tools). A text
 * that goes on has a channel; who looks for something that spans two events joins what comes on one channel. A protocol
 * is one reader, named in the table of texts.c. Sources: AGENTS.md sections 2 to 5. */
#ifndef EP_AGENT_TEXTS_H
#define EP_AGENT_TEXTS_H

#include "agent/events.h"

#define EP_EVENT_TEXTS_MAX 32u
#define EP_EVENT_ENDS_MAX  16u

enum ep_text_kind { EP_TEXT_CONTENT, EP_TEXT_ARGUMENTS, EP_TEXT_REASONING, EP_TEXT_KINDS };
const char *ep_text_kind_name(enum ep_text_kind k);

struct ep_event_text {
    enum ep_text_kind kind;
    struct ep_str raw;   /* the string in the event's data, with its quotes; empty: it only says what the channel is */
    bool plain;          /* raw is the data itself, not JSON */
    uint64_t channel;    /* of the text that it goes on; 0: it is whole */
    uint64_t group;      /* what ends together: a choice, a block */
    uint64_t index;      /* the protocol's own number of it */
    bool last;           /* nothing of the text follows */
    struct ep_str tool;  /* whose arguments they are, when this event says it: between quotes */
    struct ep_str head, tail;    /* an event that says nothing else: head, open, a string, close, tail */
    char open[112];
    const char *close;
};

struct ep_event_texts {
    unsigned n, n_ends;
    struct ep_event_text v[EP_EVENT_TEXTS_MAX];
    uint64_t ends[EP_EVENT_ENDS_MAX]; /* groups of which nothing follows */
    bool ends_all;
    bool unsure; /* it can be read in two ways, or says more than fits */
};

/* Fills `out` with what the event says. `protocol` and `method` are those of the call. */
void ep_event_texts(struct ep_str protocol, struct ep_str method, const struct ep_event *e, struct ep_event_texts *out);

/* The data from its first byte that is no white space: a client's JSON parser skips that. */
struct ep_str ep_texts_trim(struct ep_str data);

/* --- for readers --- */

typedef void ep_texts_reader(struct ep_event_texts *t, struct ep_str method, const struct ep_event *e);
ep_texts_reader ep_texts_openai, ep_texts_anthropic, ep_texts_mcp, ep_texts_a2a;

/* A member that is looked for in an object, and its value as it stands there; empty: there is none. */
struct ep_texts_member {
    struct ep_str key, value;
};
/* One pass over the object. A key that comes twice, or is written with escapes, makes it unsure. */
void ep_texts_members(struct ep_event_texts *t, struct ep_str object, struct ep_texts_member *m, size_t n);
/* The next element of an array: *rest is first the array itself. False: no more. */
bool ep_texts_element(struct ep_event_texts *t, struct ep_str *rest, struct ep_str *value);
/* 0 when it is none. */
uint64_t ep_texts_number(struct ep_str value);
/* Between its quotes; empty when it is no string. */
struct ep_str ep_texts_string(struct ep_str value);
uint64_t ep_texts_channel(struct ep_str what, uint64_t a, uint64_t b, uint64_t c);
/* The string `raw` of the data, if it is one; NULL: it isn't, or there is no room. */
struct ep_event_text *ep_texts_add(struct ep_event_texts *t, struct ep_str data, struct ep_str raw, enum ep_text_kind kind,
                                   uint64_t channel, uint64_t group, uint64_t index);
void ep_texts_end(struct ep_event_texts *t, uint64_t group);

#endif
