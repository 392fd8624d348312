/* Finding what must not get out: the patterns that `redact` knows by name. Pure: text in, place out; each finder is
 * linear in the text but for a small factor, whatever the text. */
#ifndef EP_LUA_SENSITIVE_H
#define EP_LUA_SENSITIVE_H

#include "base/base.h"

/* X(id, name, what it finds) */
#define EP_SENSITIVE(X)                                                                                                \
    X(SSN, "ssn", "US social security numbers: 123-45-6789, also with spaces")                                        \
    X(EMAIL, "email", "addresses of mail")                                                                             \
    X(CREDIT_CARD, "credit_card", "13 to 19 digits, spaces and dashes between them allowed, with a good check digit")  \
    X(IBAN, "iban", "bank accounts with a good checksum")                                                              \
    X(PHONE, "phone", "international phone numbers: + and 8 to 15 digits")                                             \
    X(API_KEY, "api_key", "keys known by how they begin: sk-…, ghp_…, AKIA…, AIza…, xoxb-…, glpat-…, hf_… and others") \
    X(JWT, "jwt", "JSON web tokens")                                                                                   \
    X(PRIVATE_KEY, "private_key", "private keys in PEM")

enum ep_sensitive {
#define X(id, name, help) EP_SENSITIVE_##id,
    EP_SENSITIVE(X)
#undef X
        EP_SENSITIVE_KINDS
};

const char *ep_sensitive_name(enum ep_sensitive kind);
/* From where on the end of s may be the beginning of one of that kind, of which more is to come; s.n: nothing is. Looks at the
 * last `max` bytes. */
size_t ep_sensitive_open(enum ep_sensitive kind, struct ep_str s, size_t max);
/* The first place at or after `from`: bytes begin to end. False: there is none. */
bool ep_sensitive_find(enum ep_sensitive kind, struct ep_str s, size_t from, size_t *begin, size_t *end);

#endif
