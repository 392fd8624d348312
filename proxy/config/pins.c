/* Reading a file of pins, as `ephor mcp pin` writes it:
 *
 *     tools:
 *       - {name: echo, sha256: 2c26b46b…}
 *
 * A name may stand there more than once: then any of its definitions is good. */
#include "config/pins.h"

#include <stdlib.h>

#include "config/bind.h"
#include "config/config.h"
#include "config/files.h"

#define FILE_MAX (4u << 20)

struct line {
    struct ep_str name, sha256;
};

struct page {
    struct ep_vec tools; /* of line */
};

static const struct ep_field line_fields[] = {
    {.key = "name",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct line, name),
     .required = true,
     .help = "Of the tool."},
    {.key = "sha256",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct line, sha256),
     .required = true,
     .help = "Of its definition, in hex."},
};

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool digest_of(struct ep_str text, struct ep_mcp_digest *out)
{
    if (text.n != 2 * EP_MCP_DIGEST_BYTES)
        return false;
    for (size_t i = 0; i < EP_MCP_DIGEST_BYTES; i++) {
        int high = hex(text.p[2 * i]), low = hex(text.p[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out->bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static void check_line(void *object, struct ep_checker *c)
{
    const struct line *l = object;
    struct ep_mcp_digest ignored;

    if (l->sha256.n && !digest_of(l->sha256, &ignored))
        ep_check_error(c, object, "sha256", "is 64 hex digits, in lower case");
}

static const struct ep_schema line_schema =
    EP_SCHEMA("pin", "A definition that was found good.", struct line, line_fields, .check = check_line);

static const struct ep_field page_fields[] = {
    {.key = "tools",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STRUCT,
     .sub = &line_schema,
     .offset = offsetof(struct page, tools),
     .required = true,
     .help = "The tools."},
};

static const struct ep_schema page_schema =
    EP_SCHEMA("pins", "Pinned definitions of tools.", struct page, page_fields, .check = NULL);

static int by_name(const void *a_, const void *b_)
{
    const struct line *a = a_, *b = b_;
    int order = memcmp(a->name.p, b->name.p, EP_MIN(a->name.n, b->name.n));

    return order ? order : a->name.n < b->name.n ? -1 : a->name.n > b->name.n;
}

static void fill(struct ep_mcp_pins *pins, struct ep_vec lines)
{
    struct line *l = lines.v;
    struct ep_mcp_digest *digests = ep_arena_alloc(&pins->arena, (lines.n + 1) * sizeof *digests);

    if (lines.n)
        qsort(l, lines.n, sizeof *l, by_name);
    pins->v = ep_arena_zalloc(&pins->arena, (lines.n + 1) * sizeof *pins->v);
    for (size_t i = 0; i < lines.n; i++) {
        if (i == 0 || !ep_str_eq(l[i].name, l[i - 1].name)) {
            pins->v[pins->n].name = l[i].name;
            pins->v[pins->n++].digests = &digests[i];
        }
        digest_of(l[i].sha256, &digests[i]);
        pins->v[pins->n - 1].n++;
    }
}

struct ep_mcp_pins *ep_pins_read(struct ep_str path, struct ep_error *err)
{
    struct ep_mcp_pins *pins = ep_calloc(1, sizeof *pins);
    struct ep_problems problems;
    struct page page = {0};
    struct ep_str text;
    bool good;

    ep_chunk_pool_init(&pins->chunks, 0);
    ep_arena_init(&pins->arena, &pins->chunks);
    if (!ep_file_read(path, FILE_MAX, &text, err)) {
        ep_error_prefix(err, "%.*s", EP_STR_ARG(path));
        ep_pins_free(pins);
        return NULL;
    }
    ep_problems_init(&problems);
    problems.file = ep_strndup(path.p, path.n);
    good = ep_yaml_bind(&pins->arena, &page_schema, &page, ep_arena_str(&pins->arena, text), true,
                        "the file is empty; it needs tools", &problems);
    if (!good)
        ep_problems_first(&problems, err);
    else if (page.tools.n > EP_PINS_MAX)
        good = ep_error_set(err, "%.*s: more than %u pins", EP_STR_ARG(path), EP_PINS_MAX);
    ep_problems_fini(&problems);
    ep_file_free(&text, false);
    if (good) {
        fill(pins, page.tools);
        return pins;
    }
    ep_pins_free(pins);
    return NULL;
}

void ep_pins_free(struct ep_mcp_pins *pins)
{
    if (!pins)
        return;
    ep_arena_fini(&pins->arena);
    ep_chunk_pool_fini(&pins->chunks);
    free(pins);
}
