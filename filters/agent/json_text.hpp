/* JSON's text, piece by piece: numbers, escapes, and the hash of a key. For agent_json.cpp. */
#ifndef EP_AGENT_JSON_TEXT_HPP
#define EP_AGENT_JSON_TEXT_HPP

#include <cstdint>
#include <cstring>
#include <string_view>

namespace
{

bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

std::string_view trim_end(std::string_view s)
{
    while (!s.empty() && is_space(s.back()))
        s.remove_suffix(1);
    return s;
}

size_t digits(std::string_view s, size_t at)
{
    size_t from = at;

    while (at < s.size() && s[at] >= '0' && s[at] <= '9')
        at++;
    return at - from;
}

/* RFC 8259 section 6. */
bool is_number(std::string_view s)
{
    size_t at = 0, n;

    if (at < s.size() && s[at] == '-')
        at++;
    n = digits(s, at);
    if (n == 0 || (n > 1 && s[at] == '0'))
        return false;
    at += n;
    if (at < s.size() && s[at] == '.') {
        n = digits(s, ++at);
        if (n == 0)
            return false;
        at += n;
    }
    if (at < s.size() && (s[at] == 'e' || s[at] == 'E')) {
        at++;
        if (at < s.size() && (s[at] == '+' || s[at] == '-'))
            at++;
        n = digits(s, at);
        if (n == 0)
            return false;
        at += n;
    }
    return at == s.size();
}

bool hex4(std::string_view s, size_t at, unsigned &out)
{
    if (s.size() - at < 4)
        return false;
    out = 0;
    for (size_t i = 0; i < 4; i++) {
        char c = s[at + i];
        unsigned d = c >= '0' && c <= '9'   ? static_cast<unsigned>(c - '0')
                     : c >= 'a' && c <= 'f' ? static_cast<unsigned>(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? static_cast<unsigned>(c - 'A' + 10)
                                            : 16u;
        if (d == 16)
            return false;
        out = out << 4 | d;
    }
    return true;
}

size_t put_utf8(unsigned c, char *out)
{
    auto put = [&](size_t i, unsigned v) { out[i] = static_cast<char>(v); };

    if (c < 0x80)
        return put(0, c), 1;
    if (c < 0x800)
        return put(0, 0xc0 | c >> 6), put(1, 0x80 | (c & 0x3f)), 2;
    if (c < 0x10000)
        return put(0, 0xe0 | c >> 12), put(1, 0x80 | (c >> 6 & 0x3f)), put(2, 0x80 | (c & 0x3f)), 3;
    return put(0, 0xf0 | c >> 18), put(1, 0x80 | (c >> 12 & 0x3f)), put(2, 0x80 | (c >> 6 & 0x3f)),
           put(3, 0x80 | (c & 0x3f)), 4;
}

/* Undoes the escapes of a string's inside. `out` has room for s.size() bytes, or is null to check only. A lone half of
 * a surrogate pair is legal JSON (JavaScript writes it) and no character: `lone` says so. */
bool unescape(std::string_view s, char *out, size_t &n, bool &lone)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char buffer[4];

    n = 0;
    for (size_t at = 0; at < s.size();) {
        unsigned c, low;

        if (s[at] != '\\') {
            if (out)
                out[n] = s[at];
            n++, at++;
            continue;
        }
        if (++at == s.size())
            return false;
        if (s[at] != 'u') {
            const char *found = s[at] ? std::strchr(from, s[at]) : nullptr;
            if (!found)
                return false;
            if (out)
                out[n] = to[found - from];
            n++, at++;
            continue;
        }
        if (!hex4(s, at + 1, c))
            return false;
        at += 5;
        if (c >= 0xd800 && c < 0xdc00 && s.size() - at >= 6 && s[at] == '\\' && s[at + 1] == 'u' &&
            hex4(s, at + 2, low) && low >= 0xdc00 && low < 0xe000) {
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
            at += 6;
        } else if (c >= 0xd800 && c < 0xe000) {
            lone = true;
        }
        size_t bytes = put_utf8(c, buffer);
        if (out)
            std::memcpy(out + n, buffer, bytes);
        n += bytes;
    }
    return true;
}

uint64_t load8(const char *p)
{
    uint64_t word;

    std::memcpy(&word, p, 8);
    return word;
}

/* Keyed, so that nobody can send keys that all fall together. Reads up to 7 bytes behind the key, which are there. Never 0. */
uint64_t hash(std::string_view s, uint64_t seed)
{
    uint64_t h = seed ^ (s.size() * 0x9e3779b97f4a7c15u);
    const char *p = s.data();
    size_t n = s.size();

    for (; n >= 8; p += 8, n -= 8) {
        h = (h ^ load8(p)) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    if (n) {
        h = (h ^ (load8(p) & ((uint64_t{1} << 8 * n) - 1))) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return (h * (seed | 1)) | 1;
}

/* The first byte at or behind p that is a quote or a backslash. Stage 1 knows that there is one. */
const char *quote_or_backslash(const char *p)
{
    constexpr uint64_t ones = 0x0101010101010101u, highs = ones << 7;

    for (;; p += 8) {
        uint64_t word = load8(p), quote = word ^ ones * '"', backslash = word ^ ones * '\\';
        uint64_t found = (((quote - ones) & ~quote) | ((backslash - ones) & ~backslash)) & highs;
        if (found)
            return p + (__builtin_ctzll(found) >> 3); /* the lowest one found is sure; x86-64 and arm64 are little-endian */
    }
}

} // namespace

#endif
