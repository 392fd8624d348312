/* Language models: the record of what one is asked, filled from the scan of the body. model.h has the picture; the text of
 * the prompt is made in model_prompt.c. Sources: OpenAI's and Anthropic's API references, AGENTS.md sections 4 and 5. */
#include "agent/model.h"

#include "agent/agent.h"
#include "observe/json.h"

#define KEY_MAX     64u /* longer keys are none of ours */
#define NESTING_MAX 4u  /* of lists of tools in tools */

static const struct ep_str none = {NULL, 0};

static struct ep_str raw_of(const struct ep_scan_value *v)
{
    return v->kind > EP_SCAN_NULL ? ep_agent_str(v->raw) : none;
}

static struct ep_str text_of(const struct ep_scan_value *v)
{
    return v->kind == EP_SCAN_STRING ? ep_agent_str(v->text) : none;
}

static bool is_true(const struct ep_scan_value *v)
{
    return v->kind == EP_SCAN_BOOL && v->raw.n == 4;
}

/* --- members of an object that the scan has only checked --- */

/* Keys come with their escapes, and to some servers in any case. */
static bool key_is(struct ep_str key, const char *name)
{
    char plain[KEY_MAX];

    if (!memchr(key.p, '\\', key.n))
        return ep_str_caseeq(key, ep_str(name));
    return ep_str_caseeq(ep_str_n(plain, ep_json_plain(ep_str_n(key.p - 1, key.n + 2), plain, sizeof plain)), ep_str(name));
}

static struct ep_str unquoted(struct ep_str value, struct ep_arena *arena)
{
    char *out;

    if (!memchr(value.p, '\\', value.n))
        return ep_str_n(value.p + 1, value.n - 2);
    out = ep_arena_alloc(arena, value.n);
    return ep_str_n(out, ep_json_plain(value, out, value.n));
}

/* A member that is a string; empty: there is none. */
static struct ep_str string_in(struct ep_str object, const char *name, struct ep_arena *arena)
{
    struct ep_str rest = object, key, value;

    while (object.n && object.p[0] == '{' && ep_json_next(&rest, &key, &value))
        if (key_is(key, name) && value.p[0] == '"')
            return unquoted(value, arena);
    return none;
}

/* --- the record --- */

static struct ep_str number(const struct ep_scan_value *v)
{
    return v->kind == EP_SCAN_NUMBER ? ep_agent_str(v->raw) : none;
}

/* Who gives two limits gets what the model makes of them: the larger one is the safe guess. */
static struct ep_str most(struct ep_str a, struct ep_str b)
{
    uint64_t x, y;

    if (!a.n || !b.n)
        return a.n ? a : b;
    return ep_str_u64(a, &x) && ep_str_u64(b, &y) && x >= y ? a : b;
}

static struct ep_str first(struct ep_str a, struct ep_str b)
{
    return a.n ? a : b;
}

void ep_model_fill(struct ep_call *c, const struct ep_scan_message *m, struct ep_arena *arena)
{
    struct ep_model_request *r = EP_ARENA_NEW(arena, struct ep_model_request);

    *r = (struct ep_model_request){
        .raw = {[EP_MODEL_SYSTEM] = raw_of(&m->system),
                [EP_MODEL_INSTRUCTIONS] = raw_of(&m->instructions),
                [EP_MODEL_MESSAGES] = raw_of(&m->messages),
                [EP_MODEL_INPUT] = raw_of(&m->input),
                [EP_MODEL_PROMPT] = raw_of(&m->prompt),
                [EP_MODEL_TOOLS] = raw_of(&m->tools),
                [EP_MODEL_FUNCTIONS] = raw_of(&m->functions),
                [EP_MODEL_SERVERS] = raw_of(&m->mcp_servers)},
        .max_tokens = most(most(number(&m->max_tokens), number(&m->max_completion_tokens)), number(&m->max_output_tokens)),
        .choices = number(&m->choices),
        .user = first(text_of(&m->user), text_of(&m->safety_identifier)),
        .previous = first(text_of(&m->previous_response_id), text_of(&m->conversation)),
        .background = is_true(&m->background),
    };
    r->user = first(r->user, string_in(raw_of(&m->metadata), "user_id", arena));
    r->previous = first(r->previous, string_in(raw_of(&m->conversation), "id", arena));
    c->model = text_of(&m->model);
    c->stream = is_true(&m->stream);
    c->to_model = r;
}

/* --- a batch --- */

static struct ep_scan_value scanned(struct ep_str value, struct ep_arena *arena)
{
    static const enum ep_scan_kind kinds[256] = {
        ['{'] = EP_SCAN_OBJECT, ['['] = EP_SCAN_ARRAY, ['"'] = EP_SCAN_STRING, ['t'] = EP_SCAN_BOOL,
        ['f'] = EP_SCAN_BOOL,   ['n'] = EP_SCAN_NULL,
    };
    enum ep_scan_kind kind = kinds[(unsigned char)value.p[0]];
    struct ep_str text = kind == EP_SCAN_STRING ? unquoted(value, arena) : value;

    return (struct ep_scan_value){kind ? kind : EP_SCAN_NUMBER, {value.p, value.n}, {text.p, text.n}};
}

