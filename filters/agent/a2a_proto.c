/* A2A's messages of gRPC, made into the JSON that protobuf's mapping makes of them, so that one reader and one policy
 * see all bindings alike. Tables say which fields there are; what isn't in them is unknown to servers of that version
 * too and is left out. What a parser could settle in more than one way (a single field twice, a type that doesn't fit,
 * bytes that are no UTF-8) is malformed. Sources: a2a.proto of 0.3 (package a2a.v1) and 1.0 (lf.a2a.v1),
 * google/protobuf/struct.proto, proto3's JSON mapping (protobuf.dev/programming-guides/json). */
#include "agent/a2a.h"
#include "agent/grpc_frame.h"
#include "observe/json.h"

#include <openssl/evp.h>

#define DEPTH_MAX 48u /* of Struct and Value in each other; the scan allows a few more */

enum kind { STRING, BYTES, NUMBER, BOOL, MESSAGE, STRUCT, VALUE };

struct schema;
struct field {
    uint64_t number;
    const char *key;
    enum kind kind;
    bool repeated;
    const struct schema *of;
};
struct schema {
    const struct field *v;
    size_t n;
};
#define SCHEMA(...)                                                                                                    \
    {                                                                                                                  \
        (const struct field[]){__VA_ARGS__}, EP_COUNT(((const struct field[]){__VA_ARGS__}))                           \
    }
#define ONE(number, key, kind)                                                                                         \
    {                                                                                                                  \
        number, key, kind, false, NULL                                                                                 \
    }
#define MANY(number, key, kind)                                                                                        \
    {                                                                                                                  \
        number, key, kind, true, NULL                                                                                  \
    }
#define IN(number, key, of)                                                                                            \
    {                                                                                                                  \
        number, key, MESSAGE, false, &(of)                                                                             \
    }
#define LIST(number, key, of)                                                                                          \
    {                                                                                                                  \
        number, key, MESSAGE, true, &(of)                                                                              \
    }

/* --- 1.0 --- */

static const struct schema part_1 =
    SCHEMA(ONE(1, "text", STRING), ONE(2, "raw", BYTES), ONE(3, "url", STRING), ONE(4, "data", VALUE),
           ONE(5, "metadata", STRUCT), ONE(6, "filename", STRING), ONE(7, "mediaType", STRING));
static const struct schema message_1 =
    SCHEMA(ONE(1, "messageId", STRING), ONE(2, "contextId", STRING), ONE(3, "taskId", STRING), ONE(4, "role", NUMBER),
           LIST(5, "parts", part_1), ONE(6, "metadata", STRUCT), MANY(7, "extensions", STRING),
           MANY(8, "referenceTaskIds", STRING));
static const struct schema push_1 = SCHEMA(ONE(1, "tenant", STRING), ONE(2, "id", STRING), ONE(3, "taskId", STRING),
                                           ONE(4, "url", STRING), ONE(5, "token", STRING));
static const struct schema configuration_1 =
    SCHEMA(MANY(1, "acceptedOutputModes", STRING), IN(2, "taskPushNotificationConfig", push_1),
           ONE(3, "historyLength", NUMBER), ONE(4, "returnImmediately", BOOL));
static const struct schema send_1 = SCHEMA(ONE(1, "tenant", STRING), IN(2, "message", message_1),
                                           IN(3, "configuration", configuration_1), ONE(4, "metadata", STRUCT));
static const struct schema task_1 = SCHEMA(ONE(1, "tenant", STRING), ONE(2, "id", STRING));
static const struct schema get_1 =
    SCHEMA(ONE(1, "tenant", STRING), ONE(2, "id", STRING), ONE(3, "historyLength", NUMBER));
static const struct schema cancel_1 =
    SCHEMA(ONE(1, "tenant", STRING), ONE(2, "id", STRING), ONE(3, "metadata", STRUCT));
static const struct schema list_1 =
    SCHEMA(ONE(1, "tenant", STRING), ONE(2, "contextId", STRING), ONE(3, "status", NUMBER));
static const struct schema config_1 = SCHEMA(ONE(1, "tenant", STRING), ONE(2, "taskId", STRING), ONE(3, "id", STRING));
static const struct schema configs_1 = SCHEMA(ONE(4, "tenant", STRING), ONE(1, "taskId", STRING));
static const struct schema card_1 = SCHEMA(ONE(1, "tenant", STRING));

