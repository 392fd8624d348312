/* link: ep_config */
/* A constitution's bundle: whatever its files are, there is a text or an error; the digest depends on all of it and on no
 * order; a signature is good for this text alone.
 *
 * The input is files: "path\0text\1path\0text…"; the first byte picks what is tried besides. */
#include <stdlib.h>

#include "config/charter.h"

#define CHECK(x) ((x) ? (void)0 : abort())
#define FILES_MAX 32u

static size_t split(struct ep_str rest, struct ep_charter_file files[FILES_MAX])
{
    size_t n = 0;
    struct ep_str one;

    while (n < FILES_MAX && rest.n) {
        ptrdiff_t end = ep_str_find(rest, '\1', 0), zero;
        one = ep_str_n(rest.p, end < 0 ? rest.n : (size_t)end);
        rest = ep_str_n(rest.p + one.n + (end >= 0), rest.n - one.n - (end >= 0));
        zero = ep_str_find(one, '\0', 0);
        files[n].path = ep_str_n(one.p, zero < 0 ? one.n : (size_t)zero);
        files[n].text = zero < 0 ? (struct ep_str){NULL, 0} : ep_str_n(one.p + zero + 1, one.n - (size_t)zero - 1);
        n++;
    }
    return n;
}

static void sign(struct ep_charter *c, struct ep_charter *other)
{
    struct ep_signer signer;
    uint8_t key[EP_PUBLIC_KEY_BYTES];
    char text[EP_CHARTER_SIGNATURE_TEXT];
    struct ep_error err;

    CHECK(ep_signer_generate(&signer, &err));
    ep_signer_public(&signer, key);
    c->signature = other->signature = ep_str_n(text, ep_charter_sign(c, &signer, text));
    CHECK(ep_charter_signed(c, key, &err));
    CHECK(ep_charter_signed(other, key, &err) == ep_str_eq(c->listing, other->listing));
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    struct ep_charter_file files[FILES_MAX], turned[FILES_MAX];
    struct ep_charter *c, *again;
    struct ep_error err = {""};
    uint8_t key[EP_PUBLIC_KEY_BYTES] = {1};
    size_t count;

    if (n < 1)
        return 0;
    count = split(ep_str_n(data + 1, n - 1), files);
    c = ep_charter_parse(files, count, &err);
    CHECK(c || err.text[0]);
    if (!c)
        return 0;
    CHECK(c->digest.n == EP_CHARTER_DIGEST_TEXT && c->hash.n >= 8);
    for (size_t i = 0; i < c->n_principles; i++)
        CHECK(c->principles[i].id.n && c->principles[i].text.n);
    for (size_t i = 0; i < count; i++)
        turned[i] = files[count - 1 - i];
    again = ep_charter_parse(turned, count, &err);
    CHECK(again && ep_str_eq(c->digest, again->digest));
    if (c->signature.n)
        (void)ep_charter_signed(c, key, &err);
    if (data[0] & 1)
        sign(c, again);
    ep_charter_free(again);
    ep_charter_free(c);
    return 0;
}
