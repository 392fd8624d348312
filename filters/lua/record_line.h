/* Private to recording and replaying: what is in a line (record.h has its form), and what of it is masked, cut or said to be
 * lost. */
#ifndef EP_LUA_RECORD_LINE_H
#define EP_LUA_RECORD_LINE_H

#include "base/base.h"
#include "observe/observe.h"

struct ep_stream;
struct ep_headers;
struct ep_http_call_request;

/* An object that is written, and beside it the object of what is not in it as it was. */
struct ep_record_line {
    struct ep_json text, lost;
};
void ep_record_line_init(struct ep_record_line *r);
void ep_record_line_fini(struct ep_record_line *r);
/* Begins the two objects; _lost puts the second into the first, as its last member but what the caller adds. */
void ep_record_line_begin(struct ep_record_line *r);
void ep_record_line_lost(struct ep_record_line *r);

/* A text, at most EP_RECORD_FIELD_MAX of it; an empty one is left out. */
void ep_record_field(struct ep_record_line *r, const char *key, struct ep_str value);
/* "headers": the list of them, secrets masked. */
void ep_record_headers(struct ep_record_line *r, const struct ep_headers *h);
/* "request": the fields of t.call. */
void ep_record_request(struct ep_record_line *r, struct ep_stream *s);
/* The path with the values of its secret parameters masked; itself when it has none, else in the arena. */
struct ep_str ep_record_path(struct ep_arena *arena, struct ep_str full, bool *masked);

/* What a policy asked by c:http, as far as two questions are compared: of headers and body only their hash is kept, of
 * headers that look like secrets nothing. */
struct ep_record_question {
    struct ep_str cluster, method, host, path;
    char digest[64]; /* SHA-256, hexadecimal; no NUL */
};
void ep_record_question(struct ep_arena *arena, struct ep_str cluster, const struct ep_http_call_request *q,
                        struct ep_record_question *out);

#endif
