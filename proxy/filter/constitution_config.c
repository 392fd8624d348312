/* The schema of `constitution:`. */
#include "filter/constitution_config.h"

#define AT(member) offsetof(struct ep_constitution_config, member)

static const char *const modes[] = {"enforce", "shadow", "off", NULL};

static const struct ep_field fields[] = {
    {.key = "hash",
     .type = EP_TYPE_STR,
     .offset = AT(hash),
     .help = "The hash that messages name in x-constitutional-hash."},
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
};

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

    if (config->hash.n && !hash_good(config->hash))
        ep_check_error(c, object, "hash", "a hash is 8 to 128 visible characters");
    if (!config->hash.n && (config->strict || config->accept.n))
        ep_check_error(c, object, "hash", "strict and accept need a hash");
    for (size_t i = 0; i < config->accept.n; i++)
        if (!hash_good(accept[i]))
            ep_check_error(c, object, "accept", "a hash is 8 to 128 visible characters");
}

const struct ep_schema ep_constitution_schema =
    EP_SCHEMA("constitution", "The constitution that requests must name.", struct ep_constitution_config, fields,
              .short_key = "hash", .check = check);
