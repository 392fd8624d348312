/* The schema of `audit:`. */
#include "observe/observe.h"

#define DAY_NS (86400 * EP_S)

static const struct ep_field audit_fields[] = {
    {.key = "directory",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct ep_audit_config, directory),
     .help = "Where the audit files are; made with mode 0700. Without it there is no audit."},
    {.key = "retain",
     .type = EP_TYPE_DURATION,
     .offset = offsetof(struct ep_audit_config, retain_ns),
     .preset = "365d",
     .min = (double)DAY_NS,
     .max = 36500.0 * (double)DAY_NS,
     .help = "How long files are kept; the chain is verified from the first that is left."},
    {.key = "sync",
     .type = EP_TYPE_DURATION,
     .offset = offsetof(struct ep_audit_config, sync_ns),
     .preset = "100ms",
     .max = 60.0 * (double)EP_S,
     .zero = "always",
     .help = "What a power cut may cost; `always`: nothing, answers wait for the disk. Killing ephor costs nothing."},
    {.key = "required",
     .type = EP_TYPE_BOOL,
     .offset = offsetof(struct ep_audit_config, required),
     .preset = "false",
     .help = "Refuse what can't be audited."},
    {.key = "sign",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct ep_audit_config, sign),
     .help = "A file with an Ed25519 private key (PEM) that signs the head of the chain."},
};

static void check(void *object, struct ep_checker *c)
{
    const struct ep_audit_config *config = object;

    if (config->directory.n)
        return;
    if (config->required)
        ep_check_error(c, object, "required", "needs a directory");
    if (config->sign.n)
        ep_check_error(c, object, "sign", "needs a directory");
}

const struct ep_schema ep_audit_schema =
    EP_SCHEMA("audit", "A chained record of each decision that denied, shadow-denied, redacted or changed ephor.",
              struct ep_audit_config, audit_fields, .check = check);
