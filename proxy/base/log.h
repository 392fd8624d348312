/* The log: JSON lines (or text on a terminal) on standard error, one write a line, safe from any thread.
 *
 * Not the access log and not the audit: this is what ephor says about itself. Keys, tokens and bodies never
 * go here. */
#ifndef EP_BASE_LOG_H
#define EP_BASE_LOG_H

#include <stdbool.h>

enum ep_log_level { EP_LOG_TRACE, EP_LOG_DEBUG, EP_LOG_INFO, EP_LOG_WARN, EP_LOG_ERROR, EP_LOG_OFF };

void ep_log_set_level(enum ep_log_level level);
enum ep_log_level ep_log_get_level(void);
const char *ep_log_level_name(enum ep_log_level level);
bool ep_log_level_parse(const char *name, enum ep_log_level *out);
void ep_log_set_json(bool json); /* default: JSON unless stderr is a terminal */

/* `topic` is the module ("config", "h2", "policy"); the message has no newline. */
void ep_log(enum ep_log_level level, const char *topic, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define EP_LOG_ON(level) ((level) >= ep_log_get_level())
#define ep_debug(topic, ...)                                                                         \
    do {                                                                                             \
        if (EP_LOG_ON(EP_LOG_DEBUG))                                                                 \
            ep_log(EP_LOG_DEBUG, topic, __VA_ARGS__);                                                \
    } while (0)
#define ep_info(topic, ...) ep_log(EP_LOG_INFO, topic, __VA_ARGS__)
#define ep_warn(topic, ...) ep_log(EP_LOG_WARN, topic, __VA_ARGS__)
#define ep_fail(topic, ...) ep_log(EP_LOG_ERROR, topic, __VA_ARGS__)

#endif