/* `params` of one request. False: a key is given in two cases, which two readers read as two requests. */
static bool scan_params(struct ep_str params, struct ep_scan_message *m, struct ep_arena *arena)
{
    const struct {
        const char *key;
        struct ep_scan_value *into;
    } wanted[] = {
        {"model", &m->model}, {"system", &m->system},           {"messages", &m->messages},     {"tools", &m->tools},
        {"n", &m->choices},   {"mcp_servers", &m->mcp_servers}, {"max_tokens", &m->max_tokens}, {"metadata", &m->metadata},
        {"stream", &m->stream},
    };
    struct ep_str key, value;

    if (!params.n || params.p[0] != '{')
        return false;
    while (ep_json_next(&params, &key, &value))
        for (size_t i = 0; i < EP_COUNT(wanted); i++) {
            if (!key_is(key, wanted[i].key))
                continue;
            if (wanted[i].into->kind)
                return false;
            *wanted[i].into = scanned(value, arena);
        }
    return true;
}

bool ep_model_fill_batch(struct ep_call *first_call, struct ep_str requests, struct ep_arena *arena, bool *too_many)
{
    struct ep_str rest = requests, member, key, request;
    struct ep_call *c = NULL;
    unsigned n = 0;

    *too_many = false;
    while (requests.n && requests.p[0] == '[' && ep_json_next(&rest, &key, &request)) {
        struct ep_scan_message m = {.is_object = true};
        struct ep_str params = none, value, id = none;
        if (n++ == EP_MODEL_BATCH_MAX) {
            *too_many = true;
            return false;
        }
        for (member = request; request.p[0] == '{' && ep_json_next(&member, &key, &value);) {
            if (key_is(key, "custom_id") && value.p[0] == '"')
                id = unquoted(value, arena);
            if (!key_is(key, "params"))
                continue;
            if (params.n)
                return false;
            params = value;
        }
        if (!scan_params(params, &m, arena))
            return false;
        if (c) {
            c->next = EP_ARENA_NEW(arena, struct ep_call);
            *c->next = *first_call;
            c = c->next;
            c->next = NULL;
        } else {
            c = first_call;
        }
        c->batch = true;
        c->id_text = id;
        ep_model_fill(c, &m, arena);
    }
    return true;
}

/* --- what is offered --- */

static void add(struct ep_model_names *names, struct ep_str name, struct ep_arena *arena)
{
    unsigned cap = 4;

    if (!name.n)
        return;
    while (cap < names->n)
        cap *= 2;
    if (names->n == 0 || names->n == cap) {
        struct ep_str *more = ep_arena_alloc(arena, (names->n ? 2 * cap : cap) * sizeof *more);
        if (names->n)
            memcpy(more, names->v, names->n * sizeof *more);
        names->v = more;
    }
    names->v[names->n++] = name;
}

/* Kinds that say nothing beside the name. */
static bool is_plain(struct ep_str type)
{
    static const char *const plain[] = {"function", "custom", "mcp", "mcp_toolset", "namespace", "url"};

    for (size_t i = 0; i < EP_COUNT(plain); i++)
        if (ep_str_eq(type, ep_str(plain[i])))
            return true;
    return false;
}

/* Each name that one of the readers takes: of "name" and "function.name" one API reads this, the other that. */
static void offered(struct ep_model_request *r, struct ep_str list, unsigned depth, struct ep_arena *arena)
{
    struct ep_str rest = list, tool, key, value;

    if (!list.n || (list.p[0] != '[' && list.p[0] != '{') || depth > NESTING_MAX)
        return;
    while (ep_json_next(&rest, &key, &tool)) {
        struct ep_str member = tool;
        while (tool.p[0] == '{' && ep_json_next(&member, &key, &value)) {
            bool string = value.p[0] == '"';
            if (string && (key_is(key, "name") || key_is(key, "server_label") || key_is(key, "mcp_server_name")))
                add(&r->tools, unquoted(value, arena), arena);
            else if (string && key_is(key, "type") && !is_plain(unquoted(value, arena)))
                add(&r->tools, unquoted(value, arena), arena);
            else if (string && (key_is(key, "server_url") || key_is(key, "connector_id") || key_is(key, "url")))
                add(&r->servers, unquoted(value, arena), arena);
            else if (key_is(key, "function") || key_is(key, "custom"))
                add(&r->tools, string_in(value, "name", arena), arena);
            else if (key_is(key, "tools"))
                offered(r, value, depth + 1, arena);
        }
    }
}

static void name(struct ep_model_request *r, struct ep_arena *arena)
{
    if (r->named)
        return;
    r->named = true;
    for (int i = EP_MODEL_TOOLS; i < EP_MODEL_PARTS; i++)
        offered(r, r->raw[i], 1, arena);
}

const struct ep_model_names *ep_model_tools(struct ep_model_request *r, struct ep_arena *arena)
{
    name(r, arena);
    return &r->tools;
}

const struct ep_model_names *ep_model_servers(struct ep_model_request *r, struct ep_arena *arena)
{
    name(r, arena);
    return &r->servers;
}

void ep_model_forget(struct ep_model_request *r)
{
    r->read = r->named = false;
    r->prompt = none;
    memset(r->media, 0, sizeof r->media);
    r->tools = r->servers = (struct ep_model_names){NULL, 0};
}
