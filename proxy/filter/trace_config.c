/* The schema of `tracing:`. */
#include "filter/trace.h"

static const char *const decisions_names[] = {"always", "sampled", NULL};

static const struct ep_field fields[] = {
    {.key = "otlp",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct ep_tracing_config, otlp),
     .help = "URL of the collector that spans are sent to, as OTLP over HTTP: http://otel-collector:4318; /v1/traces is "
             "added. Without it there are no spans."},
    {.key = "roots",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct ep_tracing_config, roots),
     .help = "PEM file of the roots to trust, for https; without it the system's."},
    {.key = "sample",
     .type = EP_TYPE_PERCENT,
     .offset = offsetof(struct ep_tracing_config, sample),
     .preset = "0%",
     .max = 100,
     .help = "Of the requests that come without a traceparent, the share that is traced. Of the others the caller has "
             "decided, by its sampled flag."},
    {.key = "decisions",
     .type = EP_TYPE_ENUM,
     .offset = offsetof(struct ep_tracing_config, decisions),
     .preset = "always",
     .names = decisions_names,
     .help = "always: a request that was denied, shadow-denied, changed by a policy or failed has a span whatever the sample "
             "says; sampled: like any other."},
};

static void check(void *object, struct ep_checker *c)
{
    const struct ep_tracing_config *t = object;
    struct ep_collector parts;
    bool good = ep_collector_parse(t->otlp, &parts);

    if (t->otlp.n && !good)
        ep_check_error(c, object, "otlp", "'%.*s' is no URL such as http://otel-collector:4318", EP_STR_ARG(t->otlp));
    if (t->roots.n && !(good && parts.https))
        ep_check_error(c, object, "roots", "is for a collector at https://");
}

const struct ep_schema ep_tracing_schema =
    EP_SCHEMA("tracing", "Distributed traces: docs/tracing.md.", struct ep_tracing_config, fields, .check = check);
