/* link: ep_net */
/* The sniffer on any bytes: a verdict once given never changes as more bytes come, but that opaque bytes may be found to
 * call themselves HTTP by the end of their first line. */
#include <stdlib.h>

#include "net/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum ep_sniff first = EP_SNIFF_MORE;

    for (size_t n = 0; n <= size && n < 256; n++) {
        unsigned char *exact = malloc(n ? n : 1); /* so that a read past the end shows */
        enum ep_sniff got;

        memcpy(exact, data, n);
        got = ep_sniff_bytes(exact, n);
        free(exact);
        if (got > EP_SNIFF_OPAQUE || (first != EP_SNIFF_MORE && got != first &&
                                      !(first == EP_SNIFF_OPAQUE && got == EP_SNIFF_HTTP1)))
            abort();
        first = got;
    }
    ep_sniff_bytes(data, size);
    return 0;
}
