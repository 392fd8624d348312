/* link: ep_observe */
/* The audit's readers: whatever stands in a file, nothing is read past its end; a line that is taken for a record is no
 * longer taken when one bit of it changes; the head is only taken when it is the very text that would be written. */
#include <stdlib.h>

#include "observe/audit.h"

#define CHECK(x) ((x) ? (void)0 : abort())

static void members(struct ep_str text)
{
    struct ep_str rest = text, key, value, inner_rest, inner_key, inner;
    char out[256];

    for (unsigned i = 0; i < 1000 && ep_json_next(&rest, &key, &value); i++) {
        CHECK(value.n > 0 && value.p >= text.p && value.p + value.n <= text.p + text.n);
        CHECK(ep_json_plain(value, out, sizeof out) <= sizeof out);
        inner_rest = value;
        for (unsigned k = 0; k < 100 && ep_json_next(&inner_rest, &inner_key, &inner); k++)
            CHECK(inner.p + inner.n <= value.p + value.n);
    }
    (void)ep_json_member(text, "metadata.listener");
    (void)ep_json_member(text, "reason");
}

static void line(struct ep_str text, unsigned char seed)
{
    char prev[HASH_HEX], *copy;
    struct chain record;
    const char *why = NULL;
    size_t at;

    members(text);
    if (!ep_audit_parse(text, &record, prev, &why)) {
        CHECK(why && *why);
        return;
    }
    at = (size_t)seed * 7919 % text.n;
    copy = ep_strndup(text.p, text.n);
    copy[at] = (char)(copy[at] ^ (1 << (seed & 7)));
    CHECK(!ep_audit_parse(ep_str_n(copy, text.n), &record, prev, &why));
    free(copy);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    struct ep_str rest = ep_str_n(data, n);
    char again[HEAD_BYTES], *exact = ep_malloc(n + 1); /* so that ASan sees one byte too far */
    struct head head;
    const char *why;

    memcpy(exact, data, n);
    exact = ep_realloc(exact, n ? n : 1);
    rest.p = exact;
    if (ep_audit_head_parse(rest, NULL, &head, &why) && ep_str_search(rest, EP_STR("signature")) < 0)
        CHECK(ep_str_eq(rest, ep_str_n(again, ep_audit_head_text(&head, NULL, again))));
    while (rest.n) {
        const char *newline = memchr(rest.p, '\n', rest.n);
        size_t length = newline ? (size_t)(newline - rest.p) : rest.n;
        line(ep_str_n(rest.p, length), n ? data[n / 2] : 0);
        length += newline != NULL;
        rest = ep_str_n(rest.p + length, rest.n - length);
    }
    free(exact);
    return 0;
}
