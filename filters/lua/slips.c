/* What a policy's function reads of its argument, found in its text.
 *
 * `c.tol` is an error when it is reached, and so a denial; found here, the file doesn't load. Only names directly behind
 * the argument count, and when anything in the function could be another variable of that name, nothing is said.
 * Source: Lua 5.4 reference manual, section 3.1. */
#include "lua/possible.h"

enum kind { END, NAME, SYMBOL, OTHER };

struct lexer {
    const char *p, *end;
    int line;
};

struct token {
    enum kind kind;
    struct ep_str text;
    int line;
};

static bool is_name(char c, bool first)
{
    char l = ep_lower(c);

    return (l >= 'a' && l <= 'z') || c == '_' || (!first && c >= '0' && c <= '9');
}

/* Behind "[", "[=", …: the level of a long bracket, or -1. */
static int level_of(const char *p, const char *end)
{
    const char *at = p + 1;

    while (at < end && *at == '=')
        at++;
    return at < end && *at == '[' ? (int)(at - p) - 1 : -1;
}

static void skip_long(struct lexer *l, int level)
{
    l->p += level + 2;
    for (; l->p < l->end; l->p++) {
        if (*l->p == '\n')
            l->line++;
        if (*l->p != ']' || l->end - l->p < level + 2)
            continue;
        int n = 0;
        while (n < level && l->p[1 + n] == '=')
            n++;
        if (n == level && l->p[1 + n] == ']') {
            l->p += level + 2;
            return;
        }
    }
}

static void skip_string(struct lexer *l)
{
    char quote = *l->p++;

    for (; l->p < l->end && *l->p != quote; l->p++) {
        if (*l->p == '\\' && l->p + 1 < l->end)
            l->p++;
        if (*l->p == '\n')
            l->line++;
    }
    if (l->p < l->end)
        l->p++;
}

static void skip_blank(struct lexer *l)
{
    while (l->p < l->end) {
        if (*l->p == '\n')
            l->line++;
        if (l->end - l->p > 1 && l->p[0] == '-' && l->p[1] == '-') {
            l->p += 2;
            int level = l->p < l->end && *l->p == '[' ? level_of(l->p, l->end) : -1;
            if (level >= 0)
                skip_long(l, level);
            else
                while (l->p < l->end && *l->p != '\n')
                    l->p++;
        } else if ((unsigned char)*l->p <= ' ') {
            l->p++;
        } else {
            return;
        }
    }
}

static struct token next(struct lexer *l)
{
    struct token t = {END, {NULL, 0}, 0};
    const char *start;

    skip_blank(l);
    t.line = l->line;
    start = l->p;
    if (l->p == l->end)
        return t;
    if (is_name(*l->p, true)) {
        t.kind = NAME;
        while (l->p < l->end && is_name(*l->p, false))
            l->p++;
    } else if (*l->p == '"' || *l->p == '\'') {
        t.kind = OTHER;
        skip_string(l);
    } else if (*l->p == '[' && level_of(l->p, l->end) >= 0) {
        t.kind = OTHER;
        skip_long(l, level_of(l->p, l->end));
    } else if (*l->p >= '0' && *l->p <= '9') {
        t.kind = OTHER;
        while (l->p < l->end && (is_name(*l->p, false) || *l->p == '.'))
            l->p++;
    } else {
        t.kind = SYMBOL;
        l->p++;
        /* "..", "...", "::", "==", "<=": one token each */
        while (l->p < l->end && ((*l->p == *start && strchr(".:=", *l->p)) || (*l->p == '=' && strchr("<>~=", *start))))
            l->p++;
    }
    t.text = ep_str_n(start, (size_t)(l->p - start));
    return t;
}

static bool is(struct token t, const char *text)
{
    return t.kind != OTHER && ep_str_eq(t.text, ep_str(text));
}

static bool is_any(struct token t, const char *const *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (is(t, v[i]))
            return true;
    return false;
}

/* Behind the `function` of the one that is meant: that of `key = function`, or the only one of its line. */
static bool find(struct lexer *l, int line, const char *key)
{
    struct token before[2] = {{END, {NULL, 0}, 0}, {END, {NULL, 0}, 0}}, t;
    struct lexer candidate = *l;
    unsigned n = 0;

    for (t = next(l); t.kind != END && t.line <= line; t = next(l)) {
        if (t.line == line && is(t, "function")) {
            candidate = *l;
            n++;
            if (is(before[1], "=") && is(before[0], key))
                return true;
        }
        before[0] = before[1];
        before[1] = t;
    }
    *l = candidate;
    return n == 1;
}

/* The name in `(name)` or `(name, …)`, with an own name of the function in front of it. */
static bool argument(struct lexer *l, struct ep_str *out)
{
    struct token t = next(l);

    while (t.kind != END && !is(t, "("))
        t = next(l);
    t = next(l);
    *out = t.text;
    while (t.kind != END && !is(t, ")"))
        t = next(l);
    return t.kind != END && out->n > 0 && is_name(out->p[0], true);
}

/* Whether `name` becomes another variable in the list that begins here, which ends at `=`, `in` or `)`. */
static bool declares(struct lexer l, struct ep_str name)
{
    for (int i = 0; i < 64; i++) {
        struct token t = next(&l);
        if (t.kind == NAME && ep_str_eq(t.text, name))
            return true;
        if (t.kind == END || is(t, "=") || is(t, "in") || is(t, ")"))
            return false;
        if (t.kind == NAME && (is(t, "function") || is(t, "local")))
            return false;
    }
    return false;
}

bool ep_policy_slips(struct ep_str text, int line, const char *key, ep_policy_known *known, void *user,
                     struct ep_policy_slip *out)
{
    static const char *const opens[] = {"function", "if", "do", "repeat"}, *const closes[] = {"end", "until"};
    static const char *const declaring[] = {"function", "local", "for"};
    struct lexer l = {text.p, text.p + text.n, 1};
    struct ep_policy_slip found = {0, {NULL, 0}, {NULL, 0}};
    struct token before = {END, {NULL, 0}, 0};
    struct ep_str name;
    int depth = 1;

    if (!find(&l, line, key) || !argument(&l, &name))
        return true;
    while (depth > 0) {
        struct token t = next(&l);
        if (t.kind == END)
            return true;
        if (t.kind == NAME && !is(before, ".") && !is(before, ":")) {
            depth += is_any(t, opens, EP_COUNT(opens));
            depth -= is_any(t, closes, EP_COUNT(closes));
            if (is_any(t, declaring, EP_COUNT(declaring)) && declares(l, name))
                return true;
            if (ep_str_eq(t.text, name)) {
                struct lexer ahead = l;
                struct token dot = next(&ahead), field = next(&ahead);
                if (is(dot, "="))
                    return true; /* another value, or a key of a table: who knows */
                if ((is(dot, ".") || is(dot, ":")) && field.kind == NAME && !found.line && !known(user, field.text))
                    found = (struct ep_policy_slip){field.line, name, field.text};
            }
        }
        before = t;
    }
    *out = found;
    return found.line == 0;
}
