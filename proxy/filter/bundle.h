/* The text of a constitution, as it was read: a directory with constitution.yaml and Lua (docs/constitution.md). Read and
 * checked by proxy/config/bundle.c; immutable, owned by the configuration that names it. */
#ifndef EP_FILTER_BUNDLE_H
#define EP_FILTER_BUNDLE_H

#include "filter/constitution_config.h"

#define EP_BUNDLE_DIGEST_BYTES 71u /* "sha256:" and 64 hex digits */

struct ep_bundle_file {
    struct ep_str path; /* in the bundle: "policies/no-shell.lua" */
    struct ep_str text; /* the bytes that the digest is of; a NUL follows */
};

struct ep_bundle {
    struct ep_str directory;
    struct ep_str digest;        /* "sha256:…" of the canonical listing */
    struct ep_str hash, version; /* as constitution.yaml says */
    struct ep_str signer;        /* the public key by which the signature was found good; empty: not asked for */
    struct ep_bundle_file *files; /* sorted by path; constitution.yaml among them */
    size_t n_files;
    struct ep_principle *principles;
    size_t n_principles;
};

/* The principle that a policy carries out, by the lists of constitution.yaml; empty: none. */
struct ep_str ep_bundle_principle_of(const struct ep_bundle *b, struct ep_str policy);

#endif
