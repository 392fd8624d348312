/* The form of an audit record and of its files; for audit.c and audit_verify.c only.
 *
 * One line is
 *     {"seq":7,"time":"…","event":"decision",…,"prev":"<64 hex>","hash":"<64 hex>"}
 * with members in the order written, no white space, and SHA-256 over the line without `,"hash":"…"`. prev is the
 * hash of the record before, 64 zeros in the first. Files are audit-YYYY-MM-DD.jsonl; their names in order are the
 * order of the chain. */
#ifndef EP_OBSERVE_AUDIT_H
#define EP_OBSERVE_AUDIT_H

#include "observe/observe.h"

#define HASH_HEX        64u
#define FILE_NAME_BYTES 22u /* "audit-2026-11-24.jsonl" */

struct chain {
    uint64_t seq;
    char hash[HASH_HEX];
};

/* The state before the first record. */
void ep_audit_chain_start(struct chain *c);
void ep_audit_hash(struct ep_str text, char hex[HASH_HEX]);
/* Reads a line (without newline) whose own hash is right. False with the reason. */
bool ep_audit_parse(struct ep_str line, struct chain *record, char prev[HASH_HEX], const char **why);
/* Names of the audit files of a directory, sorted; freed by ep_audit_names_free. -errno on failure. */
int ep_audit_names(const char *directory, char ***names, size_t *n);
void ep_audit_names_free(char **names, size_t n);

#endif
