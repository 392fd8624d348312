/* The patterns that `redact` knows by name. sensitive.h says what they are. */
#include "lua/sensitive.h"

#define LOCAL_PART_MAX 64u /* RFC 5321 section 4.5.3.1.1; also the bound of the search to the left */

struct place {
    size_t begin, end;
};

typedef bool finder(struct ep_str s, size_t from, struct place *at);

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_upper(char c)
{
    return c >= 'A' && c <= 'Z';
}

static bool is_alnum(char c)
{
    return is_digit(c) || (ep_lower(c) >= 'a' && ep_lower(c) <= 'z');
}

static bool is_token(char c)
{
    return is_alnum(c) || c == '_' || c == '-';
}

/* --- numbers --- */

static bool ssn(struct ep_str s, size_t from, struct place *at)
{
    for (size_t i = from; i + 11 <= s.n; i++) {
        const char *p = s.p + i;
        bool good = is_digit(*p) && (p[3] == '-' || p[3] == ' ') && p[6] == p[3] && (i == 0 || !is_digit(p[-1])) &&
                    (i + 11 == s.n || !is_digit(p[11]));
        for (int k = 1; good && k < 11; k++)
            good = k == 3 || k == 6 || is_digit(p[k]);
        if (good) {
            *at = (struct place){i, i + 11};
            return true;
        }
    }
    return false;
}

static bool luhn(const char *digits, unsigned n)
{
    unsigned sum = 0;

    for (unsigned i = 0; i < n; i++) {
        unsigned d = (unsigned)(digits[n - 1 - i] - '0');
        d <<= i & 1;
        sum += d > 9 ? d - 9 : d;
    }
    return sum % 10 == 0;
}

/* Groups of digits from each border on, the longest that adds up first: other numbers may stand in front or behind. */
static bool card(struct ep_str s, size_t from, struct place *at)
{
    char digits[19];
    size_t ends[19];

    for (size_t i = from; i < s.n; i++) {
        unsigned n = 0;
        if (!is_digit(s.p[i]) || (i > 0 && is_digit(s.p[i - 1])))
            continue;
        for (size_t k = i; k < s.n && n < 19; k++) {
            if (is_digit(s.p[k])) {
                ends[n] = k + 1 == s.n || !is_digit(s.p[k + 1]) ? k + 1 : 0;
                digits[n++] = s.p[k];
            } else if ((s.p[k] != ' ' && s.p[k] != '-') || !is_digit(s.p[k - 1])) {
                break;
            }
        }
        for (; n >= 13; n--) {
            if (ends[n - 1] && digits[0] != '0' && luhn(digits, n)) {
                *at = (struct place){i, ends[n - 1]};
                return true;
            }
        }
    }
    return false;
}

static bool mod_97(const char *v, unsigned n)
{
    unsigned rest = 0;

    for (unsigned i = 0; i < n; i++) {
        char c = v[(i + 4) % n]; /* the first four count last */
        rest = is_digit(c) ? rest * 10 + (unsigned)(c - '0') : rest * 100 + (unsigned)(ep_lower(c) - 'a' + 10);
        rest %= 97;
    }
    return rest == 1;
}

static bool iban(struct ep_str s, size_t from, struct place *at)
{
    char v[34];
    size_t ends[34];

    for (size_t i = from; i + 15 <= s.n; i++) {
        const char *p = s.p + i;
        unsigned n = 0;
        if (!is_upper(p[0]) || !is_upper(p[1]) || !is_digit(p[2]) || !is_digit(p[3]) || (i > 0 && is_alnum(p[-1])))
            continue;
        for (size_t k = i; k < s.n && n < 34; k++) {
            if (is_alnum(s.p[k])) {
                ends[n] = k + 1 == s.n || !is_alnum(s.p[k + 1]) ? k + 1 : 0;
                v[n++] = s.p[k];
            } else if (s.p[k] != ' ' || s.p[k - 1] == ' ') {
                break;
            }
        }
        for (; n >= 15; n--) {
            if (ends[n - 1] && mod_97(v, n)) {
                *at = (struct place){i, ends[n - 1]};
                return true;
            }
        }
    }
    return false;
}

static bool phone(struct ep_str s, size_t from, struct place *at)
{
    for (size_t i = from; i < s.n; i++) {
        const char *plus = memchr(s.p + i, '+', s.n - i);
        unsigned n = 0;
        size_t last = 0;
        if (!plus)
            return false;
        i = (size_t)(plus - s.p);
        for (size_t k = i + 1; k < s.n && k < i + 32; k++) {
            if (is_digit(s.p[k])) {
                n++;
                last = k;
            } else if (!memchr(" -.()/", s.p[k], 6)) {
                break;
            }
        }
        if (n >= 8 && n <= 15 && is_digit(plus[1])) {
            *at = (struct place){i, last + 1};
            return true;
        }
    }
    return false;
}

