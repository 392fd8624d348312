/* What all codecs share: finding the codec behind a connection, to drain it. */
#include "http/leg.h"

void ep_codec_drain(struct ep_conn *c, uint64_t grace_ns)
{
    /* A connection that is still sniffed has a handler that is no codec; its name tells. */
    if (c->closed || c->close_wanted)
        return;
    if (!strcmp(c->handler->name, "sniffer") || !strcmp(c->handler->name, "probe")) {
        ep_conn_close(c);
        return;
    }
    const struct ep_codec *codec = (const struct ep_codec *)c->handler;
    if (codec->is_codec && codec->drain)
        codec->drain(c, grace_ns);
}
