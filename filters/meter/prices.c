/* The price list of the filter `meter`: what a token of a model costs. Money is counted in whole billionths, so that
 * sums are exact; what a call costs is rounded up to one. */
#include "meter/meter.h"

#include "filter/chain.h"

#define PRICE(member) offsetof(struct ep_price, member)

__extension__ typedef unsigned __int128 u128;

bool ep_parse_nano(struct ep_str text, uint64_t *out)
{
    ptrdiff_t point = ep_str_find(text, '.', 0);
    struct ep_str whole = point < 0 ? text : ep_str_n(text.p, (size_t)point);
    struct ep_str part = point < 0 ? EP_STR("0") : ep_str_n(text.p + point + 1, text.n - (size_t)point - 1);
    uint64_t units, fraction;

    if (!ep_str_u64(whole, &units) || part.n > 9 || !ep_str_u64(part, &fraction))
        return false;
    for (size_t i = part.n; i < 9; i++)
        fraction *= 10;
    return !__builtin_mul_overflow(units, (uint64_t)EP_S, &units) && !__builtin_add_overflow(units, fraction, out);
}

static const struct ep_field price_fields[] = {
    {.key = "model",
     .type = EP_TYPE_STR,
     .offset = PRICE(model),
     .required = true,
     .help = "The model, as requests name it (glob)."},
    {.key = "input",
     .type = EP_TYPE_STR,
     .offset = PRICE(input_text),
     .required = true,
     .help = "For what the model reads: 2.50."},
    {.key = "output",
     .type = EP_TYPE_STR,
     .offset = PRICE(output_text),
     .preset = "0",
     .help = "For what it writes, reasoning too; nothing for embeddings."},
    {.key = "cached",
     .type = EP_TYPE_STR,
     .offset = PRICE(cached_text),
     .help = "For what it reads from its cache. Default: as input."},
    {.key = "cache_write",
     .type = EP_TYPE_STR,
     .offset = PRICE(cache_write_text),
     .help = "For what it writes into its cache. Default: as input."},
    {.key = "per",
     .type = EP_TYPE_STR,
     .offset = PRICE(per_text),
     .preset = "1M",
     .help = "For so many tokens: 1, 1K or 1M."},
};

static void check_price(void *object, struct ep_checker *c)
{
    struct ep_price *p = object;
    const struct {
        const char *key;
        struct ep_str text;
        uint64_t *to;
    } rows[] = {
        {"input", p->input_text, &p->input},
        {"output", p->output_text, &p->output},
        {"cached", p->cached_text.n ? p->cached_text : p->input_text, &p->cached},
        {"cache_write", p->cache_write_text.n ? p->cache_write_text : p->input_text, &p->cache_write},
    };

    for (size_t i = 0; i < EP_COUNT(rows); i++)
        if (!ep_parse_nano(rows[i].text, rows[i].to) || *rows[i].to > EP_S * EP_S)
            ep_check_error(c, object, rows[i].key,
                           "'%.*s' is no price: a number with at most nine digits behind the point",
                           EP_STR_ARG(rows[i].text));
    p->per = ep_str_eq(p->per_text, EP_STR("1M"))   ? 1000000
             : ep_str_eq(p->per_text, EP_STR("1K")) ? 1000
             : ep_str_eq(p->per_text, EP_STR("1"))  ? 1
                                                    : 0;
    if (!p->per)
        ep_check_error(c, object, "per", "'%.*s' is none of 1, 1K, 1M", EP_STR_ARG(p->per_text));
}

static const struct ep_schema price_schema =
    EP_SCHEMA("meter.price", "What the tokens of a model cost.", struct ep_price, price_fields, .check = check_price);

static const struct ep_field fields[] = {
    {.key = "prices",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STRUCT,
     .offset = offsetof(struct ep_meter_config, prices),
     .sub = &price_schema,
     .help = "The first that fits a model counts; one that none fits is counted as unpriced. In any currency, but all "
             "in one."},
};
const struct ep_schema ep_meter_schema = EP_SCHEMA("meter", "Tokens, their cost, and calls of tools, by who asks.",
                                                   struct ep_meter_config, fields, .check = NULL);

const struct ep_price *ep_price_of(const struct ep_meter_config *c, struct ep_str model)
{
    const struct ep_price *p = c ? c->prices.v : NULL;

    for (size_t i = 0; p && i < c->prices.n; i++)
        if (ep_str_glob(p[i].model, model))
            return &p[i];
    return NULL;
}

uint64_t ep_price_cost(const struct ep_price *p, const struct ep_usage *u)
{
    uint64_t cached = EP_MIN(u->cached, u->input), written = EP_MIN(u->cache_write, u->input - cached);
    u128 sum = (u128)(u->input - cached - written) * p->input + (u128)cached * p->cached +
               (u128)written * p->cache_write + (u128)u->output * p->output;

    sum = (sum + p->per - 1) / p->per;
    return sum > UINT64_MAX ? UINT64_MAX : (uint64_t)sum;
}

const struct ep_meter_config *ep_meter_config_of(const struct ep_listener_config *c)
{
    const struct ep_filter_use *use = c->filters.v;

    for (size_t i = 0; i < c->filters.n; i++)
        if (ep_str_eq(use[i].name, EP_STR("meter")))
            return use[i].config;
    return NULL;
}
