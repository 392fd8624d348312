/* The schema of `policies:`. */
#include "filter/policies_config.h"

#define AT(member) offsetof(struct ep_policies_config, member)

static const char *const modes[] = {"enforce", "shadow", "off", NULL};

static const struct ep_field budget_fields[] = {
    {.key = "instructions",
     .type = EP_TYPE_INT,
     .offset = offsetof(struct ep_policies_budget, instructions),
     .preset = "200000",
     .min = 1000,
     .max = 1e9,
     .help = "Lua instructions of one call of a policy."},
    {.key = "memory",
     .type = EP_TYPE_SIZE,
     .offset = offsetof(struct ep_policies_budget, memory),
     .preset = "1MiB",
     .min = 16384,
     .max = 64 << 20,
     .help = "Memory that one call may take over what was in use before."},
    {.key = "time",
     .type = EP_TYPE_DURATION,
     .offset = offsetof(struct ep_policies_budget, time_ns),
     .preset = "5ms",
     .min = 100e3,
     .max = 1e9,
     .help = "Wall time of one call."},
};

const struct ep_schema ep_policies_budget_schema =
    EP_SCHEMA("policies.budget", "What one call of a policy may use. Over it, the request is denied.",
              struct ep_policies_budget, budget_fields, .check = NULL);

static const struct ep_field record_fields[] = {
    {.key = "file",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct ep_policies_record, file),
     .required = true,
     .help = "The file to append to; made with mode 0600. It holds bodies and arguments as they came."},
    {.key = "sample",
     .type = EP_TYPE_PERCENT,
     .offset = offsetof(struct ep_policies_record, sample),
     .preset = "1%",
     .max = 100,
     .help = "The share of requests that is recorded."},
    {.key = "limit",
     .type = EP_TYPE_SIZE,
     .offset = offsetof(struct ep_policies_record, limit),
     .preset = "64MiB",
     .min = 4096,
     .max = 1e12,
     .help = "How large the file may become; then nothing more is recorded."},
};

static const struct ep_schema record_schema =
    EP_SCHEMA("policies.record", "Requests and decisions kept for `ephor test --record`.", struct ep_policies_record,
              record_fields, .check = NULL);

static const struct ep_field memory_fields[] = {
    {.key = "entries",
     .type = EP_TYPE_INT,
     .offset = offsetof(struct ep_policies_memory, entries),
     .preset = "65536",
     .min = 16,
     .max = 1e7,
     .help = "Keys kept at once, of all policies and workers together; what was used least goes first."},
    {.key = "bytes",
     .type = EP_TYPE_SIZE,
     .offset = offsetof(struct ep_policies_memory, bytes),
     .preset = "16MiB",
     .min = 262144,
     .max = 1u << 30,
     .help = "Memory for them."},
};

static const struct ep_schema memory_schema =
    EP_SCHEMA("policies.memory", "What policies may remember (c:remember, c:count), shared by all workers.",
              struct ep_policies_memory, memory_fields, .check = NULL);

static const struct ep_field fields[] = {
    {.key = "directory",
     .type = EP_TYPE_STR,
     .offset = AT(directory),
     .help = "Directory of the policies: every *.lua in it but *_test.lua and _*.lua. A mounted ConfigMap."},
    {.key = "budget",
     .type = EP_TYPE_STRUCT,
     .offset = AT(budget),
     .sub = &ep_policies_budget_schema,
     .help = "What one call of a policy may use."},
    {.key = "memory",
     .type = EP_TYPE_STRUCT,
     .offset = AT(memory),
     .sub = &memory_schema,
     .help = "What policies may remember."},
    {.key = "mode",
     .type = EP_TYPE_ENUM,
     .offset = AT(mode),
     .preset = "enforce",
     .names = modes,
     .help = "shadow: all policies decide and are counted, and everything passes. off: none runs."},
    {.key = "require_tests",
     .type = EP_TYPE_BOOL,
     .offset = AT(require_tests),
     .preset = "false",
     .help = "Refuse policies whose tests (*_test.lua) fail, and each policy that no passing test has judged by."},
    {.key = "record",
     .type = EP_TYPE_OPTIONAL,
     .offset = AT(record),
     .sub = &record_schema,
     .help = "Keep a sample of the requests, to try changed policies on."},
};

const struct ep_schema ep_policies_schema =
    EP_SCHEMA("policies", "Policies in Lua.", struct ep_policies_config, fields, .short_key = "directory");