/* --- 0.3 --- */

static const struct schema file_03 = SCHEMA(ONE(1, "fileWithUri", STRING), ONE(2, "fileWithBytes", BYTES),
                                            ONE(3, "mimeType", STRING), ONE(4, "name", STRING));
static const struct schema data_03 = SCHEMA(ONE(1, "data", STRUCT));
static const struct schema part_03 =
    SCHEMA(ONE(1, "text", STRING), IN(2, "file", file_03), IN(3, "data", data_03), ONE(4, "metadata", STRUCT));
static const struct schema message_03 =
    SCHEMA(ONE(1, "messageId", STRING), ONE(2, "contextId", STRING), ONE(3, "taskId", STRING), ONE(4, "role", NUMBER),
           LIST(5, "content", part_03), ONE(6, "metadata", STRUCT), MANY(7, "extensions", STRING));
static const struct schema send_03 = SCHEMA(IN(1, "message", message_03), ONE(3, "metadata", STRUCT));
static const struct schema name_03 =
    SCHEMA(ONE(1, "name", STRING)); /* "tasks/ID", "tasks/ID/pushNotificationConfigs/ID" */

static const struct {
    const char *method;
    const struct schema *one, *old;
} requests[] = {
    {"message/send", &send_1, &send_03},
    {"message/stream", &send_1, &send_03},
    {"tasks/get", &get_1, &name_03},
    {"tasks/list", &list_1, &list_1},
    {"tasks/cancel", &cancel_1, &name_03},
    {"tasks/resubscribe", &task_1, &name_03},
    {"tasks/pushNotificationConfig/set", &push_1, &name_03},
    {"tasks/pushNotificationConfig/get", &config_1, &name_03},
    {"tasks/pushNotificationConfig/list", &configs_1, &name_03},
    {"tasks/pushNotificationConfig/delete", &config_1, &name_03},
    {"agent/getAuthenticatedExtendedCard", &card_1, &card_1},
};

static bool is_utf8(struct ep_str s)
{
    for (size_t i = 0, n; i < s.n; i += n)
        if ((n = ep_utf8_length(s.p + i, s.n - i)) == 0)
            return false;
    return true;
}

static bool write_string(struct ep_json *j, struct ep_str s)
{
    if (!is_utf8(s))
        return false;
    ep_json_str(j, s);
    return true;
}

static bool write_bytes(struct ep_json *j, struct ep_str s, struct ep_arena *arena)
{
    unsigned char *out = ep_arena_alloc(arena, s.n / 3 * 4 + 5);

    ep_json_str(j, ep_str_n(out, EVP_EncodeBlock(out, (const unsigned char *)s.p, s.n)));
    return true;
}

static bool write_struct(struct ep_json *j, struct ep_str text, unsigned depth);

static bool write_list(struct ep_json *j, struct ep_str text, unsigned depth);

/* google.protobuf.Value: one of six. */
static bool write_value(struct ep_json *j, struct ep_str text, unsigned depth)
{
    struct ep_proto_field f;

    if (depth > DEPTH_MAX)
        return false;
    if (!text.n) {
        ep_json_null(j);
        return true;
    }
    if (!ep_proto_next(&text, &f) || text.n)
        return false;
    if (f.number == 1 && f.wire == EP_PROTO_VARINT)
        return ep_json_null(j), true;
    if (f.number == 2 && f.wire == EP_PROTO_FIXED64)
        return ep_json_double(j, ep_proto_double(f.bytes)), true;
    if (f.number == 3 && f.wire == EP_PROTO_BYTES)
        return write_string(j, f.bytes);
    if (f.number == 4 && f.wire == EP_PROTO_VARINT)
        return ep_json_bool(j, f.varint != 0), true;
    if (f.number == 5 && f.wire == EP_PROTO_BYTES)
        return write_struct(j, f.bytes, depth + 1);
    return f.number == 6 && f.wire == EP_PROTO_BYTES && write_list(j, f.bytes, depth + 1);
}

