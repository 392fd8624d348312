/* The schema of `chaos:`, with the limits that hold whatever is asked: a duration of an hour at most, delays of a
 * minute, and a blast radius even where none is given. DESIGN.md section 12. */
#include "filter/chaos_config.h"

#define MATCH(member)      offsetof(struct ep_chaos_match, member)
#define DELAY(member)      offsetof(struct ep_chaos_delay, member)
#define ABORT(member)      offsetof(struct ep_chaos_abort, member)
#define RADIUS(member)     offsetof(struct ep_chaos_radius, member)
#define EXPERIMENT(member) offsetof(struct ep_chaos_experiment, member)
#define CHAOS(member)      offsetof(struct ep_chaos_config, member)

#define DELAY_MAX    (60.0 * (double)EP_S)
#define DURATION_MAX (3600.0 * (double)EP_S)

static const char *const directions[] = {"any", "inbound", "outbound", NULL};
static const char *const distributions[] = {"fixed", "uniform", "exponential", "pareto", NULL};

static const struct ep_field match_fields[] = {
    {.key = "direction",
     .type = EP_TYPE_ENUM,
     .offset = MATCH(direction),
     .preset = "any",
     .names = directions,
     .help = "Requests to the app beside us, from it, or both."},
    {.key = "cluster", .type = EP_TYPE_STR, .offset = MATCH(cluster), .help = "Where the request goes (glob)."},
    {.key = "protocol",
     .type = EP_TYPE_STR,
     .offset = MATCH(protocol),
     .help = "Protocol of the call (glob): mcp, grpc…"},
    {.key = "method",
     .type = EP_TYPE_STR,
     .offset = MATCH(method),
     .help = "Method of the call (glob): tools/call; of plain HTTP the HTTP method."},
    {.key = "tool", .type = EP_TYPE_STR, .offset = MATCH(tool), .help = "Tool of the call (glob)."},
    {.key = "model", .type = EP_TYPE_STR, .offset = MATCH(model), .help = "Language model that is asked (glob)."},
    {.key = "path", .type = EP_TYPE_STR, .offset = MATCH(path), .help = "Path without query (glob)."},
    {.key = "principal",
     .type = EP_TYPE_STR,
     .offset = MATCH(principal),
     .help = "Verified SPIFFE ID of the caller (glob)."},
};
static const struct ep_schema match_schema =
    EP_SCHEMA("chaos.match", "Which requests an experiment is about; everything given must hold.",
              struct ep_chaos_match, match_fields, .check = NULL);

static const struct ep_field delay_fields[] = {
    {.key = "distribution",
     .type = EP_TYPE_ENUM,
     .offset = DELAY(distribution),
     .preset = "fixed",
     .names = distributions,
     .help = "fixed: always the same. uniform: minimum to maximum. exponential: around a mean. pareto: a long tail."},
    {.key = "fixed",
     .type = EP_TYPE_DURATION,
     .offset = DELAY(fixed_ns),
     .preset = "0",
     .max = DELAY_MAX,
     .help = "The delay of `fixed`."},
    {.key = "minimum",
     .type = EP_TYPE_DURATION,
     .offset = DELAY(minimum_ns),
     .preset = "0",
     .max = DELAY_MAX,
     .help = "No delay is shorter; of pareto, the scale."},
    {.key = "maximum",
     .type = EP_TYPE_DURATION,
     .offset = DELAY(maximum_ns),
     .preset = "5s",
     .max = DELAY_MAX,
     .help = "No delay is longer."},
    {.key = "mean",
     .type = EP_TYPE_DURATION,
     .offset = DELAY(mean_ns),
     .preset = "0",
     .max = DELAY_MAX,
     .help = "The mean of `exponential`, before minimum and maximum."},
    {.key = "shape",
     .type = EP_TYPE_NUMBER,
     .offset = DELAY(shape),
     .preset = "1.5",
     .min = 0.1,
     .max = 100,
     .help = "Of pareto: the smaller, the longer the tail."},
};

