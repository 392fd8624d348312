/* The text of a constitution, as it was read: its bundle, a directory with constitution.yaml and Lua
 * (docs/constitution.md). Read and checked by proxy/config/charter.c; immutable, owned by the configuration that names it.
 * Everything that runs comes from here, never from the disk: what the digest is of is what is enforced. */
#ifndef EP_FILTER_CHARTER_H
#define EP_FILTER_CHARTER_H

#include "filter/constitution_config.h"

#define EP_CHARTER_YAML        "constitution.yaml"
#define EP_CHARTER_SIGNATURE   "constitution.sig" /* beside the text, and not part of it */
#define EP_CHARTER_FILES_MAX   256u
#define EP_CHARTER_DEPTH_MAX   8u
#define EP_CHARTER_PATH_MAX    255u
#define EP_CHARTER_FILE_BYTES  ((size_t)1 << 20)
#define EP_CHARTER_BYTES       ((size_t)8 << 20)
#define EP_CHARTER_DIGEST_TEXT 71u /* "sha256:" and 64 hex digits */

struct ep_charter_file {
    struct ep_str path; /* in the bundle: "policies/no-shell.lua"; a NUL follows */
    struct ep_str text; /* a NUL follows */
};

struct ep_charter {
    struct ep_chunk_pool chunks;
    struct ep_arena arena;   /* of all that follows */
    struct ep_str directory;
    struct ep_charter_file *files; /* by path, bytewise */
    size_t n_files, bytes;
    struct ep_str listing;       /* what the digest and the signature are of */
    struct ep_str digest;        /* "sha256:…" */
    struct ep_str signature;     /* of the file beside it, as text; empty: none */
    struct ep_str signer;        /* the public key by which it was found good; empty: not asked for */
    struct ep_str hash, version; /* as constitution.yaml says */
    struct ep_principle *principles;
    size_t n_principles;
};

/* *.lua but *_test.lua and _*.lua, in any folder. */
bool ep_charter_is_policy(struct ep_str path);
/* The principle that a policy carries out, by the lists of constitution.yaml; empty: none. */
struct ep_str ep_charter_principle_of(const struct ep_charter *c, struct ep_str policy);

#endif
