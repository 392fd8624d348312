/* PROXY protocol, version 2: who really called, said by a load balancer in front.
 *
 * The header is parsed from the bytes at hand and nothing is kept; TLVs are skipped. A malformed header ends the
 * connection (proxy-protocol.txt section 2.2: "the receiver must abort"), since guessing would let a client name its
 * own address. */
#include <arpa/inet.h>
#include <netinet/in.h>

#include "net/listener.h"

#define HEADER        16
#define COMMAND_LOCAL 0x20
#define COMMAND_PROXY 0x21
#define STREAM        1

static const unsigned char signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

/* By the high half of byte 13: UNSPEC, INET, INET6, UNIX. */
static const struct {
    int family;
    size_t addresses; /* bytes that must follow */
} families[] = {
    {AF_UNSPEC, 0},
    {AF_INET, 12},
    {AF_INET6, 36},
    {AF_UNIX, 216},
};

static void set_addr(struct ep_addr *out, int family, const unsigned char *address, const unsigned char *port)
{
    memset(out, 0, sizeof *out);
    if (family == AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET};
        memcpy(&in.sin_addr, address, 4);
        memcpy(&in.sin_port, port, 2);
        memcpy(&out->u, &in, sizeof in);
        out->len = sizeof in;
    } else {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        memcpy(&in6.sin6_addr, address, 16);
        memcpy(&in6.sin6_port, port, 2);
        memcpy(&out->u, &in6, sizeof in6);
        out->len = sizeof in6;
    }
}

int ep_proxy_v2_parse(const unsigned char *p, size_t n, struct ep_addr *src, struct ep_addr *dst)
{
    size_t family, length;

    if (memcmp(p, signature, EP_MIN(n, sizeof signature)) != 0)
        return -1;
    if (n > 12 && p[12] != COMMAND_LOCAL && p[12] != COMMAND_PROXY)
        return -1;
    if (n > 13 && ((p[13] >> 4) >= EP_COUNT(families) || (p[13] & 0xf) > 2))
        return -1;
    if (n < HEADER)
        return 0;
    family = p[13] >> 4;
    length = (size_t)p[14] << 8 | p[15];
    if (p[12] == COMMAND_PROXY && length < families[family].addresses)
        return -1;
    if (n < HEADER + length)
        return 0;
    if (p[12] == COMMAND_PROXY && (p[13] & 0xf) == STREAM) {
        const unsigned char *a = p + HEADER;

        if (families[family].family == AF_INET) {
            set_addr(src, AF_INET, a, a + 8);
            set_addr(dst, AF_INET, a + 4, a + 10);
        } else if (families[family].family == AF_INET6) {
            set_addr(src, AF_INET6, a, a + 32);
            set_addr(dst, AF_INET6, a + 16, a + 34);
        }
    }
    return (int)(HEADER + length);
}