static void check_delay(void *object, struct ep_checker *c)
{
    const struct ep_chaos_delay *d = object;

    if (d->distribution == EP_CHAOS_FIXED && !d->fixed_ns)
        ep_check_error(c, object, "fixed", "say how long: fixed: 200ms");
    if (d->distribution == EP_CHAOS_EXPONENTIAL && !d->mean_ns)
        ep_check_error(c, object, "mean", "an exponential delay needs its mean");
    if (d->distribution == EP_CHAOS_PARETO && !d->minimum_ns)
        ep_check_error(c, object, "minimum", "a pareto delay needs its minimum");
    if (d->distribution != EP_CHAOS_FIXED && d->minimum_ns > d->maximum_ns)
        ep_check_error(c, object, "minimum", "is more than the maximum");
}

static const struct ep_schema delay_schema =
    EP_SCHEMA("chaos.delay", "A delay in front of the upstream.", struct ep_chaos_delay, delay_fields,
              .short_key = "fixed", .check = check_delay);

static const struct ep_field abort_fields[] = {
    {.key = "status",
     .type = EP_TYPE_INT,
     .offset = ABORT(status),
     .preset = "0",
     .max = 599,
     .help = "HTTP status, 400 to 599; gRPC callers get the status that belongs to it."},
    {.key = "grpc_status",
     .type = EP_TYPE_INT,
     .offset = ABORT(grpc_status),
     .preset = "0",
     .max = 16,
     .help = "gRPC status, 1 to 16; other callers get 503."},
    {.key = "jsonrpc_code",
     .type = EP_TYPE_INT,
     .offset = ABORT(jsonrpc_code),
     .preset = "0",
     .min = -100000,
     .max = 100000,
     .help = "Code of a JSON-RPC error under HTTP 200, for MCP; other callers get 503."},
};

static void check_abort(void *object, struct ep_checker *c)
{
    const struct ep_chaos_abort *a = object;

    if (!!a->status + !!a->grpc_status + !!a->jsonrpc_code != 1)
        ep_check_error(c, object, "status", "give one of status, grpc_status and jsonrpc_code");
    if (a->status && a->status < 400)
        ep_check_error(c, object, "status", "an abort is an error: 400 to 599");
}

static const struct ep_schema abort_schema =
    EP_SCHEMA("chaos.abort", "An error in place of the upstream's answer.", struct ep_chaos_abort, abort_fields,
              .short_key = "status", .check = check_abort);

static const struct ep_field fault_fields[] = {
    {.key = "delay",
     .type = EP_TYPE_OPTIONAL,
     .offset = offsetof(struct ep_chaos_fault, delay),
     .sub = &delay_schema,
     .help = "Wait before the request goes on."},
    {.key = "abort",
     .type = EP_TYPE_OPTIONAL,
     .offset = offsetof(struct ep_chaos_fault, abort),
     .sub = &abort_schema,
     .help = "Answer with an error; after the delay when there is one."},
};

static void check_fault(void *object, struct ep_checker *c)
{
    const struct ep_chaos_fault *f = object;

    if (!f->delay && !f->abort)
        ep_check_error(c, object, "delay", "a fault is a delay, an abort or both");
}

static const struct ep_schema fault_schema =
    EP_SCHEMA("chaos.fault", "What is done to a request.", struct ep_chaos_fault, fault_fields, .check = check_fault);

static const struct ep_field exclude_fields[] = {
    {.key = "principals",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STR,
     .offset = offsetof(struct ep_chaos_exclude, principals),
     .help = "SPIFFE IDs (globs) of callers that are never hit."},
};
static const struct ep_schema exclude_schema =
    EP_SCHEMA("chaos.exclude", "Who is never hit.", struct ep_chaos_exclude, exclude_fields, .check = NULL);

static const struct ep_field radius_fields[] = {
    {.key = "percent",
     .type = EP_TYPE_PERCENT,
     .offset = RADIUS(percent),
     .preset = "100%",
     .max = 100,
     .help = "Of the requests that match, never more are hit, however the dice fall."},
    {.key = "concurrent",
     .type = EP_TYPE_INT,
     .offset = RADIUS(concurrent),
     .preset = "100",
     .min = 1,
     .max = 100000,
     .help = "Requests that are hit and not yet over, in all workers."},
    {.key = "total",
     .type = EP_TYPE_INT,
     .offset = RADIUS(total),
     .preset = "100000",
     .min = 1,
     .max = 1e9,
     .help = "Requests hit in the whole experiment, in all workers."},
    {.key = "exclude",
     .type = EP_TYPE_STRUCT,
     .offset = RADIUS(exclude),
     .sub = &exclude_schema,
     .help = "Who is never hit."},
};
static const struct ep_schema radius_schema =
    EP_SCHEMA("chaos.blast_radius", "How far an experiment may go; looked at before each fault.",
              struct ep_chaos_radius, radius_fields, .check = NULL);

