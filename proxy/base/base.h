/* base: what everything stands on. Strings, memory, lists, time, random numbers, errors, parsing, the log.
 *
 * Nothing here knows of sockets or HTTP. Include this header; the parts are split only for reading. */
#ifndef EP_BASE_BASE_H
#define EP_BASE_BASE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buffer.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/parse.h"
#include "base/schema.h"
#include "base/str.h"
#include "base/time.h"

#define EP_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define EP_MIN(a, b) ((a) < (b) ? (a) : (b))
#define EP_MAX(a, b) ((a) > (b) ? (a) : (b))
#define EP_LIKELY(x) __builtin_expect(!!(x), 1)
#define EP_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* An error that a person will read. Functions that take one return false and fill it. */
struct ep_error {
    char text[1024];
};

/* Sets the text; returns false, so that `return ep_error_set(err, …)` reads well. err may be NULL. */
bool ep_error_set(struct ep_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Puts "context: " before the text that is there. Returns false. */
bool ep_error_prefix(struct ep_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Enforcement of a rule: decide and act, decide and only count, or not at all. */
enum ep_mode { EP_MODE_ENFORCE, EP_MODE_SHADOW, EP_MODE_OFF };

#endif
