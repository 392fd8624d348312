/* Durations ("250us", "5ms", "30s", "2m", "1h", "7d"), sizes ("64KiB", "1MB"), percents ("20%"), addresses. */
#ifndef EP_BASE_PARSE_H
#define EP_BASE_PARSE_H

#include <sys/socket.h>
#include <sys/un.h>

#include "base/str.h"

bool ep_parse_duration(struct ep_str s, uint64_t *ns);     /* "0" is allowed without a unit */
bool ep_parse_size(struct ep_str s, uint64_t *bytes);      /* B, KB, KiB, MB, MiB, GB, GiB; none: bytes */
bool ep_parse_percent(struct ep_str s, double *fraction);  /* "20%" -> 0.2; a bare number is a percent too */
int ep_format_duration(uint64_t ns, char out[32]);         /* shortest exact form, as the parser reads it */
int ep_format_size(uint64_t bytes, char out[32]);

struct ep_addr {
    socklen_t len; /* 0: none */
    union {
        struct sockaddr sa;
        struct sockaddr_storage ss;
        struct sockaddr_un un;
    } u;
};
/* "127.0.0.1:80", "[::1]:80", ":80" (all addresses), "unix:/path", "unix:@abstract". Numeric only. */
bool ep_addr_parse(struct ep_str s, struct ep_addr *out);
/* The same form back. Returns the length written; out holds 128 bytes and is NUL-terminated. */
int ep_addr_format(const struct ep_addr *a, char out[128]);
bool ep_addr_equal(const struct ep_addr *a, const struct ep_addr *b); /* address and port */
uint16_t ep_addr_port(const struct ep_addr *a);                       /* 0 for a Unix socket */
void ep_addr_set_port(struct ep_addr *a, uint16_t port);

struct ep_cidr {
    int family;
    unsigned bits;
    unsigned char bytes[16];
};
bool ep_cidr_parse(struct ep_str s, struct ep_cidr *out); /* "10.0.0.0/8", "::1/128", a bare address too */
bool ep_cidr_contains(const struct ep_cidr *c, const struct ep_addr *a);

/* What a lenient server may take a path (without query) for: percent-escapes undone, slashes that repeat folded, "." and
 * ".." resolved, a backslash as a slash. `out` has room for path.n bytes. Returns the length. */
size_t ep_path_meant(struct ep_str path, char *out);

/* Closest of n names to `given` by edit distance, or NULL when none is near: "did you mean". */
const char *ep_nearest(struct ep_str given, const char *const *names, size_t n);

#endif
