/* The matcher: match.h has the design. */
#include "lua/match.h"

#include <ctype.h>

/* --- one character against one item --- */

static bool in_class(int c, int letter)
{
    bool in;

    switch (tolower(letter)) {
    case 'a':
        in = isalpha(c);
        break;
    case 'c':
        in = iscntrl(c);
        break;
    case 'd':
        in = isdigit(c);
        break;
    case 'g':
        in = isgraph(c);
        break;
    case 'l':
        in = islower(c);
        break;
    case 'p':
        in = ispunct(c);
        break;
    case 's':
        in = isspace(c);
        break;
    case 'u':
        in = isupper(c);
        break;
    case 'w':
        in = isalnum(c);
        break;
    case 'x':
        in = isxdigit(c);
        break;
    case 'z':
        in = c == 0; /* of 5.1; gone from the manual, not from the library */
        break;
    default:
        return letter == c;
    }
    return isupper(letter) ? !in : in;
}

/* Where the item that starts at p ends: after "x", "%x" or "[...]". */
static const char *item_end(struct ep_matcher *m, const char *p)
{
    const char *begin = p;
    char first = *p++;

    if (first == '%') {
        if (p == m->pattern_end)
            luaL_error(m->L, "malformed pattern (ends with '%%')");
        return p + 1;
    }
    if (first != '[')
        return p;
    if (p < m->pattern_end && *p == '^')
        p++;
    for (bool at_start = true;; at_start = false) { /* a ']' at the start stands for itself */
        if (p >= m->pattern_end)
            luaL_error(m->L, "malformed pattern (missing ']')");
        char c = *p++;
        if (c == '%') {
            if (p >= m->pattern_end)
                luaL_error(m->L, "malformed pattern (missing ']')");
            p++;
        } else if (c == ']' && !at_start) {
            m->steps += (unsigned)(p - begin) / 8;
            return p;
        }
    }
}

/* p is the '[', last the ']'. */
static bool in_set(int c, const char *p, const char *last)
{
    bool found = true;

    if (*++p == '^') {
        found = false;
        p++;
    }
    for (; p < last; p++) {
        if (*p == '%') {
            p++;
            if (in_class(c, (unsigned char)*p))
                return found;
        } else if (p[1] == '-' && p + 2 < last) {
            if ((unsigned char)p[0] <= c && c <= (unsigned char)p[2])
                return found;
            p += 2;
        } else if ((unsigned char)*p == c) {
            return found;
        }
    }
    return !found;
}

static inline bool one(struct ep_matcher *m, const char *s, const char *p, const char *p_end)
{
    if (s >= m->end)
        return false;
    int c = (unsigned char)*s;
    switch (*p) {
    case '.':
        return true;
    case '%':
        return in_class(c, (unsigned char)p[1]);
    case '[':
        m->steps += (unsigned)(p_end - p) / 4;
        return in_set(c, p, p_end - 1);
    default:
        return (unsigned char)*p == c;
    }
}

/* --- frames --- */

static struct ep_matcher_frame *push(struct ep_matcher *m, enum ep_matcher_choice kind)
{
    struct ep_matcher_frame *f = &m->frames[m->n_frames++];

    f->kind = kind;
    return f;
}

/* What follows is one level deeper. */
static void check_depth(struct ep_matcher *m)
{
    if (EP_UNLIKELY(m->n_frames >= EP_MATCH_DEPTH_MAX))
        luaL_error(m->L, "pattern too complex");
}

static void open_capture(struct ep_matcher *m, const char *s, ptrdiff_t kind)
{
    if (m->n_captures >= EP_MATCH_CAPTURES_MAX)
        luaL_error(m->L, "too many captures");
    m->capture[m->n_captures].p = s;
    m->capture[m->n_captures].n = kind;
    m->n_captures++;
    push(m, EP_FRAME_OPENED);
    check_depth(m);
}

static void close_capture(struct ep_matcher *m, const char *s)
{
    int i = m->n_captures;

    while (i > 0 && m->capture[i - 1].n != EP_CAPTURE_OPEN)
        i--;
    if (i == 0)
        luaL_error(m->L, "invalid pattern capture");
    m->capture[i - 1].n = s - m->capture[i - 1].p;
    push(m, EP_FRAME_CLOSED)->capture = i - 1;
    check_depth(m);
}

/* --- items that are no single characters: where s goes on, or NULL --- */

/* %1 … %9: the same text again. */
static const char *same_again(struct ep_matcher *m, const char *s, char digit)
{
    int i = digit - '1';

    if (i < 0 || i >= m->n_captures || m->capture[i].n == EP_CAPTURE_OPEN)
        luaL_error(m->L, "invalid capture index %%%d", i + 1);
    if (m->capture[i].n == EP_CAPTURE_POSITION) /* a place has no text */
        return NULL;
    size_t n = (size_t)m->capture[i].n;
    m->steps += (unsigned)(n / 16) + 1;
    if ((size_t)(m->end - s) < n || memcmp(s, m->capture[i].p, n) != 0)
        return NULL;
    return s + n;
}

