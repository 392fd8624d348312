/* The page at /: what there is, and how the process is. Plain HTML, nothing is loaded from anywhere. */
#include <stdio.h>
#include <stdlib.h>

#include "admin/private.h"

static void escaped(FILE *f, const char *text)
{
    for (; *text; text++)
        switch (*text) {
        case '<':
            fputs("&lt;", f);
            break;
        case '>':
            fputs("&gt;", f);
            break;
        case '&':
            fputs("&amp;", f);
            break;
        default:
            fputc(*text, f);
        }
}

char *ep_admin_page(const struct ep_server *server)
{
    struct ep_server_status s = ep_server_status(server);
    const struct ep_config *config = ep_server_config(server);
    char *text = NULL,
         *service = ep_strndup(config->node.service.n ? config->node.service.p : "", config->node.service.n);
    size_t n;
    FILE *f = open_memstream(&text, &n);

    if (!f)
        abort();
    fputs("<!doctype html><meta charset=utf-8><title>ephor</title>"
          "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:52em;margin:2em auto;padding:0 1em}"
          "table{border-collapse:collapse}td{padding:.2em 1em .2em 0;vertical-align:top}code{font-size:95%}</style>\n"
          "<h1>ephor ",
          f);
    escaped(f, service);
    fprintf(f, "</h1>\n<p>Version %s, %s, generation %llu, %u worker%s.", EPHOR_VERSION,
            s.draining ? "draining"
            : s.ready  ? "ready"
                       : "starting",
            (unsigned long long)s.generation, s.workers, s.workers == 1 ? "" : "s");
    if (s.rejected) {
        fputs(" The last configuration was rejected: <code>", f);
        escaped(f, s.rejected);
        fputs("</code>", f);
    }
    fputs("</p>\n<table>\n", f);
    for (size_t i = 0; i < ep_admin_endpoints_n; i++) {
        const struct ep_endpoint_row *e = &ep_admin_endpoints[i];
        bool get = e->method[0] == 'G';
        fprintf(f, "<tr><td><code>%s</code><td>", e->method);
        if (get)
            fprintf(f, "<a href=\"%s\"><code>%s</code></a><td>", e->path, e->path);
        else
            fprintf(f, "<code>%s</code><td>", e->path);
        escaped(f, e->help);
        fputc('\n', f);
    }
    fputs("</table>\n", f);
    fclose(f);
    free(service);
    return text;
}
