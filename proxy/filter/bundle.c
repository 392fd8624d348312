/* Looking things up in the text of a constitution. Lists are short: a handful of principles. */
#include "filter/bundle.h"

const struct ep_principle *ep_constitution_principle(const struct ep_constitution_config *c, struct ep_str id)
{
    const struct ep_bundle *b = c ? c->bundle : NULL;

    for (size_t i = 0; b && id.n && i < b->n_principles; i++)
        if (ep_str_eq(b->principles[i].id, id))
            return &b->principles[i];
    return NULL;
}

struct ep_str ep_bundle_principle_of(const struct ep_bundle *b, struct ep_str policy)
{
    for (size_t i = 0; i < b->n_principles; i++)
        for (size_t k = 0; k < b->principles[i].n_policies; k++)
            if (ep_str_eq(b->principles[i].policies[k], policy))
                return b->principles[i].id;
    return (struct ep_str){NULL, 0};
}

const char *ep_constitution_peer_name(enum ep_peer_constitution p)
{
    static const char *const names[] = {[EP_PEER_CONSTITUTION_UNKNOWN] = "unknown",
                                        [EP_PEER_CONSTITUTION_SAME] = "same",
                                        [EP_PEER_CONSTITUTION_OTHER] = "other"};

    return names[p];
}