/* %bxy begins; p is at the '%'. */
static bool opens_balanced(struct ep_matcher *m, const char *s, const char *p)
{
    if (p + 3 >= m->pattern_end)
        luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
    return s < m->end && *s == p[2];
}

/* %f[set]: a border; p is at the set. Returns where the pattern goes on, or NULL. */
static const char *frontier(struct ep_matcher *m, const char *s, const char *p)
{
    const char *p_end;
    int before = s == m->begin ? 0 : (unsigned char)s[-1], here = s < m->end ? (unsigned char)*s : 0;

    if (p >= m->pattern_end || *p != '[')
        luaL_error(m->L, "missing '[' after '%%f' in pattern");
    p_end = item_end(m, p);
    return !in_set(before, p, p_end - 1) && in_set(here, p, p_end - 1) ? p_end : NULL;
}

/* --- the modes: each returns the next one --- */

static enum ep_matcher_mode stand(struct ep_matcher *m, const char *s, const char *p, enum ep_matcher_mode next)
{
    m->s = s;
    m->p = p;
    return next;
}

/* A single character and its suffix, if it has one. FORWARD: *s and *p have moved on. */
static inline enum ep_matcher_mode forward_single(struct ep_matcher *m, const char **s, const char **p)
{
    const char *item = *p, *after = item_end(m, item);
    char suffix = after < m->pattern_end ? *after : '\0';
    struct ep_matcher_frame *f;

    switch (suffix) {
    case '*':
    case '+':
        f = push(m, EP_FRAME_GREEDY);
        f->s = *s;
        f->least = *s + (suffix == '+');
        f->p = item;
        f->after = after;
        return EP_MATCHER_SCAN;
    case '-':
        f = push(m, EP_FRAME_LAZY);
        f->s = *s;
        f->p = item;
        f->after = after;
        check_depth(m);
        *p = after + 1;
        return EP_MATCHER_FORWARD;
    case '?':
        if (one(m, *s, item, after)) {
            f = push(m, EP_FRAME_OPTIONAL);
            f->s = *s;
            f->after = after;
            check_depth(m);
            ++*s;
        }
        *p = after + 1;
        return EP_MATCHER_FORWARD;
    default:
        if (!one(m, *s, item, after))
            return EP_MATCHER_BACK;
        ++*s;
        *p = after;
        return EP_MATCHER_FORWARD;
    }
}

static enum ep_matcher_mode forward(struct ep_matcher *m)
{
    const char *s = m->s, *p = m->p, *pattern_end = m->pattern_end;
    enum ep_matcher_mode next;

    while (p != pattern_end) {
        char second = p + 1 < pattern_end ? p[1] : '\0';
        if (EP_UNLIKELY(m->steps >= m->steps_max))
            return stand(m, s, p, EP_MATCHER_FORWARD);
        m->steps++;
        if (*p == '(') {
            open_capture(m, s, second == ')' ? EP_CAPTURE_POSITION : EP_CAPTURE_OPEN);
            p += second == ')' ? 2 : 1;
        } else if (*p == ')') {
            close_capture(m, s);
            p++;
        } else if (*p == '$' && p + 1 == pattern_end) {
            return s == m->end ? stand(m, s, p, EP_MATCHER_FITS) : EP_MATCHER_BACK;
        } else if (*p == '%' && second == 'b') {
            if (!opens_balanced(m, s, p))
                return EP_MATCHER_BACK;
            m->level = 1;
            return stand(m, s, p, EP_MATCHER_BALANCE);
        } else if (*p == '%' && second == 'f') {
            p = frontier(m, s, p + 2);
            if (!p)
                return EP_MATCHER_BACK;
        } else if (*p == '%' && second >= '0' && second <= '9') {
            s = same_again(m, s, second);
            if (!s)
                return EP_MATCHER_BACK;
            p += 2;
        } else {
            next = forward_single(m, &s, &p);
            if (next != EP_MATCHER_FORWARD)
                return next;
        }
    }
    return stand(m, s, p, EP_MATCHER_FITS);
}

static enum ep_matcher_mode scan(struct ep_matcher *m)
{
    struct ep_matcher_frame *f = &m->frames[m->n_frames - 1];
    const char *s = f->s, *p = f->p, *after = f->after;

    if (*p == '.')
        s = m->end;
    while (one(m, s, p, after)) {
        s++;
        if (EP_UNLIKELY(++m->steps >= m->steps_max)) {
            f->s = s;
            return EP_MATCHER_SCAN;
        }
    }
    f->s = s;
    if (s < f->least) {
        m->n_frames--;
        return EP_MATCHER_BACK;
    }
    check_depth(m);
    return stand(m, s, after + 1, EP_MATCHER_FORWARD);
}

