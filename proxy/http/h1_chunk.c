/* The chunked coding, strictly: RFC 9112 section 7.1.
 *
 * Not by llhttp, whose 8.1 takes a bare LF after a chunk's size and anything in an extension: with a server behind us
 * that reads the same bytes otherwise, a request could be hidden there. Extensions are dropped. */
#include "http/h1.h"

enum state { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF };

#define DIGITS_MAX 15u /* of 60 bits */

static int hex(unsigned char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One byte of a chunk's line or of the line end behind its data. */
static enum h1_result line_byte(struct h1_chunk *k, unsigned char c)
{
    int digit;

    switch (k->state) {
    case SIZE:
        digit = hex(c);
        if (digit >= 0) {
            if (++k->digits > DIGITS_MAX)
                return H1_BAD;
            k->left = k->left << 4 | (unsigned)digit;
            return H1_MORE;
        }
        if (k->digits == 0 || (c != '\r' && c != ';'))
            return H1_BAD;
        k->state = c == '\r' ? SIZE_LF : EXTENSION;
        return H1_MORE;
    case EXTENSION:
        if (c == '\r')
            k->state = SIZE_LF;
        else if ((c < 0x20 && c != '\t') || c == 0x7f || ++k->extension > H1_CHUNK_EXTENSION_MAX)
            return H1_BAD;
        return H1_MORE;
    case SIZE_LF:
        if (c != '\n')
            return H1_BAD;
        k->state = DATA;
        return k->left ? H1_MORE : H1_DONE;
    case DATA_CR:
        k->state = DATA_LF;
        return c == '\r' ? H1_MORE : H1_BAD;
    default:
        *k = (struct h1_chunk){.state = SIZE};
        return c == '\n' ? H1_MORE : H1_BAD;
    }
}

enum h1_result h1_chunk_feed(struct h1_chunk *k, const unsigned char *p, size_t n, size_t *used, struct ep_str *data)
{
    *data = ep_str_n(NULL, 0);
    for (size_t i = 0; i < n; i++) {
        enum h1_result r;

        if (k->state == DATA) {
            size_t part = (size_t)EP_MIN((uint64_t)(n - i), k->left);

            *data = ep_str_n(p + i, part);
            k->left -= part;
            if (k->left == 0)
                k->state = DATA_CR;
            *used = i + part;
            return H1_MORE;
        }
        r = line_byte(k, p[i]);
        if (r != H1_MORE) {
            *used = i + 1;
            return r;
        }
    }
    *used = n;
    return H1_MORE;
}
