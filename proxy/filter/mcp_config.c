/* The schema of a listener's `mcp:`. */
#include "filter/mcp_config.h"

#define MCP(member) offsetof(struct ep_mcp_config, member)

static const char *const on_change_names[] = {"deny", "shadow", NULL};

static const struct ep_field mcp_fields[] = {
    {.key = "filter_lists",
     .type = EP_TYPE_BOOL,
     .offset = MCP(filter_lists),
     .preset = "true",
     .help = "Take out of lists of tools, prompts and resources what authorize or a policy would refuse to the caller "
             "anyway, as far as that is known without a call's arguments."},
    {.key = "pins",
     .type = EP_TYPE_STR,
     .offset = MCP(pins_file),
     .help = "File of pinned tool definitions, by `ephor mcp pin`."},
    {.key = "on_change",
     .type = EP_TYPE_ENUM,
     .offset = MCP(on_change),
     .preset = "deny",
     .names = on_change_names,
     .help = "What becomes of a tool whose definition isn't the pinned one, or that has no pin: deny takes it out of "
             "lists and "
             "refuses calls, shadow only counts and audits."},
};

const struct ep_schema ep_mcp_schema = EP_SCHEMA("mcp", "What is done for Model Context Protocol beyond judging calls.",
                                                 struct ep_mcp_config, mcp_fields, .check = NULL);
