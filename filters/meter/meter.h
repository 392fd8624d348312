/* What the files of the filter `meter` share, and what others may ask of it: tokens and their prices. */
#ifndef EP_METER_METER_H
#define EP_METER_METER_H

#include "agent/events.h"
#include "filter/filter.h"
#include "filter/listener_config.h"
#include "filter/usage.h"
#include "http/decode.h"

/* --- prices (prices.c) --- */

struct ep_price {
    struct ep_str model; /* glob */
    struct ep_str input_text, output_text, cached_text, cache_write_text, per_text;
    /* made of them by the check: billionths for `per` tokens */
    uint64_t input, output, cached, cache_write, per;
};

struct ep_meter_config {
    struct ep_vec prices; /* of ep_price */
};

extern const struct ep_schema ep_meter_schema;

/* "2.50" in billionths, at most nine digits behind the point. */
bool ep_parse_nano(struct ep_str text, uint64_t *out);

/* The first that fits; NULL: the model has no price. */
const struct ep_price *ep_price_of(const struct ep_meter_config *c, struct ep_str model);
/* In billionths, rounded up. */
uint64_t ep_price_cost(const struct ep_price *p, const struct ep_usage *u);

/* meter.c: what the stream's call has used, as far as it is known by now, priced; NULL: it uses no tokens, or there is
 * no meter. */
const struct ep_usage *ep_meter_usage(struct ep_stream *s);

/* The configuration of the filter `meter` in a listener's chain; NULL: it isn't there. */
const struct ep_meter_config *ep_meter_config_of(const struct ep_listener_config *c);

/* --- estimates (estimate.c) --- */

/* Tokens of text, about: four bytes of ASCII each, or one other character. */
struct ep_text_count {
    uint64_t ascii, other;
};
/* Of the inside of a JSON string, escapes and all. */
void ep_text_count_add(struct ep_text_count *c, struct ep_str json_string);
uint64_t ep_text_count_tokens(const struct ep_text_count *c);
/* Of any JSON; base64 counts a flat number for each piece, whatever its length. */
uint64_t ep_estimate_json(struct ep_str json);
/* Whether a call is one that uses tokens. */
bool ep_call_uses_tokens(const struct ep_call *c);
/* Tokens that a call sends. */
uint64_t ep_estimate_input(const struct ep_stream *s, const struct ep_call *c);
/* … and that it may get back at most: as many as it says, else `otherwise`. */
uint64_t ep_estimate_output(const struct ep_call *c, uint64_t otherwise);

/* --- reading answers (usage.c) --- */

enum ep_usage_form { EP_USAGE_JSON, EP_USAGE_EVENTS };

#define EP_USAGE_BYTES 2048u /* of the object "usage" in an answer */

/* Looks for "usage" and "model" in the outermost object of a JSON text that passes in pieces. */
struct ep_usage_find {
    unsigned depth;
    bool in_string, escaped, key_next, is_key, capturing, lost;
    bool model_next, is_model; /* the string that comes, or is under way, is the model's name */
    char key[8];
    unsigned key_n, value_n, model_n;
    char value[EP_USAGE_BYTES];
};

struct ep_usage_reader {
    struct ep_usage *usage;
    bool anthropic;
    enum ep_usage_form form;
    struct ep_decoder *decoder; /* NULL: it isn't compressed */
    struct ep_slab_pool *slabs;
    struct ep_events events;
    struct ep_usage_find find;
    struct ep_text_count text; /* that was said, for the estimate */
    bool broken;               /* nothing more can be read */
    bool last_event;           /* the API's own last one has come: [DONE], message_stop, response.completed … */
    unsigned choices, finished; /* of chat completions, which some servers end without [DONE] */
};

/* `codings.n` 0: as it is. Memory of its own only for events and decoding: fini. */
void ep_usage_reader_init(struct ep_usage_reader *r, struct ep_usage *usage, bool anthropic, enum ep_usage_form form,
                          const struct ep_codings *codings, struct ep_slab_pool *slabs);
void ep_usage_reader_fini(struct ep_usage_reader *r);
/* The answer as it passes; it is only looked at. What is known stands in the usage at any time. */
void ep_usage_read(struct ep_usage_reader *r, struct ep_slice piece);
void ep_usage_end(struct ep_usage_reader *r);
/* After it: whether the answer is all that its API calls one. A stream may end well over HTTP in the middle of a sentence. */
bool ep_usage_is_whole(const struct ep_usage_reader *r);
/* The object "usage" of an answer. False: there is nothing in it. */
bool ep_usage_take(struct ep_usage *u, struct ep_str json, bool anthropic);

#endif
