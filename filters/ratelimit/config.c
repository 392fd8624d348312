/* The schema of `ratelimit`, and how a rate is written. */
#include "ratelimit/ratelimit.h"

#include "meter/meter.h"

#define MATCH(member) offsetof(struct ep_ratelimit_match, member)
#define LIMIT(member) offsetof(struct ep_ratelimit_limit, member)
#define ALL(member)   offsetof(struct ep_ratelimit_config, member)

#define COUNT_MAX 1000000000000000000u
#define PER_MAX   (366ull * 86400 * EP_S)

const char *const ep_ratelimit_kind_names[] = {"requests", "bytes", "tokens", "cost", NULL};

static const char *const key_names[] = {"principal", "tenant", "agent", "session", "protocol", "service", "method",
                                        "tool",      "model",  "host",  "path",    "route",    "address"};

#define GLOBS(key_, member, help_)                                                                                     \
    {                                                                                                                  \
        .key = (key_), .type = EP_TYPE_LIST, .item = EP_TYPE_STR, .offset = MATCH(member), .help = (help_)             \
    }
static const struct ep_field match_fields[] = {
    GLOBS("principals", principals, "Verified SPIFFE IDs of callers (globs)."),
    GLOBS("tenants", tenants, "Tenants (globs)."),
    GLOBS("agents", agents, "Agents, as messages of the agent bus name them (globs)."),
    GLOBS("protocols", protocols, "Protocols of the call (globs): mcp, openai, grpc, http …"),
    GLOBS("methods", methods, "Methods of the call (globs): tools/call; of plain HTTP the HTTP method."),
    GLOBS("tools", tools, "Tools, and skills of A2A (globs)."),
    GLOBS("models", models, "Language models (globs)."),
    GLOBS("hosts", hosts, "Authority without port (globs)."),
    GLOBS("paths", paths, "Path without query (globs)."),
};
static const struct ep_schema match_schema =
    EP_SCHEMA("ratelimit.match", "Which calls a limit counts; everything given must hold.", struct ep_ratelimit_match,
              match_fields, .check = NULL);

static const char *const modes[] = {"enforce", "shadow", "off", NULL};
static const char *const scopes[] = {"listener", "pod", NULL};

static const struct ep_field limit_fields[] = {
    {.key = "name",
     .type = EP_TYPE_STR,
     .offset = LIMIT(name),
     .required = true,
     .help = "In metrics, the audit, refusals and RateLimit headers."},
    {.key = "key",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STR,
     .offset = LIMIT(key),
     .help = "What calls share a bucket by: principal, tenant, agent, session, protocol, service, method, tool, model, "
             "host, path, "
             "route, address, header:NAME. None: all share one."},
    {.key = "match",
     .type = EP_TYPE_STRUCT,
     .offset = LIMIT(match),
     .sub = &match_schema,
     .help = "Which calls it counts; empty: all."},
    {.key = "requests",
     .type = EP_TYPE_STR,
     .offset = LIMIT(rates[EP_RATELIMIT_REQUESTS]),
     .help = "Calls in a time: 100/s, 10/1m. Each call of a JSON-RPC batch is one."},
    {.key = "bytes",
     .type = EP_TYPE_STR,
     .offset = LIMIT(rates[EP_RATELIMIT_BYTES]),
     .help = "Bytes of body, both ways: 10MiB/s."},
    {.key = "tokens",
     .type = EP_TYPE_STR,
     .offset = LIMIT(rates[EP_RATELIMIT_TOKENS]),
     .help = "Tokens of language models, read and written: 100000/1m. Needs the filter meter."},
    {.key = "cost",
     .type = EP_TYPE_STR,
     .offset = LIMIT(rates[EP_RATELIMIT_COST]),
     .help = "Money for language models, by the prices of the filter meter: 5/1d, 0.50/1h."},
    {.key = "burst",
     .type = EP_TYPE_STR,
     .offset = LIMIT(burst_text),
     .help =
         "How much may be taken at once after a pause, in the same unit. Default: what the rate allows in its time."},
    {.key = "status",
     .type = EP_TYPE_INT,
     .offset = LIMIT(status),
     .preset = "429",
     .min = 400,
     .max = 599,
     .help = "HTTP status of a refusal, where the caller's protocol has one."},
    {.key = "mode",
     .type = EP_TYPE_ENUM,
     .offset = LIMIT(mode),
     .preset = "enforce",
     .names = modes,
     .help = "shadow: decided, counted and audited, but let pass."},
    {.key = "scope",
     .type = EP_TYPE_ENUM,
     .offset = LIMIT(scope),
     .preset = "listener",
     .names = scopes,
     .help = "pod: the limit of this name is one for all listeners that define it alike."},
};

