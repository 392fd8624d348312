/* The schema of `constitution:`. */
#include "filter/constitution_config.h"

#include "observe/signature.h"

#define AT(member) offsetof(struct ep_constitution_config, member)

static const char *const modes[] = {"enforce", "shadow", "off", NULL};

static const struct ep_field signature_fields[] = {
    {.key = "key",
     .type = EP_TYPE_STR,
     .required = true,
     .offset = offsetof(struct ep_constitution_signature, key),
     .help = "The public key, ed25519: and 32 bytes in base64."},
};
static const struct ep_schema signature_schema =
    EP_SCHEMA("signature", "By whom the constitution's bundle must be signed.", struct ep_constitution_signature,
              signature_fields, .short_key = "key", .check = NULL);

static const struct ep_field fields[] = {
    {.key = "hash",
     .type = EP_TYPE_STR,
     .offset = AT(hash),
     .help = "The hash that messages name in x-constitutional-hash. With a bundle it may be left out: the bundle says it."},
    {.key = "mode",
     .type = EP_TYPE_ENUM,
     .offset = AT(mode),
     .preset = "enforce",
     .names = modes,
     .help = "enforce: a mismatch is refused. shadow: it is counted and passes. off: nothing is looked at or stamped."},
    {.key = "strict",
     .type = EP_TYPE_BOOL,
     .offset = AT(strict),
     .preset = "false",
     .help = "Refuse requests that name no hash at all; else they are counted and pass."},
    {.key = "accept",
     .type = EP_TYPE_LIST,
     .offset = AT(accept),
     .item = EP_TYPE_STR,
     .help = "Other hashes that are good too, while a new constitution rolls out."},
    {.key = "bundle",
     .type = EP_TYPE_STR,
     .offset = AT(bundle),
     .help = "Directory with the constitution's text: constitution.yaml and the policies that carry it out. Watched."},
    {.key = "digest",
     .type = EP_TYPE_STR,
     .offset = AT(digest),
     .help = "sha256:… of the bundle (`ephor constitution digest`): another text is never loaded."},
    {.key = "signature",
     .type = EP_TYPE_OPTIONAL,
     .offset = AT(signature),
     .sub = &signature_schema,
     .help = "The bundle must be signed: constitution.sig in it, by `ephor constitution sign`."},
};

static bool digest_good(struct ep_str s)
{
    uint8_t bytes[32];

    return ep_str_starts(s, EP_STR("sha256:")) && ep_unhex(ep_str_n(s.p + 7, s.n - 7), bytes, sizeof bytes);
}

static bool hash_good(struct ep_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= 0x20 || (unsigned char)s.p[i] >= 0x7f)
            return false;
    return s.n >= 8 && s.n <= 128;
}

static void check(void *object, struct ep_checker *c)
{
    const struct ep_constitution_config *config = object;
    const struct ep_str *accept = config->accept.v;
    uint8_t key[EP_PUBLIC_KEY_BYTES];

    if (config->hash.n && !hash_good(config->hash))
        ep_check_error(c, object, "hash", "a hash is 8 to 128 visible characters");
    if (!config->hash.n && !config->bundle.n && (config->strict || config->accept.n))
        ep_check_error(c, object, "hash", "strict and accept need a hash");
    for (size_t i = 0; i < config->accept.n; i++)
        if (!hash_good(accept[i]))
            ep_check_error(c, object, "accept", "a hash is 8 to 128 visible characters");
    if (!config->bundle.n && config->digest.n)
        ep_check_error(c, object, "digest", "needs a bundle");
    if (!config->bundle.n && config->signature)
        ep_check_error(c, object, "signature", "needs a bundle");
    if (config->digest.n && !digest_good(config->digest))
        ep_check_error(c, object, "digest", "a digest is sha256: and 64 lower-case hex digits");
    if (config->signature && !ep_public_key_parse(config->signature->key, key))
        ep_check_error(c, config->signature, "key", "a public key is ed25519: and 32 bytes in base64");
}

const struct ep_schema ep_constitution_schema =
    EP_SCHEMA("constitution", "The constitution that requests must name.", struct ep_constitution_config, fields,
              .short_key = "hash", .check = check);
