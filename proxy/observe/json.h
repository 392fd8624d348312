/* A JSON writer into a growing buffer: commas and escapes by itself, no tree. Canonical enough for the audit
 * (keys in the order written, no white space). Invalid UTF-8 becomes U+FFFD. */
#ifndef EP_OBSERVE_JSON_H
#define EP_OBSERVE_JSON_H

#include "base/base.h"

struct ep_json {
    char *p;
    size_t n, cap;
    uint32_t depth;
    uint64_t has_member; /* a bit for each level: a comma is due */
    bool after_key;
};

void ep_json_init(struct ep_json *j);
void ep_json_fini(struct ep_json *j);
void ep_json_reset(struct ep_json *j);
void ep_json_object(struct ep_json *j); /* { */
void ep_json_object_end(struct ep_json *j);
void ep_json_array(struct ep_json *j);
void ep_json_array_end(struct ep_json *j);
void ep_json_key(struct ep_json *j, const char *key);
void ep_json_name(struct ep_json *j, struct ep_str key); /* the same, of a key from elsewhere */
void ep_json_str(struct ep_json *j, struct ep_str s);
void ep_json_z(struct ep_json *j, const char *z); /* null when NULL */
void ep_json_int(struct ep_json *j, int64_t v);
void ep_json_uint(struct ep_json *j, uint64_t v);
void ep_json_double(struct ep_json *j, double v);
void ep_json_bool(struct ep_json *j, bool v);
void ep_json_null(struct ep_json *j);
void ep_json_raw(struct ep_json *j, struct ep_str json); /* already JSON */
static inline void ep_json_kstr(struct ep_json *j, const char *k, struct ep_str s) { ep_json_key(j, k); ep_json_str(j, s); }
static inline void ep_json_kuint(struct ep_json *j, const char *k, uint64_t v) { ep_json_key(j, k); ep_json_uint(j, v); }
static inline void ep_json_kint(struct ep_json *j, const char *k, int64_t v) { ep_json_key(j, k); ep_json_int(j, v); }
static inline void ep_json_kbool(struct ep_json *j, const char *k, bool v) { ep_json_key(j, k); ep_json_bool(j, v); }
static inline struct ep_str ep_json_text(const struct ep_json *j) { return ep_str_n(j->p, j->n); }

/* --- reading (json_read.c): of our own JSON, which somebody may have changed since --- */

/* Takes the next member off an object's text, or the next element off an array's, which begins with its bracket. The
 * key is without quotes, escapes not undone; the value is raw. False at the end, or where it is not JSON. */
bool ep_json_next(struct ep_str *rest, struct ep_str *key, struct ep_str *value);
/* A member's raw value, empty when there is none. "metadata.listener" looks into an object. */
struct ep_str ep_json_member(struct ep_str object, const char *path);
/* Behind the closing quote of the string that begins at p; NULL: it begins or ends nowhere, or has a control character. */
const char *ep_json_string_end(const char *p, const char *end);
/* What a string says: quotes and escapes undone into `out`, cut to `room`; another value is itself. The length. */
size_t ep_json_plain(struct ep_str value, char *out, size_t room);

#endif