/* --- rates --- */

static bool amount(enum ep_ratelimit_kind kind, struct ep_str text, uint64_t *out)
{
    text = ep_str_trim(text);
    switch (kind) {
    case EP_RATELIMIT_BYTES:
        return ep_parse_size(text, out) && *out <= COUNT_MAX;
    case EP_RATELIMIT_COST:
        return ep_parse_nano(text, out) && *out <= COUNT_MAX;
    default:
        return ep_str_u64(text, out) && *out <= COUNT_MAX;
    }
}

bool ep_ratelimit_rate(enum ep_ratelimit_kind kind, struct ep_str text, uint64_t *count, uint64_t *per_ns)
{
    ptrdiff_t slash = ep_str_find(text, '/', 0);
    struct ep_str per;
    char one[16] = "1";

    if (slash < 0 || !amount(kind, ep_str_n(text.p, (size_t)slash), count) || !*count)
        return false;
    per = ep_str_trim(ep_str_n(text.p + slash + 1, text.n - (size_t)slash - 1));
    if (per.n && per.n < sizeof one - 1 && (per.p[0] < '0' || per.p[0] > '9')) { /* "/s" is "/1s" */
        memcpy(one + 1, per.p, per.n);
        per = ep_str_n(one, per.n + 1);
    }
    return ep_parse_duration(per, per_ns) && *per_ns && *per_ns <= PER_MAX;
}

/* --- checks --- */

static void check_name(struct ep_ratelimit_limit *l, struct ep_checker *c)
{
    bool good = l->name.n > 0 && l->name.n <= 64;

    for (size_t i = 0; good && i < l->name.n; i++)
        good = l->name.p[i] > ' ' && l->name.p[i] < 0x7f && !strchr("\"\\", l->name.p[i]);
    if (!good)
        ep_check_error(c, l, "name", "a name is at most 64 visible characters, without quotes and backslashes");
}

static void check_rate(struct ep_ratelimit_limit *l, struct ep_checker *c)
{
    static const char *const examples[] = {"100/s or 10/1m", "10MiB/s", "100000/1m", "5/1d or 0.50/1h"};
    unsigned given = 0;

    for (unsigned k = 0; k < EP_RATELIMIT_KINDS; k++) {
        if (!l->rates[k].n)
            continue;
        l->kind = (enum ep_ratelimit_kind)k;
        given++;
    }
    if (given != 1) {
        ep_check_error(c, l, given ? ep_ratelimit_kind_names[l->kind] : "name",
                       "a limit counts one thing: give one of requests, bytes, tokens and cost%s",
                       given ? ", and the others a limit of their own" : "");
        return;
    }
    const char *key = ep_ratelimit_kind_names[l->kind];
    if (!ep_ratelimit_rate(l->kind, l->rates[l->kind], &l->rate.count, &l->rate.per_ns)) {
        ep_check_error(c, l, key, "'%.*s' is no rate: write how many in which time (at most 366d), %s",
                       EP_STR_ARG(l->rates[l->kind]), examples[l->kind]);
        return;
    }
    l->rate.burst = l->rate.count;
    if (l->burst_text.n && (!amount(l->kind, l->burst_text, &l->rate.burst) || !l->rate.burst))
        ep_check_error(c, l, "burst", "'%.*s' is no number of %s over 0", EP_STR_ARG(l->burst_text), key);
    else if (ep_limit_time(&l->rate, l->rate.burst) >= EP_LIMIT_DEBT_MAX)
        ep_check_error(c, l, l->burst_text.n ? "burst" : key, "takes more than 366d to come again");
}

static bool has_upper(struct ep_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] >= 'A' && s.p[i] <= 'Z')
            return true;
    return false;
}

