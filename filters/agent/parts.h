/* The parts of an Agent2Agent message, for who judges them: a2a_parts.c. */
#ifndef EP_AGENT_PARTS_H
#define EP_AGENT_PARTS_H

#include "base/base.h"

/* All text of an array of parts (JSON that the scan has found good), one piece a line, nested ones and data too; not media
 * types nor the bytes of files. */
struct ep_str ep_parts_text(struct ep_str json, struct ep_arena *arena);

#endif
