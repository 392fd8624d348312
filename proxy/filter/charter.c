/* Looking things up in the text of a constitution. Lists are short: a handful of principles. */
#include "filter/charter.h"

const struct ep_principle *ep_constitution_principle(const struct ep_constitution_config *c, struct ep_str id)
{
    const struct ep_charter *text = c ? c->charter : NULL;

    for (size_t i = 0; text && id.n && i < text->n_principles; i++)
        if (ep_str_eq(text->principles[i].id, id))
            return &text->principles[i];
    return NULL;
}

struct ep_str ep_charter_principle_of(const struct ep_charter *c, struct ep_str policy)
{
    for (size_t i = 0; i < c->n_principles; i++) {
        const struct ep_str *names = c->principles[i].policies.v;
        for (size_t k = 0; k < c->principles[i].policies.n; k++)
            if (ep_str_eq(names[k], policy))
                return c->principles[i].id;
    }
    return (struct ep_str){NULL, 0};
}

bool ep_charter_is_policy(struct ep_str path)
{
    struct ep_str name = path, part;

    while (ep_str_next(&path, '/', &part))
        name = part;
    return name.n && name.p[0] != '_' && ep_str_ends(name, EP_STR(".lua")) && !ep_str_ends(name, EP_STR("_test.lua"));
}

const char *ep_constitution_peer_name(enum ep_peer_constitution p)
{
    static const char *const names[] = {[EP_PEER_CONSTITUTION_UNKNOWN] = "unknown",
                                        [EP_PEER_CONSTITUTION_SAME] = "same",
                                        [EP_PEER_CONSTITUTION_OTHER] = "other"};

    return names[p];
}
