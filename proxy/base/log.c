/* The log. Its level and format are the one state of the process that is not passed: any thread, at any depth,
 * may have something to say. Both are atomics, and a line is one write(2). */
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/base.h"

#define MESSAGE_BYTES 2048u
#define LINE_BYTES    (MESSAGE_BYTES * 6u + 256u) /* each byte may become \u00xx */

enum { FORMAT_AUTO, FORMAT_JSON, FORMAT_TEXT };

static atomic_int log_level = EP_LOG_INFO;
static atomic_int log_format = FORMAT_AUTO;

static const char *const level_names[] = {"trace", "debug", "info", "warn", "error", "off"};

void ep_log_set_level(enum ep_log_level level)
{
    atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

enum ep_log_level ep_log_get_level(void)
{
    return (enum ep_log_level)atomic_load_explicit(&log_level, memory_order_relaxed);
}

const char *ep_log_level_name(enum ep_log_level level)
{
    return (size_t)level < EP_COUNT(level_names) ? level_names[level] : "?";
}

bool ep_log_level_parse(const char *name, enum ep_log_level *out)
{
    for (size_t i = 0; i < EP_COUNT(level_names); i++) {
        if (ep_str_caseeq(ep_str(name), ep_str(level_names[i]))) {
            *out = (enum ep_log_level)i;
            return true;
        }
    }
    return false;
}

void ep_log_set_json(bool json)
{
    atomic_store_explicit(&log_format, json ? FORMAT_JSON : FORMAT_TEXT, memory_order_relaxed);
}

static bool is_json(void)
{
    int format = atomic_load_explicit(&log_format, memory_order_relaxed);

    if (format == FORMAT_AUTO) {
        format = isatty(STDERR_FILENO) ? FORMAT_TEXT : FORMAT_JSON;
        atomic_store_explicit(&log_format, format, memory_order_relaxed);
    }
    return format == FORMAT_JSON;
}

static size_t put(char *line, size_t n, const char *z)
{
    size_t length = strlen(z);

    memcpy(line + n, z, length);
    return n + length;
}

/* Text may hold bytes of a peer: no control character reaches a terminal, no invalid UTF-8 a JSON reader. */
static size_t put_escaped(char *line, size_t n, const char *p, size_t length, bool json)
{
    static const char hex[] = "0123456789abcdef";

    for (size_t i = 0; i < length;) {
        unsigned char c = (unsigned char)p[i];
        size_t sequence = ep_utf8_length(p + i, length - i);

        if (sequence > 1) {
            memcpy(line + n, p + i, sequence);
            n += sequence;
            i += sequence;
            continue;
        }
        i++;
        if (sequence == 0) {
            n = put(line, n, json ? "\\ufffd" : "?");
        } else if (c < 0x20 || c == 0x7f) {
            n = put(line, n, json ? "\\u00" : "\\x");
            line[n++] = hex[c >> 4];
            line[n++] = hex[c & 15];
        } else {
            if (json && (c == '"' || c == '\\'))
                line[n++] = '\\';
            line[n++] = (char)c;
        }
    }
    return n;
}

static void write_line(const char *p, size_t n)
{
    while (n) {
        ssize_t written = write(STDERR_FILENO, p, n);

        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return; /* nobody listens; there is no other place to say so */
        p += written;
        n -= (size_t)written;
    }
}

void ep_log(enum ep_log_level level, const char *topic, const char *format, ...)
{
    char message[MESSAGE_BYTES], line[LINE_BYTES], time[32];
    bool json;
    size_t n = 0, length;
    int saved = errno, printed;
    va_list ap;

    if (level >= EP_LOG_OFF || !EP_LOG_ON(level))
        return;
    va_start(ap, format);
    printed = vsnprintf(message, sizeof(message), format, ap);
    va_end(ap);
    length = printed < 0 ? 0 : EP_MIN((size_t)printed, sizeof(message) - 1);
    json = is_json();
    (void)ep_time_rfc3339(ep_clock_wall_ns(), time);
    if (json) {
        n = put(line, n, "{\"time\":\"");
        n = put(line, n, time);
        n = put(line, n, "\",\"level\":\"");
        n = put(line, n, ep_log_level_name(level));
        n = put(line, n, "\",\"topic\":\"");
        n = put_escaped(line, n, topic, strnlen(topic, 32), true);
        n = put(line, n, "\",\"message\":\"");
        n = put_escaped(line, n, message, length, true);
        n = put(line, n, "\"}\n");
    } else {
        n = (size_t)snprintf(line, sizeof(line), "%.12s %-5s ", time + 11, ep_log_level_name(level));
        n = put_escaped(line, n, topic, strnlen(topic, 32), false);
        n = put(line, n, ": ");
        n = put_escaped(line, n, message, length, false);
        n = put(line, n, "\n");
    }
    assert(n <= sizeof(line));
    write_line(line, n);
    errno = saved;
}
