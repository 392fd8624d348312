/* Which `authorize` rule decides, and why the others don't: the same code that judges requests, asked by a query string.
 * For `/authorize` of the admin server and `ephor authorize`. */
#include <stdlib.h>

#include "authorize.h"
#include "observe/json.h"

#define HEADERS_MAX 64u

enum key { LISTENER, PRINCIPAL, METHOD, HOST, PATH, PROTOCOL, TOOL, MODEL, CALL, VISIBLE, KEYS };
static const char *const keys[KEYS] = {"listener", "principal", "method", "host", "path", "protocol", "tool", "model", "call", "visible"};

struct question {
    struct ep_chunk_pool chunks;
    struct ep_arena arena;
    struct ep_str given[KEYS]; /* p NULL: not */
    struct ep_headers headers;
    struct ep_call call;
    struct ep_authorize_question q;
};

/* --- reading it --- */

static int hex(char c)
{
    c = ep_lower(c);
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static struct ep_str unescaped(struct ep_arena *arena, struct ep_str s)
{
    char *out = ep_arena_alloc(arena, s.n + 1);
    size_t n = 0;

    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '%' && s.n - i > 2 && hex(s.p[i + 1]) >= 0 && hex(s.p[i + 2]) >= 0) {
            c = (char)(hex(s.p[i + 1]) << 4 | hex(s.p[i + 2]));
            i += 2;
        }
        out[n++] = c;
    }
    out[n] = '\0';
    return ep_str_n(out, n);
}

static bool take_header(struct question *x, struct ep_str name, struct ep_str value, struct ep_error *err)
{
    char *lower = ep_arena_alloc(&x->arena, name.n + 1);

    if (!ep_header_name_valid(name) || !ep_header_value_valid(value) || x->headers.n == HEADERS_MAX)
        return ep_error_set(err, "header.%.*s is no header, or one too many", (int)EP_MIN(name.n, 64u), name.p);
    for (size_t i = 0; i < name.n; i++)
        lower[i] = ep_lower(name.p[i]);
    ep_headers_add(&x->headers, ep_str_n(lower, name.n), value);
    return true;
}

