/* The table of all filters, from filters.def. */
#include "filter/filter.h"

#define X(symbol) extern const struct ep_filter ep_filter_##symbol;
#include "filters.def"
#undef X

static const struct ep_filter *const all[] = {
#define X(symbol) &ep_filter_##symbol,
#include "filters.def"
#undef X
};

const struct ep_filter *ep_filter_find(struct ep_str name)
{
    for (size_t i = 0; i < EP_COUNT(all); i++)
        if (ep_str_eq(ep_str(all[i]->name), name))
            return all[i];
    return NULL;
}

const struct ep_filter *const *ep_filter_all(size_t *n)
{
    *n = EP_COUNT(all);
    return all;
}
