/* The text of a policies' directory, taken at one moment.
 *
 * Everything that runs comes from a bundle, never from the disk: all workers run the same text, a `require` in the middle
 * of a call reads no file, and what was good stays good when the directory changes, breaks or is gone. Immutable and
 * counted atomically: the main thread, the thread that checks and every worker's set hold it. */
#ifndef EP_LUA_BUNDLE_H
#define EP_LUA_BUNDLE_H

#include <stdatomic.h>

#include "base/base.h"

#define EP_POLICY_BUNDLE_FILES_MAX  1024u
#define EP_POLICY_BUNDLE_BYTES_MAX  ((size_t)16 << 20)
#define EP_POLICY_BUNDLE_DIGEST_HEX 64u

struct ep_policy_bundle_file {
    struct ep_str name; /* "a.lua"; of a library in a folder "folder/a.lua". NUL-terminated */
    struct ep_str text; /* NUL-terminated */
};

struct ep_policy_bundle {
    atomic_uint refs;
    struct ep_policy_bundle_file *files; /* by name, bytewise */
    unsigned n, n_policies;
    size_t bytes;
    char digest[EP_POLICY_BUNDLE_DIGEST_HEX + 1];    /* SHA-256 of all names and texts */
    char libraries[EP_POLICY_BUNDLE_DIGEST_HEX + 1]; /* of what is no policy and no test */
};

/* Reads every *.lua of the directory, and of folders in it. Links to files are followed, links to folders are not; names
 * with a dot in front are left out. A directory that changes meanwhile (the swap of a ConfigMap) is read again. NULL with
 * err, which names the file. */
struct ep_policy_bundle *ep_policy_bundle_read(const char *directory, struct ep_error *err);
struct ep_policy_bundle *ep_policy_bundle_empty(void);
/* A bundle as one text, and back; for the state directory. The text is malloc'd. NULL with err when it is damaged. */
char *ep_policy_bundle_print(const struct ep_policy_bundle *b, size_t *n);
struct ep_policy_bundle *ep_policy_bundle_parse(struct ep_str text, struct ep_error *err);
struct ep_policy_bundle *ep_policy_bundle_ref(struct ep_policy_bundle *b);
void ep_policy_bundle_unref(struct ep_policy_bundle *b); /* any thread; NULL is fine */

const struct ep_policy_bundle_file *ep_policy_bundle_find(const struct ep_policy_bundle *b, struct ep_str name);
/* *.lua but *_test.lua and _*.lua, and in no folder. */
bool ep_policy_bundle_is_policy(struct ep_str name);
bool ep_policy_bundle_is_test(struct ep_str name);
/* What makes a policy the one it is: its text and those of all libraries. */
void ep_policy_bundle_digest(const struct ep_policy_bundle *b, const struct ep_policy_bundle_file *f,
                             char hex[EP_POLICY_BUNDLE_DIGEST_HEX + 1]);

#endif