/* --- words --- */

static bool is_local(char c)
{
    return is_alnum(c) || (unsigned char)c >= 0x80 || memchr("!#$%&'*+/=?^_`{|}~.-", c, 20);
}

/* Where the domain behind an '@' ends; 0: it is none. */
static size_t domain_end(struct ep_str s, size_t at)
{
    size_t k = at, dot;

    while (k < s.n && (is_alnum(s.p[k]) || (unsigned char)s.p[k] >= 0x80 || s.p[k] == '-' || s.p[k] == '.'))
        k++;
    while (k > at && (s.p[k - 1] == '.' || s.p[k - 1] == '-')) /* a full stop of the sentence */
        k--;
    for (dot = k; dot > at && s.p[dot - 1] != '.';)
        dot--;
    return dot > at + 1 && k >= dot + 2 ? k : 0;
}

static bool email(struct ep_str s, size_t from, struct place *at)
{
    const char *sign;

    for (size_t i = from; i < s.n && (sign = memchr(s.p + i, '@', s.n - i)); i++) {
        size_t begin, end;
        i = (size_t)(sign - s.p);
        for (begin = i; begin > from && i - begin < LOCAL_PART_MAX && is_local(s.p[begin - 1]);)
            begin--;
        end = domain_end(s, i + 1);
        if (begin < i && end) {
            *at = (struct place){begin, end};
            return true;
        }
    }
    return false;
}

static bool api_key(struct ep_str s, size_t from, struct place *at)
{
    static const struct {
        const char *prefix;
        size_t tail; /* at least that many follow */
    } kinds[] = {
        {"sk-", 20},        {"sk_live_", 16}, {"sk_test_", 16}, {"rk_live_", 16}, {"pk_live_", 16}, {"ghp_", 30},
        {"gho_", 30},       {"ghu_", 30},     {"ghs_", 30},     {"ghr_", 30},     {"AKIA", 16},     {"ASIA", 16},
        {"github_pat_", 30}, {"AIza", 30},    {"xoxa-", 10},    {"xoxb-", 10},    {"xoxp-", 10},    {"xoxr-", 10},
        {"xoxs-", 10},      {"xapp-", 10},    {"glpat-", 16},   {"hf_", 20},      {"npm_", 30},     {"whsec_", 20},
        {"pypi-", 30},      {"dop_v1_", 30},  {"ya29.", 20},    {"lin_api_", 20},
    };
    static const bool first[256] = {['s'] = true, ['r'] = true, ['p'] = true, ['g'] = true, ['A'] = true, ['x'] = true,
                                    ['h'] = true, ['n'] = true, ['w'] = true, ['d'] = true, ['y'] = true, ['l'] = true};

    for (size_t i = from; i < s.n; i++) {
        if (!first[(unsigned char)s.p[i]] || (i > 0 && is_alnum(s.p[i - 1])))
            continue;
        for (size_t k = 0; k < EP_COUNT(kinds); k++) {
            size_t n = strlen(kinds[k].prefix), end = i + n;
            if (n > s.n - i || memcmp(s.p + i, kinds[k].prefix, n) != 0)
                continue;
            while (end < s.n && is_token(s.p[end]))
                end++;
            if (end - i - n >= kinds[k].tail) {
                *at = (struct place){i, end};
                return true;
            }
        }
    }
    return false;
}

#define JWT_MIN 16u

static bool jwt(struct ep_str s, size_t from, struct place *at)
{
    for (size_t i = from; i + JWT_MIN <= s.n; i++) {
        size_t end, dots = 0, part = 0;
        if (memcmp(s.p + i, "eyJ", 3) != 0 || (i > 0 && is_alnum(s.p[i - 1])))
            continue;
        for (end = i; end < s.n && (is_token(s.p[end]) || (s.p[end] == '.' && part >= 4 && dots < 4)); end++) {
            part = s.p[end] == '.' ? 0 : part + 1;
            dots += s.p[end] == '.';
        }
        if (end - i >= JWT_MIN && (dots >= 2 || (dots == 1 && part >= 4))) { /* whatever follows: it may come later */
            *at = (struct place){i, end};
            return true;
        }
        i = end - 1; /* so that it stays linear */
    }
    return false;
}

static ptrdiff_t search_from(struct ep_str s, size_t from, struct ep_str needle)
{
    ptrdiff_t i = from < s.n ? ep_str_search(ep_str_n(s.p + from, s.n - from), needle) : -1;

    return i < 0 ? -1 : i + (ptrdiff_t)from;
}

