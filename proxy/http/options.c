/* The small tables of http: presets of the limits, names of resets, reason phrases of statuses. */
#include "http/leg.h"

void ep_http_options_preset(struct ep_http_options *o)
{
    *o = (struct ep_http_options){
        .max_streams = 256,
        .max_header_bytes = EP_HEADERS_MAX_BYTES,
        .max_header_count = EP_HEADERS_MAX_COUNT,
        .max_request_line = 16 * 1024,
        .stream_window = 256 * 1024,
        .connection_window = 1024 * 1024,
        .headers_timeout_ns = 10 * EP_S,
        .idle_timeout_ns = 300 * EP_S,
        .flush_timeout_ns = 60 * EP_S,
    };
}

const char *ep_reset_name(enum ep_reset r)
{
    static const char *const names[EP_RESET_COUNT] = {
        [EP_RESET_CANCEL] = "cancel",         [EP_RESET_REFUSED] = "refused",
        [EP_RESET_PROTOCOL] = "protocol",     [EP_RESET_INTERNAL] = "internal",
        [EP_RESET_CONNECTION] = "connection", [EP_RESET_TIMEOUT] = "timeout",
        [EP_RESET_TOO_LARGE] = "too_large",   [EP_RESET_NO_ERROR] = "no_error",
    };

    assert((unsigned)r < EP_RESET_COUNT);
    return names[r];
}

const char *ep_status_reason(unsigned status)
{
    static const char *const informational[] = {"Continue", "Switching Protocols", "Processing", "Early Hints"};
    static const char *const success[] = {
        "OK", "Created", "Accepted", "Non-Authoritative Information", "No Content",
        "Reset Content", "Partial Content", "Multi-Status", "Already Reported",
    };
    static const char *const redirection[] = {
        "Multiple Choices", "Moved Permanently", "Found", "See Other", "Not Modified",
        "Use Proxy", "", "Temporary Redirect", "Permanent Redirect",
    };
    static const char *const client[] = {
        "Bad Request", "Unauthorized", "Payment Required", "Forbidden", "Not Found", "Method Not Allowed",
        "Not Acceptable", "Proxy Authentication Required", "Request Timeout", "Conflict", "Gone", "Length Required",
        "Precondition Failed", "Content Too Large", "URI Too Long", "Unsupported Media Type", "Range Not Satisfiable",
        "Expectation Failed", "", "", "", "Misdirected Request", "Unprocessable Content", "Locked",
        "Failed Dependency", "Too Early", "Upgrade Required", "", "Precondition Required", "Too Many Requests", "",
        "Request Header Fields Too Large",
    };
    static const char *const server[] = {
        "Internal Server Error", "Not Implemented", "Bad Gateway", "Service Unavailable", "Gateway Timeout",
        "HTTP Version Not Supported", "Variant Also Negotiates", "Insufficient Storage", "Loop Detected", "", "",
        "Network Authentication Required",
    };
    static const struct {
        const char *const *names;
        unsigned n;
    } classes[] = {
        {informational, EP_COUNT(informational)},
        {success, EP_COUNT(success)},
        {redirection, EP_COUNT(redirection)},
        {client, EP_COUNT(client)},
        {server, EP_COUNT(server)},
    };
    unsigned class = status / 100;

    if (class < 1 || class > EP_COUNT(classes) || status % 100 >= classes[class - 1].n)
        return status == 226 ? "IM Used" : status == 451 ? "Unavailable For Legal Reasons" : "";
    return classes[class - 1].names[status % 100];
}