static bool take_part(struct ep_ratelimit_limit *l, struct ep_str text, struct ep_checker *c)
{
    struct ep_ratelimit_part *part = &l->parts[l->n_parts];
    const char *near;

    if (ep_str_starts(text, EP_STR("header:"))) {
        *part = (struct ep_ratelimit_part){EP_BY_HEADER, ep_str_n(text.p + 7, text.n - 7)};
        if (!ep_header_name_valid(part->header) || has_upper(part->header))
            ep_check_error(c, l, "key", "'%.*s' names no header; names are in lower case", EP_STR_ARG(text));
        return true;
    }
    for (unsigned i = 0; i < EP_COUNT(key_names); i++) {
        if (!ep_str_eq(text, ep_str(key_names[i])))
            continue;
        *part = (struct ep_ratelimit_part){.by = (enum ep_ratelimit_by)i};
        l->needs_identity |= part->by == EP_BY_PRINCIPAL;
        l->needs_call |= part->by >= EP_BY_TENANT && part->by <= EP_BY_MODEL;
        return true;
    }
    near = ep_nearest(text, key_names, EP_COUNT(key_names));
    ep_check_error(c, l, "key", "there is no key '%.*s'%s%s%s", EP_STR_ARG(text), near ? "; did you mean '" : "",
                   near ? near : "", near ? "'?" : "");
    return false;
}

static void check_limit(void *object, struct ep_checker *c)
{
    struct ep_ratelimit_limit *l = object;
    const struct ep_ratelimit_match *m = &l->match;
    const struct ep_str *key = l->key.v;

    check_name(l, c);
    check_rate(l, c);
    if (l->key.n > EP_RATELIMIT_PARTS)
        ep_check_error(c, l, "key", "has more than %u parts", EP_RATELIMIT_PARTS);
    for (size_t i = 0; i < l->key.n && l->n_parts < EP_RATELIMIT_PARTS; i++)
        l->n_parts += take_part(l, key[i], c);
    l->needs_identity |= m->principals.n > 0;
    l->needs_call |= m->tenants.n || m->agents.n || m->protocols.n || m->methods.n || m->tools.n || m->models.n ||
                     l->kind >= EP_RATELIMIT_TOKENS;
}

static const struct ep_schema limit_schema = EP_SCHEMA("ratelimit.limit", "One limit: a token bucket for each key.",
                                                       struct ep_ratelimit_limit, limit_fields, .check = check_limit);

static const char *const header_modes[] = {"refused", "always", "never", NULL};

static const struct ep_field fields[] = {
    {.key = "limits",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STRUCT,
     .offset = ALL(limits),
     .sub = &limit_schema,
     .required = true,
     .help = "All that match a call are asked, in order; the first that is used up refuses it, and then none has taken "
             "anything."},
    {.key = "mode",
     .type = EP_TYPE_ENUM,
     .offset = ALL(mode),
     .preset = "enforce",
     .names = modes,
     .help = "shadow or off: for all limits, whatever theirs is."},
    {.key = "headers",
     .type = EP_TYPE_ENUM,
     .offset = ALL(headers),
     .preset = "refused",
     .names = header_modes,
     .help = "On which answers RateLimit and RateLimit-Policy stand."},
    {.key = "reserve",
     .type = EP_TYPE_INT,
     .offset = ALL(reserve),
     .preset = "1000",
     .max = 1e9,
     .help = "Tokens that are reserved for an answer when the request doesn't say how long it may be."},
};

static void check(void *object, struct ep_checker *c)
{
    const struct ep_ratelimit_config *r = object;
    const struct ep_ratelimit_limit *l = r->limits.v;

    if (r->limits.n == 0 || r->limits.n > EP_RATELIMIT_MAX)
        ep_check_error(c, object, "limits", "give 1 to %u limits", EP_RATELIMIT_MAX);
    for (size_t i = 0; i < r->limits.n; i++)
        for (size_t k = 0; k < i; k++)
            if (ep_str_eq(l[i].name, l[k].name)) {
                ep_check_error(c, &l[i], "name", "another limit is named '%.*s' too", EP_STR_ARG(l[i].name));
                break;
            }
}

const struct ep_schema ep_ratelimit_schema =
    EP_SCHEMA("ratelimit", "Limits on calls, bytes, tokens and money, for the whole pod.", struct ep_ratelimit_config,
              fields, .check = check);