/* To the end of the text when there is no END: a cut key is a key. */
static bool private_key(struct ep_str s, size_t from, struct place *at)
{
    struct ep_str first = EP_STR("-----BEGIN ");
    ptrdiff_t mark, begin, end;

    mark = search_from(s, from, EP_STR("PRIVATE KEY-----"));
    if (mark < 0)
        return false;
    begin = mark;
    for (ptrdiff_t i = mark; i >= (ptrdiff_t)from && mark - i < 40 && s.p[i] != '\n'; i--)
        if (memcmp(s.p + i, first.p, first.n) == 0) /* the mark is longer: it lies in the text */
            begin = i;
    end = search_from(s, (size_t)mark + 16, EP_STR("PRIVATE KEY-----"));
    *at = (struct place){(size_t)begin, end < 0 ? s.n : (size_t)end + 16};
    return true;
}

/* --- the table --- */

static finder *const finders[] = {
    [EP_SENSITIVE_SSN] = ssn,     [EP_SENSITIVE_EMAIL] = email, [EP_SENSITIVE_CREDIT_CARD] = card,
    [EP_SENSITIVE_IBAN] = iban,   [EP_SENSITIVE_PHONE] = phone, [EP_SENSITIVE_API_KEY] = api_key,
    [EP_SENSITIVE_JWT] = jwt,     [EP_SENSITIVE_PRIVATE_KEY] = private_key,
};

const char *ep_sensitive_name(enum ep_sensitive kind)
{
    static const char *const names[] = {
#define X(id, name, help) name,
        EP_SENSITIVE(X)
#undef X
    };
    return names[kind];
}

bool ep_sensitive_find(enum ep_sensitive kind, struct ep_str s, size_t from, size_t *begin, size_t *end)
{
    struct place at;

    if (from >= s.n || !finders[kind](s, from, &at))
        return false;
    *begin = at.begin;
    *end = at.end;
    return true;
}

/* --- the beginning of one, at the end of a text --- */

/* The run at the end of bytes that `good` takes, without what can't begin one. */
static size_t run_at_end(struct ep_str s, size_t max, bool (*good)(char), const char *not_first)
{
    size_t i = s.n;

    while (i > 0 && s.n - i < max && good(s.p[i - 1]))
        i--;
    while (i < s.n && strchr(not_first, s.p[i]))
        i++;
    return i;
}

static bool in_number(char c)
{
    return is_digit(c) || c == '-' || c == ' ';
}

static bool in_token(char c)
{
    return is_token(c) || c == '.';
}

static bool in_email(char c)
{
    return is_local(c) || c == '@';
}

static bool opens_iban(struct ep_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (i < 2 ? !is_upper(c) : i < 4 ? !is_digit(c) : !is_alnum(c) && (c != ' ' || s.p[i - 1] == ' '))
            return false;
    }
    return true;
}

static bool opens_phone(struct ep_str s)
{
    if (s.p[0] != '+' || s.n > 32)
        return false;
    for (size_t i = 1; i < s.n; i++)
        if (!is_digit(s.p[i]) && !memchr(" -.()/", s.p[i], 6))
            return false;
    return true;
}

static bool opens_private_key(struct ep_str s)
{
    struct ep_str begin = EP_STR("-----BEGIN "), mark = EP_STR("PRIVATE KEY-----");

    return (s.n <= 64 && memcmp(s.p, begin.p, EP_MIN(s.n, begin.n)) == 0) || (s.n <= mark.n && memcmp(s.p, mark.p, s.n) == 0);
}

static size_t first_that_opens(struct ep_str s, size_t max, bool (*opens)(struct ep_str), bool at_word)
{
    for (size_t i = s.n - EP_MIN(max, s.n); i < s.n; i++)
        if (opens(ep_str_n(s.p + i, s.n - i)) && (!at_word || i == 0 || !is_alnum(s.p[i - 1])))
            return i;
    return s.n;
}

size_t ep_sensitive_open(enum ep_sensitive kind, struct ep_str s, size_t max)
{
    switch (kind) {
    case EP_SENSITIVE_SSN:
        return run_at_end(s, EP_MIN(max, 11u), in_number, " -");
    case EP_SENSITIVE_CREDIT_CARD:
        return run_at_end(s, EP_MIN(max, 40u), in_number, " -");
    case EP_SENSITIVE_EMAIL:
        return run_at_end(s, max, in_email, "@");
    case EP_SENSITIVE_API_KEY:
    case EP_SENSITIVE_JWT:
        return run_at_end(s, max, in_token, ".");
    case EP_SENSITIVE_IBAN:
        return first_that_opens(s, EP_MIN(max, 68u), opens_iban, true);
    case EP_SENSITIVE_PHONE:
        return first_that_opens(s, EP_MIN(max, 32u), opens_phone, false);
    case EP_SENSITIVE_PRIVATE_KEY:
        return first_that_opens(s, EP_MIN(max, 64u), opens_private_key, false);
    case EP_SENSITIVE_KINDS:
        break;
    }
    return s.n;
}
