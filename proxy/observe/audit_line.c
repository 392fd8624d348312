/* The form of a record's line and of the head: audit.h says what they look like. No file is opened here. */
#include <stdio.h>
#include <stdlib.h>

#include "observe/audit.h"

#define PREV       ",\"prev\":\""
#define HASH       "\",\"hash\":\""
#define END        "\"}"
#define TAIL_BYTES (sizeof(PREV) - 1 + HASH_HEX + sizeof(HASH) - 1 + HASH_HEX + sizeof(END) - 1)

void ep_audit_chain_start(struct chain *c)
{
    c->seq = 0;
    memset(c->hash, '0', sizeof(c->hash));
}

bool ep_audit_parse(struct ep_str line, struct chain *record, char prev[HASH_HEX], const char **why)
{
    const struct ep_str start = EP_STR("{\"seq\":");
    size_t hash_at, digits = 0;
    const char *tail, *hash_member;
    char hex[HASH_HEX], *text;

    *why = "not an audit record";
    if (line.n < start.n + TAIL_BYTES || !ep_str_starts(line, start))
        return false;
    while (digits < line.n - start.n - TAIL_BYTES && line.p[start.n + digits] >= '0' && line.p[start.n + digits] <= '9')
        digits++;
    if (!ep_str_u64(ep_str_n(line.p + start.n, digits), &record->seq))
        return false;
    tail = line.p + line.n - TAIL_BYTES;
    hash_member = tail + sizeof(PREV) - 1 + HASH_HEX;
    hash_at = (size_t)(hash_member - line.p) + sizeof(HASH) - 1;
    if (memcmp(tail, PREV, sizeof(PREV) - 1) != 0 || memcmp(hash_member, HASH, sizeof(HASH) - 1) != 0 ||
        !ep_str_ends(line, EP_STR(END)))
        return false;
    memcpy(prev, tail + sizeof(PREV) - 1, HASH_HEX);
    memcpy(record->hash, line.p + hash_at, HASH_HEX);

    /* What was hashed ends with the quote of prev and a brace; the member `hash` stands between the two. */
    text = ep_malloc(line.n);
    memcpy(text, line.p, (size_t)(hash_member - line.p) + 1);
    text[hash_member - line.p + 1] = '}';
    ep_sha256_hex(ep_str_n(text, (size_t)(hash_member - line.p) + 2), hex);
    free(text);
    *why = "the record was changed: its hash is another";
    return memcmp(hex, record->hash, HASH_HEX) == 0;
}

/* --- the head --- */

/* What is summed and signed. */
static struct ep_str head_core(const struct head *h, char out[HEAD_BYTES])
{
    int n =
        snprintf(out, HEAD_BYTES, "{\"seq\":%llu,\"hash\":\"%.*s\",\"first\":%llu,\"timestamp\":\"%s\"}",
                 (unsigned long long)h->chain.seq, (int)HASH_HEX, h->chain.hash, (unsigned long long)h->first, h->time);

    return ep_str_n(out, (size_t)n);
}

size_t ep_audit_head_text(const struct head *h, const struct ep_signer *signer, char out[HEAD_BYTES])
{
    struct ep_str core = head_core(h, out);
    char sum[HASH_HEX], hex[2 * EP_SIGNATURE_BYTES];
    uint8_t signature[EP_SIGNATURE_BYTES];
    size_t n = core.n - 1;

    ep_sha256_hex(core, sum);
    if (signer) {
        ep_signer_sign(signer, core, signature);
        ep_hex(signature, sizeof signature, hex);
    }
    n += (size_t)snprintf(out + n, HEAD_BYTES - n, ",\"sum\":\"%.*s\"", (int)sizeof sum, sum);
    if (signer)
        n += (size_t)snprintf(out + n, HEAD_BYTES - n, ",\"signature\":\"%.*s\"", (int)sizeof hex, hex);
    n += (size_t)snprintf(out + n, HEAD_BYTES - n, "}\n");
    assert(n < HEAD_BYTES);
    return n;
}

static bool skip(struct ep_str *rest, const char *what)
{
    struct ep_str expected = ep_str(what);

    if (!ep_str_starts(*rest, expected))
        return false;
    *rest = ep_str_n(rest->p + expected.n, rest->n - expected.n);
    return true;
}

static struct ep_str up_to(struct ep_str *rest, char end)
{
    ptrdiff_t n = ep_str_find(*rest, end, 0);
    struct ep_str taken = ep_str_n(rest->p, n < 0 ? rest->n : (size_t)n);

    *rest = ep_str_n(rest->p + taken.n, rest->n - taken.n);
    return taken;
}

bool ep_audit_head_parse(struct ep_str text, const uint8_t *key, struct head *out, const char **why)
{
    struct ep_str rest = text, hash, time;
    char core[HEAD_BYTES], sum[HASH_HEX];
    uint8_t signature[EP_SIGNATURE_BYTES];
    bool is_signed;

    *why = "the head was changed";
    if (text.n >= HEAD_BYTES || !skip(&rest, "{\"seq\":") || !ep_str_u64(up_to(&rest, ','), &out->chain.seq) ||
        !skip(&rest, ",\"hash\":\"") || (hash = up_to(&rest, '"')).n != HASH_HEX || !skip(&rest, "\",\"first\":") ||
        !ep_str_u64(up_to(&rest, ','), &out->first) || !skip(&rest, ",\"timestamp\":\"") ||
        (time = up_to(&rest, '"')).n >= sizeof out->time || !skip(&rest, "\""))
        return false;
    memcpy(out->chain.hash, hash.p, HASH_HEX);
    memcpy(out->time, time.p, time.n);
    out->time[time.n] = '\0';

    struct ep_str said = head_core(out, core); /* written once more: a 007 or a NUL makes another text */
    ep_sha256_hex(said, sum);
    if (text.n < said.n || memcmp(text.p, said.p, said.n - 1) != 0 || !skip(&rest, ",\"sum\":\"") ||
        !ep_str_eq(up_to(&rest, '"'), ep_str_n(sum, sizeof sum)) || !skip(&rest, "\""))
        return false;
    is_signed = skip(&rest, ",\"signature\":\"");
    if (is_signed && (!ep_unhex(up_to(&rest, '"'), signature, sizeof signature) || !skip(&rest, "\"")))
        return false;
    if (!ep_str_eq(rest, EP_STR("}\n")))
        return false;
    if (!key)
        return true;
    *why = is_signed ? "the head's signature is not of this key" : "the head is not signed";
    return is_signed && ep_signature_good(said, signature, key);
}
