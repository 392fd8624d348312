/* Reading the audit back: the form of a line, and the walk over all files that `ephor audit verify` does. */
#include <dirent.h>
#include <errno.h>
#include <openssl/sha.h>
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

void ep_audit_hash(struct ep_str text, char hex[HASH_HEX])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t digest[SHA256_DIGEST_LENGTH];

    (void)SHA256((const uint8_t *)text.p, text.n, digest);
    for (size_t i = 0; i < sizeof(digest); i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
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
    while (line.p[start.n + digits] >= '0' && line.p[start.n + digits] <= '9')
        digits++; /* ends before the tail, which has no digit in front */
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
    ep_audit_hash(ep_str_n(text, (size_t)(hash_member - line.p) + 2), hex);
    free(text);
    *why = "the record was changed: its hash is another";
    return memcmp(hex, record->hash, HASH_HEX) == 0;
}

static int is_audit_file(const struct dirent *e)
{
    struct ep_str name = ep_str(e->d_name);

    return name.n == FILE_NAME_BYTES && ep_str_starts(name, EP_STR("audit-")) && ep_str_ends(name, EP_STR(".jsonl"));
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name); /* alphasort asks the locale */
}

int ep_audit_names(const char *directory, char ***names, size_t *n)
{
    struct dirent **entries;
    int count = scandir(directory, &entries, is_audit_file, by_name);

    if (count < 0)
        return -errno;
    *n = (size_t)count;
    *names = ep_calloc((size_t)count, sizeof(char *));
    for (int i = 0; i < count; i++) {
        (*names)[i] = ep_strdup(entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return 0;
}

void ep_audit_names_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

/* The first record of all is believed: what stood before it was deleted when its time had come. */
static bool follows(const struct chain *last, const struct chain *record, const char prev[HASH_HEX], bool first,
                    const char **why)
{
    struct chain start;

    if (first && record->seq != 1)
        return true;
    ep_audit_chain_start(&start);
    if (first)
        last = &start;
    *why = "a record is missing before it, or the order was changed";
    return record->seq == last->seq + 1 && memcmp(prev, last->hash, HASH_HEX) == 0;
}

static int64_t verify_file(const char *path, struct chain *last, bool first, struct ep_error *err)
{
    FILE *f = fopen(path, "re");
    char *line = NULL, prev[HASH_HEX];
    size_t cap = 0;
    ssize_t n;
    int64_t good = 0;
    const char *why = NULL;

    if (!f) {
        (void)ep_error_set(err, "%s: %s", path, strerror(errno));
        return -1;
    }
    while (!why && (n = getline(&line, &cap, f)) > 0) {
        struct chain record = {0};
        const char *reason = "the record is cut off";

        if (line[n - 1] == '\n' && ep_audit_parse(ep_str_n(line, (size_t)n - 1), &record, prev, &reason) &&
            follows(last, &record, prev, first && good == 0, &reason)) {
            *last = record;
            good++;
        } else {
            why = reason;
        }
    }
    if (!why && ferror(f))
        why = strerror(errno);
    free(line);
    (void)fclose(f);
    if (!why)
        return good;
    (void)ep_error_set(err, "%s:%lld: %s", path, (long long)good + 1, why);
    return -1;
}

int64_t ep_audit_verify(const char *directory, struct ep_error *err)
{
    struct chain last;
    char **names;
    size_t n;
    int64_t good = 0;
    int rc = ep_audit_names(directory, &names, &n);

    if (rc < 0) {
        (void)ep_error_set(err, "%s: %s", directory, strerror(-rc));
        return -1;
    }
    ep_audit_chain_start(&last);
    for (size_t i = 0; i < n && good >= 0; i++) {
        char *path = NULL;
        int64_t more;

        if (asprintf(&path, "%s/%s", directory, names[i]) < 0)
            abort();
        more = verify_file(path, &last, good == 0, err);
        good = more < 0 ? -1 : good + more;
        free(path);
    }
    ep_audit_names_free(names, n);
    return good;
}