static bool take(struct question *x, struct ep_str part, struct ep_error *err)
{
    ptrdiff_t equals = ep_str_find(part, '=', 0);
    struct ep_str name, value;

    if (equals <= 0)
        return ep_error_set(err, "'%.*s' is no KEY=VALUE", (int)EP_MIN(part.n, 64u), part.p);
    name = unescaped(&x->arena, ep_str_n(part.p, (size_t)equals));
    value = unescaped(&x->arena, ep_str_n(part.p + equals + 1, part.n - (size_t)equals - 1));
    if (ep_str_starts(name, EP_STR("header.")))
        return take_header(x, ep_str_n(name.p + 7, name.n - 7), value, err);
    for (int k = 0; k < KEYS; k++)
        if (ep_str_eq(name, ep_str(keys[k]))) {
            x->given[k] = value;
            return true;
        }
    const char *near = ep_nearest(name, keys, KEYS);
    return ep_error_set(err, "there is no key '%.*s'%s%s%s; there are listener, principal, method, host, path, header.NAME, protocol, "
                             "tool, model, call, visible",
                        (int)EP_MIN(name.n, 64u), name.p, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static struct ep_str given_or(const struct question *x, enum key k, const char *preset)
{
    return x->given[k].p ? x->given[k] : ep_str(preset);
}

/* What isn't said is what it most likely is: a tool is called by MCP, a model asked by OpenAI's API, and both by POST. */
static bool complete(struct question *x, struct ep_error *err)
{
    static const char *const visible[] = {"full", "headers", "none"};
    struct ep_str protocol = given_or(x, PROTOCOL, x->given[MODEL].n ? "openai" : x->given[TOOL].n || x->given[CALL].n ? "mcp" : "http");
    bool mcp = ep_str_eq(protocol, EP_STR("mcp")), tcp = ep_str_eq(protocol, EP_STR("tcp")), known = false;
    struct ep_str seen = given_or(x, VISIBLE, tcp ? "none" : "full");

    x->call.protocol = protocol;
    x->call.tool = given_or(x, TOOL, "");
    x->call.model = given_or(x, MODEL, "");
    for (unsigned i = 0; i < EP_COUNT(visible); i++)
        if (ep_str_eq(seen, ep_str(visible[i]))) {
            x->call.visible = (enum ep_visible)i;
            known = true;
        }
    if (!known)
        return ep_error_set(err, "visible is full, headers or none");
    x->q = (struct ep_authorize_question){
        .principal = given_or(x, PRINCIPAL, ""),
        .method = given_or(x, METHOD, tcp                                                         ? "CONNECT"
                                      : ep_str_eq(protocol, EP_STR("http"))                        ? "GET"
                                                                                                   : "POST"),
        .host = given_or(x, HOST, ""),
        .path = given_or(x, PATH, tcp ? "" : "/"),
        .headers = &x->headers,
        .call = &x->call,
    };
    x->call.method = x->given[CALL].p ? x->given[CALL] : mcp && x->call.tool.n ? EP_STR("tools/call") : mcp ? EP_STR("") : x->q.method;
    return true;
}

/* --- answering --- */

static struct ep_str list_of(struct ep_arena *arena, const struct ep_vec *v)
{
    const struct ep_str *s = v->v;
    struct ep_str out = EP_STR("");

    for (size_t i = 0; i < v->n && out.n < 400; i++)
        out = ep_arena_printf(arena, "%.*s%s%.*s", EP_STR_ARG(out), i ? ", " : "", EP_STR_ARG(s[i]));
    return out;
}

static struct ep_str because_header(struct question *x, const struct ep_authorize_config *r)
{
    const struct ep_pair *wanted = r->headers.v;

    for (size_t k = 0; k < r->headers.n; k++) {
        struct ep_authorize_config one = {.headers = {(void *)(uintptr_t)&wanted[k], 1}, .action = r->action};
        if (ep_authorize_rule(&one, &x->q, false) == EP_AUTHORIZE_MATCHES)
            continue;
        struct ep_str value = ep_headers_get(&x->headers, wanted[k].key);
        return value.p ? ep_arena_printf(&x->arena, "header %.*s is '%.*s', not '%.*s'", EP_STR_ARG(wanted[k].key), EP_STR_ARG(value),
                                         EP_STR_ARG(wanted[k].value))
                       : ep_arena_printf(&x->arena, "there is no header %.*s", EP_STR_ARG(wanted[k].key));
    }
    return EP_STR("a header differs");
}

static struct ep_str because(struct question *x, const struct ep_authorize_config *r, enum ep_authorize_why why)
{
    const struct ep_authorize_question *q = &x->q;
    struct ep_arena *a = &x->arena;
    bool hidden = x->call.visible != EP_VISIBLE_FULL;

    switch (why) {
    case EP_AUTHORIZE_MATCHES:
        return hidden && ep_authorize_needs_call(r) && r->action == 1 ? EP_STR("matches: of a call that can't be seen a deny rule "
                                                                                   "takes the worst")
                                                                          : EP_STR("matches");
    case EP_AUTHORIZE_PRINCIPAL:
        return q->principal.n ? ep_arena_printf(a, "principal '%.*s' is none of %.*s", EP_STR_ARG(q->principal),
                                                EP_STR_ARG(list_of(a, &r->principals)))
                              : EP_STR("the caller has no identity, and the rule names principals");
    case EP_AUTHORIZE_METHOD:
        return ep_arena_printf(a, "method '%.*s' is none of %.*s", EP_STR_ARG(q->method), EP_STR_ARG(list_of(a, &r->methods)));
    case EP_AUTHORIZE_HOST:
        return ep_arena_printf(a, "host '%.*s' is none of %.*s", EP_STR_ARG(q->host), EP_STR_ARG(list_of(a, &r->hosts)));
    case EP_AUTHORIZE_HEADER:
        return because_header(x, r);
    case EP_AUTHORIZE_PATH:
        return ep_arena_printf(a, "path '%.*s' is none of %.*s%s", EP_STR_ARG(q->path), EP_STR_ARG(list_of(a, &r->paths)),
                               r->action == 0 ? ", as it is written and as it is meant" : "");
    case EP_AUTHORIZE_PROTOCOL:
        return hidden ? EP_STR("the call can't be seen, and the rule names protocols")
                      : ep_arena_printf(a, "protocol '%.*s' is none of %.*s", EP_STR_ARG(x->call.protocol),
                                        EP_STR_ARG(list_of(a, &r->protocols)));
    case EP_AUTHORIZE_MODEL:
        return x->call.model.n && !hidden ? ep_arena_printf(a, "model '%.*s' is none of %.*s", EP_STR_ARG(x->call.model),
                                                            EP_STR_ARG(list_of(a, &r->models)))
                                          : EP_STR("no model can be seen, and the rule names models");
    case EP_AUTHORIZE_TOOL:
        break;
    }
    if (x->call.tool.n)
        return ep_arena_printf(a, "tool '%.*s' is none of %.*s", EP_STR_ARG(x->call.tool), EP_STR_ARG(list_of(a, &r->tools)));
    return hidden ? EP_STR("the call can't be seen, and the rule names tools") : EP_STR("the call names no tool, and the rule does");
}

static void place(struct ep_json *out, const char *file, const struct ep_authorize_config *r, struct ep_arena *arena)
{
    if (r->where.line)
        ep_json_kstr(out, "where", ep_arena_printf(arena, "%s:%d", file, r->where.line));
}

static void one_rule(struct question *x, const struct ep_authorize *a, size_t i, const char *file, bool decided, struct ep_json *out)
{
    const struct ep_authorize_config *r = &a->rules[i];
    enum ep_authorize_why why = ep_authorize_rule(r, &x->q, a->needs_call);

    ep_json_object(out);
    ep_json_kuint(out, "rule", i);
    ep_json_kstr(out, "action", r->action == 1 ? EP_STR("deny") : EP_STR("allow"));
    place(out, file, r, &x->arena);
    ep_json_kbool(out, "matches", why == EP_AUTHORIZE_MATCHES);
    ep_json_kstr(out, "because", because(x, r, why));
    if (decided)
        ep_json_kbool(out, "decides", true);
    ep_json_object_end(out);
}

static void answer(struct question *x, const struct ep_listener_config *l, const char *file, struct ep_json *out)
{
    struct ep_authorize a;
    struct ep_authorize_verdict v;

    ep_authorize_init(&a, l);
    v = ep_authorize_judge(&a, &x->q, a.needs_call ? EP_AUTHORIZE_CALL : EP_AUTHORIZE_HEAD);
    ep_json_object(out);
    ep_json_kstr(out, "listener", l->name);
    ep_json_kstr(out, "decision", v.denied ? EP_STR("deny") : EP_STR("allow"));
    if (v.rule >= 0) {
        ep_json_kuint(out, "rule", (uint64_t)v.rule);
        place(out, file, &a.rules[v.rule], &x->arena);
        ep_json_kstr(out, "because", v.denied ? EP_STR("a deny rule matches: those go first") : EP_STR("no deny rule matches, and this allow rule does"));
    } else {
        ep_json_kstr(out, "because",
                     v.denied ? EP_STR("there are allow rules, and none of them matches")
                     : a.n    ? EP_STR("there are deny rules alone, and none of them matches")
                              : EP_STR("the listener has no rules: everybody who gets in may call"));
    }
    ep_json_key(out, "rules");
    ep_json_array(out);
    for (int action = 1; action >= 0; action--) /* in the order of judging */
        for (size_t i = 0; i < a.n; i++)
            if (a.rules[i].action == action)
                one_rule(x, &a, i, file, (int)i == v.rule, out);
    ep_json_array_end(out);
    ep_json_object_end(out);
}

static const struct ep_listener_config *find(const struct ep_vec *listeners, struct ep_str name, struct ep_error *err)
{
    const struct ep_listener_config *l = listeners->v;
    const char **names, *near;

    if (!name.p && listeners->n == 1)
        return l;
    for (size_t i = 0; i < listeners->n; i++)
        if (ep_str_eq(l[i].name, name))
            return &l[i];
    if (!name.p) {
        ep_error_set(err, "there is more than one listener: say which, listener=%.*s", l ? (int)l[0].name.n : 0, l ? l[0].name.p : "");
        return NULL;
    }
    names = ep_calloc(listeners->n + 1, sizeof *names);
    for (size_t i = 0; i < listeners->n; i++)
        names[i] = ep_strndup(l[i].name.p, l[i].name.n);
    near = ep_nearest(name, names, listeners->n);
    ep_error_set(err, "there is no listener '%.*s'%s%s%s", (int)EP_MIN(name.n, 64u), name.p, near ? "; did you mean '" : "",
                 near ? near : "", near ? "'?" : "");
    for (size_t i = 0; i < listeners->n; i++)
        free((void *)(uintptr_t)names[i]);
    free(names);
    return NULL;
}

bool ep_authorize_explain(const struct ep_vec *listeners, const char *file, struct ep_str query, struct ep_json *out,
                          struct ep_error *err)
{
    struct question *x = ep_calloc(1, sizeof *x);
    const struct ep_listener_config *l = NULL;
    struct ep_str part;
    bool good = true;

    ep_chunk_pool_init(&x->chunks, 0);
    ep_arena_init(&x->arena, &x->chunks);
    ep_headers_init(&x->headers, &x->arena);
    while (good && ep_str_next(&query, '&', &part))
        good = !part.n || take(x, part, err);
    good = good && complete(x, err) && (l = find(listeners, x->given[LISTENER], err));
    if (good)
        answer(x, l, file, out);
    ep_headers_fini(&x->headers);
    ep_arena_fini(&x->arena);
    ep_chunk_pool_fini(&x->chunks);
    free(x);
    return good;
}
