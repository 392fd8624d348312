/* The schema of a listener's `mcp:`. */
#include "filter/mcp_config.h"

#define MCP(member) offsetof(struct ep_mcp_config, member)

static const struct ep_field mcp_fields[] = {
    {.key = "filter_lists",
     .type = EP_TYPE_BOOL,
     .offset = MCP(filter_lists),
     .preset = "true",
     .help = "Take out of lists of tools, prompts and resources what authorize or a policy would refuse to the caller "
             "anyway, as far as that is known without a call's arguments."},
};

const struct ep_schema ep_mcp_schema = EP_SCHEMA("mcp", "What is done for Model Context Protocol beyond judging calls.",
                                                 struct ep_mcp_config, mcp_fields, .check = NULL);
