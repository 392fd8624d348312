/* The text of a message's parts: what one agent says to another, one piece a line.
 *
 * Parts of 0.3 and 1.0, of JSON-RPC, REST and gRPC come in different clothes and nest (data is any JSON, and a server
 * may look for parts in it), so nothing is looked for: each string is text, but for kinds, media types and the bytes of
 * files. In data and metadata, where names are the sender's own, keys and numbers are text too. */
#include "agent/parts.h"

#include "agent/json.h"
#include "agent/json_walk.h"
#include "observe/json.h"

#define DEPTH_MAX (EP_SCAN_DEPTH_MAX + 1) /* the scan has let nothing deeper in */

struct frame {
    struct ep_str key; /* of the member that is read; an array has that of its own */
    bool object, free; /* free: the sender's own JSON */
};

static bool is_no_text(struct ep_str key)
{
    return EP_WALK_IS_ANY(key, "kind", "type", "mimeType", "mime_type", "mediaType", "media_type", "bytes", "fileWithBytes",
                  "file_with_bytes", "raw");
}

static void put(char *out, size_t *n, struct ep_str value)
{
    if (*n)
        out[(*n)++] = '\n';
    *n += ep_json_plain(value, out + *n, value.n);
}

struct ep_str ep_parts_text(struct ep_str json, struct ep_arena *arena)
{
    struct frame v[DEPTH_MAX + 1] = {{.free = false}}, *f = v;
    const char *p = json.p, *end = json.p + json.n, *e;
    char *out =
        ep_arena_alloc(arena, json.n + 1); /* a string loses its quotes and gets a line break, a number its comma */
    size_t n = 0;

    for (; p < end; p = e) {
        e = p + 1;
        if ((*p == '{' || *p == '[') && f < v + DEPTH_MAX) {
            bool free = f->free || (f->object && EP_WALK_IS_ANY(f->key, "data", "metadata"));
            struct ep_str key = f->key;
            *++f = (struct frame){.object = *p == '{', .free = free, .key = *p == '{' ? (struct ep_str){NULL, 0} : key};
        } else if ((*p == '}' || *p == ']') && f > v) {
            f--;
        } else if (*p == '"') {
            e = ep_walk_string(p, end);
            struct ep_str value = ep_str_n(p, (size_t)(e - p));
            bool key = f->object && ep_walk_is_key(e, end);
            if (key)
                f->key = ep_str_n(p + 1, value.n - 2);
            if (f->free || (!key && !is_no_text(f->key)))
                put(out, &n, value);
        } else if (*p == '-' || (*p >= '0' && *p <= '9')) {
            while (e < end && memchr("0123456789+-.eE", *e, 15))
                e++;
            if (f->free)
                put(out, &n, ep_str_n(p, (size_t)(e - p)));
        }
    }
    return ep_str_n(out, n);
}
