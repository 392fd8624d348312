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
    EP_SCHEMA("policies.record", "Requests, responses and decisions kept for `ephor test --record`.", struct ep_policies_record,
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

#define ROLLBACK(member) offsetof(struct ep_policies_rollback, member)

static const struct ep_field rollback_fields[] = {
    {.key = "errors",
     .type = EP_TYPE_PERCENT,
     .offset = ROLLBACK(errors),
     .preset = "5%",
     .min = 0.1,
     .max = 100,
     .help = "Requests with an error or an overrun of a policy, in points over the share of the version before."},
    {.key = "denials",
     .type = EP_TYPE_PERCENT,
     .offset = ROLLBACK(denials),
     .preset = "20%",
     .min = 0.1,
     .max = 100,
     .help = "Requests refused by a policy, in points over the share of the version before. What is only a shadow "
             "doesn't count."},
    {.key = "window",
     .type = EP_TYPE_DURATION,
     .offset = ROLLBACK(window_ns),
     .preset = "30s",
     .min = 1e9,
     .max = 3600e9,
     .help = "A new version is compared for so long, and until `minimum` requests were judged."},
    {.key = "minimum",
     .type = EP_TYPE_INT,
     .offset = ROLLBACK(minimum),
     .preset = "100",
     .min = 10,
     .max = 1e9,
     .help = "Requests that must have been judged before anything is concluded."},
};

static const struct ep_schema rollback_schema =
    EP_SCHEMA("policies.rollback",
              "When a new version of the policies is taken back by itself: its share of errors or denials is higher than "
              "that of the version before by more than this.",
              struct ep_policies_rollback, rollback_fields, .check = NULL);

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
    {.key = "kept",
     .type = EP_TYPE_SIZE,
     .offset = AT(kept),
     .preset = "1MiB",
     .min = 65536,
     .max = 32 << 20,
     .help = "What all policies of a worker together may keep in Lua's variables from call to call, beyond what they loaded. "
             "Over it, the one that keeps the most begins anew and what it kept is forgotten. The more, the longer Lua's "
             "collector stops the worker. What must last belongs in c:remember."},
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
     .help = "Refuse policies whose tests (*_test.lua) fail, and each policy of which no passing test has run every function (call, reply, event)."},
    {.key = "stream_tail",
     .type = EP_TYPE_SIZE,
     .offset = AT(stream_tail),
     .preset = "256B",
     .min = 16,
     .max = 16384,
     .help = "Bytes of each text of a stream of events that policies see again with the next event, and of which what may be the "
             "beginning of something to redact is held back."},
    {.key = "record",
     .type = EP_TYPE_OPTIONAL,
     .offset = AT(record),
     .sub = &record_schema,
     .help = "Keep a sample of the requests, to try changed policies on."},
    {.key = "enforce",
     .type = EP_TYPE_PERCENT,
     .offset = AT(enforce),
     .preset = "100%",
     .min = 0.01,
     .max = 100,
     .help = "Share of the callers for whom policies are enforced; for the rest they are shadows. The same caller (by its "
             "identity, else the call's agent, session or tenant, else the trace) always gets the same answer. A policy may "
             "have less, by its enforce_percent."},
    {.key = "shadow_for",
     .type = EP_TYPE_DURATION,
     .offset = AT(shadow_for_ns),
     .preset = "0s",
     .max = 366.0 * 86400e9,
     .help = "A policy that this `state` directory has not seen yet runs in shadow for so long, then it is enforced."},
    {.key = "shadow_changes",
     .type = EP_TYPE_BOOL,
     .offset = AT(shadow_changes),
     .preset = "true",
     .help = "A policy whose text, or any library's, changed is new again for shadow_for; else the name decides."},
    {.key = "rollback",
     .type = EP_TYPE_OPTIONAL,
     .offset = AT(rollback),
     .sub = &rollback_schema,
     .help = "When a new version is taken back by itself; without it never."},
};

const struct ep_schema ep_policies_schema =
    EP_SCHEMA("policies", "Policies in Lua.", struct ep_policies_config, fields, .short_key = "directory");
