/* link: ep_net */
/* A ClientHello from any bytes. What is found lies inside the input, and a verdict once given stays the same however
 * many bytes follow. */
#include <stdlib.h>

#include "net/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(struct ep_str s, const uint8_t *data, size_t size)
{
    const uint8_t *p = (const uint8_t *)s.p;

    if (s.n && (p < data || p + s.n > data + size))
        abort();
}

/* What a name becomes stays so, and can't carry anything into a certificate, a header or a log. */
static void check_host(struct ep_str name)
{
    char out[EP_HOST_MAX + 1], again[EP_HOST_MAX + 1];
    size_t n = ep_host_normalise(name, out);

    if (n > EP_HOST_MAX || (n && (out[n] || ep_host_normalise(ep_str_n(out, n), again) != n || memcmp(out, again, n) != 0)))
        abort();
    for (size_t i = 0; i < n; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-_.", out[i]))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ep_client_hello found;
    int whole = ep_client_hello_parse(data, size, &found);

    check_inside(found.sni, data, size);
    check_inside(found.alpn, data, size);
    if (whole < -1 || whole > 1 || (whole != 1 && (found.sni.n || found.alpn.n || found.ech)))
        abort();
    check_host(found.sni);
    check_host(ep_str_n(data, size));
    ep_alpn_list_has(found.alpn, EP_STR("h2"));
    ep_alpn_list_has(ep_str_n(data, size), EP_STR("h2"));
    for (size_t n = 0; n < size && n < 2048; n += 1 + n / 16) {
        unsigned char *exact = malloc(n ? n : 1);
        int part;

        memcpy(exact, data, n);
        part = ep_client_hello_parse(exact, n, &found);
        if (part != 0 && part != whole)
            abort();
        if (part == 1 && whole == 1) {
            check_inside(found.sni, exact, n);
            check_inside(found.alpn, exact, n);
        }
        free(exact);
    }
    return 0;
}