static const struct ep_field experiment_fields[] = {
    {.key = "experiment",
     .type = EP_TYPE_STR,
     .offset = EXPERIMENT(name),
     .required = true,
     .help = "Its name, in metrics and in x-ephor-fault."},
    {.key = "because",
     .type = EP_TYPE_STR,
     .offset = EXPERIMENT(because),
     .required = true,
     .help = "What is to be learned; stands in the audit."},
    {.key = "match",
     .type = EP_TYPE_STRUCT,
     .offset = EXPERIMENT(match),
     .sub = &match_schema,
     .help = "Which requests; empty: all."},
    {.key = "fault",
     .type = EP_TYPE_STRUCT,
     .offset = EXPERIMENT(fault),
     .sub = &fault_schema,
     .required = true,
     .help = "What is done to them."},
    {.key = "percent",
     .type = EP_TYPE_PERCENT,
     .offset = EXPERIMENT(percent),
     .required = true,
     .max = 100,
     .help = "Share of the requests that match."},
    {.key = "duration",
     .type = EP_TYPE_DURATION,
     .offset = EXPERIMENT(duration_ns),
     .required = true,
     .min = (double)EP_MS,
     .max = DURATION_MAX,
     .help = "When it ends, counted from the load of the configuration; an hour at most."},
    {.key = "seed",
     .type = EP_TYPE_INT,
     .offset = EXPERIMENT(seed),
     .preset = "1",
     .max = 9e15,
     .help = "The same seed makes the same choices."},
    {.key = "blast_radius",
     .type = EP_TYPE_STRUCT,
     .offset = EXPERIMENT(radius),
     .sub = &radius_schema,
     .help = "How far it may go."},
    {.key = "constitution",
     .type = EP_TYPE_STR,
     .offset = EXPERIMENT(constitution),
     .help = "The hash under which it was approved; under another the configuration is refused."},
};

static void check_experiment(void *object, struct ep_checker *c)
{
    struct ep_chaos_experiment *x = object;

    memset(&x->run, 0, sizeof x->run);
    for (size_t i = 0; i < x->name.n; i++) {
        unsigned char b = (unsigned char)x->name.p[i];
        if (b <= 0x20 || b >= 0x7f || x->name.n > 64) {
            ep_check_error(c, object, "experiment", "a name is at most 64 visible characters");
            break;
        }
    }
}

static const struct ep_schema experiment_schema = EP_SCHEMA(
    "chaos.experiment", "One experiment.", struct ep_chaos_experiment, experiment_fields, .check = check_experiment);

static const struct ep_field chaos_fields[] = {
    {.key = "enabled",
     .type = EP_TYPE_BOOL,
     .offset = CHAOS(enabled),
     .preset = "false",
     .help = "Without it no experiment does anything."},
    {.key = "experiments",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STRUCT,
     .offset = CHAOS(experiments),
     .sub = &experiment_schema,
     .help = "In order; a request takes the fault of the first that hits it."},
};

static void check_chaos(void *object, struct ep_checker *c)
{
    const struct ep_chaos_config *config = object;
    const struct ep_chaos_experiment *x = config->experiments.v;

    for (size_t i = 0; i < config->experiments.n; i++)
        for (size_t k = 0; k < i; k++)
            if (ep_str_eq(x[i].name, x[k].name))
                ep_check_error(c, &x[i], "experiment", "there are two experiments '%.*s'", EP_STR_ARG(x[i].name));
}

const struct ep_schema ep_chaos_schema = EP_SCHEMA("chaos", "Faults injected on purpose, off unless enabled.",
                                                   struct ep_chaos_config, chaos_fields, .check = check_chaos);
