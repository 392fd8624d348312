/* What all codecs share: finding the codec behind a connection, to drain it. */
#include "http/leg.h"

#define SNIFFED_NS EP_S /* for a connection that was just accepted: its first request may be on its way */

void ep_codec_drain(struct ep_conn *c, uint64_t grace_ns)
{
    /* A connection that is still sniffed has a handler that is no codec; its name tells. */
    if (c->closed || c->close_wanted)
        return;
    if (!strcmp(c->handler->name, "sniffer")) {
        if (!c->drained_early)
            ep_conn_deadline(c, SNIFFED_NS);
        c->drained_early = true; /* the codec it gets is told */
        return;
    }
    const struct ep_codec *codec = (const struct ep_codec *)c->handler;
    if (codec->is_codec && codec->drain)
        codec->drain(c, grace_ns);
}