static bool write_list(struct ep_json *j, struct ep_str text, unsigned depth)
{
    struct ep_proto_field f;

    ep_json_array(j);
    while (text.n)
        if (!ep_proto_next(&text, &f) || f.number != 1 || f.wire != EP_PROTO_BYTES || !write_value(j, f.bytes, depth))
            return false;
    ep_json_array_end(j);
    return true;
}

/* An entry of a map: the key, then the value; either may be missing. */
static bool write_entry(struct ep_json *j, struct ep_str text, unsigned depth)
{
    struct ep_str key = {NULL, 0}, value = {NULL, 0};
    struct ep_proto_field f;
    unsigned seen = 0;

    while (text.n) {
        if (!ep_proto_next(&text, &f) || f.number > 2 || f.wire != EP_PROTO_BYTES || (seen & 1u << f.number))
            return false;
        seen |= 1u << f.number;
        *(f.number == 1 ? &key : &value) = f.bytes;
    }
    if (!is_utf8(key))
        return false;
    ep_json_name(j, key);
    return write_value(j, value, depth);
}

/* A key that comes twice is written twice, and the scan finds it. */
static bool write_struct(struct ep_json *j, struct ep_str text, unsigned depth)
{
    struct ep_proto_field f;

    if (depth > DEPTH_MAX)
        return false;
    ep_json_object(j);
    while (text.n)
        if (!ep_proto_next(&text, &f) || f.number != 1 || f.wire != EP_PROTO_BYTES || !write_entry(j, f.bytes, depth))
            return false;
    ep_json_object_end(j);
    return true;
}

static bool write_message(struct ep_json *j, const struct schema *schema, struct ep_str text, struct ep_arena *arena);

static bool write_field(struct ep_json *j, const struct field *is, const struct ep_proto_field *f,
                        struct ep_arena *arena)
{
    bool varint = is->kind == NUMBER || is->kind == BOOL;

    if (f->wire != (varint ? EP_PROTO_VARINT : EP_PROTO_BYTES))
        return false;
    switch (is->kind) {
    case STRING:
        return write_string(j, f->bytes);
    case BYTES:
        return write_bytes(j, f->bytes, arena);
    case NUMBER:
        return ep_json_int(j, (int64_t)f->varint), true;
    case BOOL:
        return ep_json_bool(j, f->varint != 0), true;
    case MESSAGE:
        return write_message(j, is->of, f->bytes, arena);
    case STRUCT:
        return write_struct(j, f->bytes, 0);
    case VALUE:
        return write_value(j, f->bytes, 0);
    }
    return false;
}

/* One walk for each field that there may be, since those of a list may stand apart. */
static bool write_message(struct ep_json *j, const struct schema *schema, struct ep_str text, struct ep_arena *arena)
{
    struct ep_proto_field f;

    ep_json_object(j);
    for (size_t i = 0; i < schema->n; i++) {
        const struct field *is = &schema->v[i];
        struct ep_str rest = text;
        unsigned n = 0;

        while (rest.n) {
            if (!ep_proto_next(&rest, &f))
                return false;
            if (f.number != is->number)
                continue;
            if (n++ == 0) {
                ep_json_key(j, is->key);
                if (is->repeated)
                    ep_json_array(j);
            }
            if ((n > 1 && !is->repeated) || !write_field(j, is, &f, arena))
                return false;
        }
        if (n && is->repeated)
            ep_json_array_end(j);
    }
    ep_json_object_end(j);
    return true;
}

struct ep_str ep_a2a_json(bool old, const struct ep_a2a_method *m, struct ep_str message, struct ep_arena *arena)
{
    const struct schema *schema = NULL;
    struct ep_str text = {NULL, 0};
    struct ep_json j;

    for (size_t i = 0; i < EP_COUNT(requests); i++)
        if (ep_str_eq(m->name, ep_str(requests[i].method)))
            schema = old ? requests[i].old : requests[i].one;
    assert(schema);
    ep_json_init(&j);
    ep_json_object(&j);
    ep_json_key(&j, "params");
    if (write_message(&j, schema, message, arena)) {
        ep_json_object_end(&j);
        char *copy = ep_arena_alloc(arena, j.n + EP_SCAN_PADDING);
        memcpy(copy, j.p, j.n);
        memset(copy + j.n, 0, EP_SCAN_PADDING);
        text = ep_str_n(copy, j.n);
    }
    ep_json_fini(&j);
    return text;
}
