/* Files of pinned tool definitions: filter/mcp_config.h. */
#ifndef EP_CONFIG_PINS_H
#define EP_CONFIG_PINS_H

#include "filter/mcp_config.h"

#define EP_PINS_MAX 10000u

/* NULL with err, which names the file. */
struct ep_mcp_pins *ep_pins_read(struct ep_str path, struct ep_error *err);
void ep_pins_free(struct ep_mcp_pins *pins); /* NULL too */

#endif
