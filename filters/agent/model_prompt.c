/* The text of a prompt: all that is said, by whomever, in its order, one piece a line.
 *
 * The parts of the APIs change from month to month and nest (a tool's result in a message, a document in the result), so
 * nothing is looked for: each string is text, unless its key says that it is a name, a kind, a number of something or data.
 * What a model said to a tool (`input` of a call, variables of a stored prompt) is text whole, keys and numbers too. */
#include "agent/model.h"

#include "agent/agent.h"
#include "agent/json_walk.h"
#include "observe/json.h"

#define DEPTH_MAX (EP_SCAN_DEPTH_MAX + 1) /* the scan has let nothing deeper in */
#define WORD_MAX  32u

struct frame {
    struct ep_str key;  /* of the member that is read; an array has that of its own */
    struct ep_str data; /* a member `data`, until the object's kind is known */
    bool object, free;  /* free: all in it is text */
    bool sealed;        /* its kind says that `data` is no text */
    bool typed, format;
};

struct reader {
    char *out;
    size_t n;
    unsigned *media;
};

/* Names, kinds and sealed data: nothing that a model reads. */
static bool is_no_text(struct ep_str key)
{
    return (key.n > 3 && ep_str_eq(ep_str_n(key.p + key.n - 3, 3), EP_STR("_id"))) ||
           EP_WALK_IS_ANY(key, "id", "role", "status", "media_type", "format", "detail", "ttl", "signature", "encrypted_content",
                  "encrypted_index", "file_data", "b64_json");
}

static bool is_url(struct ep_str key)
{
    return EP_WALK_IS_ANY(key, "url", "image_url", "file_url");
}

static void put(struct reader *r, struct ep_str value)
{
    if (r->n)
        r->out[r->n++] = '\n';
    r->n += ep_json_plain(value, r->out + r->n, value.n);
}

static void see_type(struct reader *r, struct frame *f, struct ep_str value)
{
    static const struct {
        const char *type;
        enum ep_model_media media;
    } kinds[] = {
        {"image", EP_MODEL_IMAGE},
        {"image_url", EP_MODEL_IMAGE},
        {"input_image", EP_MODEL_IMAGE},
        {"computer_screenshot", EP_MODEL_IMAGE},
        {"audio", EP_MODEL_AUDIO},
        {"input_audio", EP_MODEL_AUDIO},
        {"file", EP_MODEL_FILE},
        {"input_file", EP_MODEL_FILE},
        {"document", EP_MODEL_FILE},
        {"container_upload", EP_MODEL_FILE},
        {"item_reference", EP_MODEL_REFERENCE},
    };
    char word[WORD_MAX];
    struct ep_str type = ep_str_n(word, ep_json_plain(value, word, sizeof word));

    f->typed = true;
    f->sealed |= EP_WALK_IS_ANY(type, "base64", "redacted_thinking");
    for (size_t i = 0; i < EP_COUNT(kinds); i++)
        if (ep_str_eq(type, ep_str(kinds[i].type)))
            r->media[kinds[i].media]++;
}

static void see_string(struct reader *r, struct frame *f, struct ep_str value)
{
    if (f->free) {
        put(r, value);
    } else if (f->object && ep_str_eq(f->key, EP_STR("type"))) {
        see_type(r, f, value);
    } else if (f->object && ep_str_eq(f->key, EP_STR("data"))) {
        f->data = value;
    } else if (!is_no_text(f->key) && !(is_url(f->key) && ep_str_casestarts(value, EP_STR("\"data:")))) {
        put(r, value);
    }
    f->format |= ep_str_eq(f->key, EP_STR("format"));
}

/* {"type": "base64", "data": …}, {"data": …, "format": "wav"}: sealed. {"type": "text", "data": …}: text. */
static void leave(struct reader *r, const struct frame *f)
{
    if (f->data.n && !f->sealed && (f->typed || !f->format))
        put(r, f->data);
}

/* One part, which the scan has found to be JSON. */
static void read_part(struct reader *r, struct ep_str json)
{
    struct frame v[DEPTH_MAX + 1] = {{.free = false}}, *f = v;
    const char *p = json.p, *end = json.p + json.n, *e;
    unsigned objects = 0;

    while (p < end) {
        char c = *p;
        e = p + 1;
        if ((c == '{' || c == '[') && f < v + DEPTH_MAX) {
            bool free = f->free || (c == '{' && f->object && EP_WALK_IS_ANY(f->key, "input", "arguments", "variables"));
            struct ep_str key = f->key;
            *++f = (struct frame){.object = c == '{', .free = free, .key = c == '{' ? (struct ep_str){NULL, 0} : key};
            objects += c == '{';
        } else if ((c == '}' || c == ']') && f > v) {
            objects -= f->object;
            leave(r, f--);
        } else if (c == '"') {
            e = ep_walk_string(p, end);
            struct ep_str value = ep_str_n(p, (size_t)(e - p));
            if (f->object && ep_walk_is_key(e, end)) {
                f->key = ep_str_n(p + 1, value.n - 2);
                if (f->free)
                    put(r, value);
            } else {
                see_string(r, f, value);
            }
        } else if (c == '-' || (c >= '0' && c <= '9')) {
            while (e < end && memchr("0123456789+-.eE", *e, 15))
                e++;
            if (f->free)
                put(r, ep_str_n(p, (size_t)(e - p)));
            else if (objects == 0)
                r->media[EP_MODEL_TOKENS]++;
        }
        p = e;
    }
}

static void read_all(struct ep_model_request *m, struct ep_arena *arena)
{
    struct reader r = {.media = m->media};
    size_t room = 0;

    if (m->read)
        return;
    m->read = true;
    for (int i = 0; i < EP_MODEL_TOOLS; i++)
        room += m->raw[i].n + 1; /* a string loses its quotes and gets a line break, a number loses what divides it */
    r.out = ep_arena_alloc(arena, room);
    for (int i = 0; i < EP_MODEL_TOOLS; i++)
        if (m->raw[i].n)
            read_part(&r, m->raw[i]);
    m->prompt = ep_str_n(r.out, r.n);
    m->media[EP_MODEL_REFERENCE] += m->previous.n > 0;
    m->media[EP_MODEL_REFERENCE] += m->raw[EP_MODEL_PROMPT].n && m->raw[EP_MODEL_PROMPT].p[0] == '{';
}

struct ep_str ep_model_prompt(struct ep_model_request *r, struct ep_arena *arena)
{
    read_all(r, arena);
    return r->prompt;
}

const unsigned *ep_model_media(struct ep_model_request *r, struct ep_arena *arena)
{
    read_all(r, arena);
    return r->media;
}

const char *ep_model_media_name(enum ep_model_media m)
{
    static const char *const names[] = {"image", "audio", "file", "reference", "tokens"};

    return names[m];
}