static enum ep_matcher_mode balance(struct ep_matcher *m)
{
    const char *s = m->s;
    char opens = m->p[2], closes = m->p[3];

    while (++s < m->end) {
        if (*s == closes) {
            if (--m->level == 0)
                return stand(m, s + 1, m->p + 4, EP_MATCHER_FORWARD);
        } else if (*s == opens) {
            m->level++;
        }
        if (EP_UNLIKELY(++m->steps >= m->steps_max))
            return stand(m, s, m->p, EP_MATCHER_BALANCE);
    }
    return EP_MATCHER_BACK;
}

static enum ep_matcher_mode back(struct ep_matcher *m)
{
    while (m->n_frames > 0) {
        struct ep_matcher_frame *f = &m->frames[m->n_frames - 1];
        switch (f->kind) {
        case EP_FRAME_GREEDY:
            if (f->s > f->least) {
                f->s--;
                return stand(m, f->s, f->after + 1, EP_MATCHER_FORWARD);
            }
            break;
        case EP_FRAME_LAZY:
            if (one(m, f->s, f->p, f->after)) {
                m->steps++;
                f->s++;
                return stand(m, f->s, f->after + 1, EP_MATCHER_FORWARD);
            }
            break;
        case EP_FRAME_OPTIONAL:
            m->n_frames--;
            return stand(m, f->s, f->after + 1, EP_MATCHER_FORWARD);
        case EP_FRAME_OPENED:
            m->n_captures--;
            break;
        case EP_FRAME_CLOSED:
            m->capture[f->capture].n = EP_CAPTURE_OPEN;
            break;
        }
        m->n_frames--;
    }
    return EP_MATCHER_FAILS;
}

/* --- the outside --- */

/* Most places where a search tries to match fail at the first item: that is found without a start of the machine. */
static void find_first(struct ep_matcher *m)
{
    const char *p = m->pattern, *end = m->pattern_end, *after;
    char second;

    m->first = NULL;
    if (p < end && *p == '(') /* of a capture; two in a row are left to the machine */
        p++;
    second = p + 1 < end ? p[1] : '\0';
    if (p == end || *p == '(' || *p == ')' || (*p == '$' && p + 1 == end))
        return;
    if (*p == '%' && (second == 'b' || second == 'f' || (second >= '0' && second <= '9')))
        return;
    after = item_end(m, p);
    if (after < end && (*after == '*' || *after == '-' || *after == '?'))
        return;
    m->first = p;
    m->first_end = after;
}

void ep_matcher_init(struct ep_matcher *m, lua_State *L, struct ep_str subject, struct ep_str pattern, bool whole)
{
    m->L = L;
    m->begin = subject.p;
    m->end = subject.p + subject.n;
    m->pattern = pattern.p;
    m->pattern_end = pattern.p + pattern.n;
    m->steps = 0;
    m->steps_max = ep_lua_of(L)->match_steps;
    m->whole = whole;
    find_first(m);
}

void ep_matcher_start(struct ep_matcher *m, const char *s)
{
    m->s = s;
    m->p = m->pattern;
    m->n_frames = m->n_captures = 0;
    m->steps++;
    m->mode = m->first && !one(m, s, m->first, m->first_end) ? EP_MATCHER_FAILS : EP_MATCHER_FORWARD;
}

void ep_matcher_spend(struct ep_matcher *m, size_t n)
{
    m->steps += (unsigned)EP_MIN(n, 1u << 24); /* the next run charges for them, where it can pause */
}

void ep_matcher_settle(struct ep_matcher *m)
{
    unsigned n = m->steps / 2;

    m->steps = 0;
    ep_lua_charge(m->L, n);
}

enum ep_match ep_matcher_run(struct ep_matcher *m)
{
    enum ep_matcher_mode mode = m->mode;

    for (;;) {
        if (EP_UNLIKELY(m->steps >= m->steps_max)) {
            m->mode = mode;
            ep_matcher_settle(m);
            if (!m->whole && ep_lua_slice_over(m->L))
                return EP_MATCH_PAUSES;
        }
        switch (mode) {
        case EP_MATCHER_FORWARD:
            mode = forward(m);
            break;
        case EP_MATCHER_SCAN:
            mode = scan(m);
            break;
        case EP_MATCHER_BALANCE:
            mode = balance(m);
            break;
        case EP_MATCHER_BACK:
            mode = back(m);
            break;
        case EP_MATCHER_FITS:
            return EP_MATCH_FITS;
        case EP_MATCHER_FAILS:
            return EP_MATCH_FAILS;
        }
    }
}
