/* link: ep_net */
/* PROXY v2 from any bytes: the length stays inside the input, addresses are whole, a refusal is final. */
#include <stdlib.h>

#include "net/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ep_addr src = {.len = 0}, dst = {.len = 0};
    int used = ep_proxy_v2_parse(data, size, &src, &dst);
    char text[128];

    if (used < -1 || (used > 0 && ((size_t)used > size || used < 16)) || (src.len != 0) != (dst.len != 0))
        abort();
    if (src.len) {
        ep_addr_format(&src, text);
        ep_addr_format(&dst, text);
    }
    for (size_t n = 0; n < size && n < 300; n++) {
        unsigned char *exact = malloc(n ? n : 1);
        int part;

        memcpy(exact, data, n);
        part = ep_proxy_v2_parse(exact, n, &src, &dst);
        free(exact);
        if (part != 0 && part != used)
            abort();
    }
    return 0;
}
