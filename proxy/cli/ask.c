/* An HTTP/1.1 client of one request, for our own admin server: it always says how long its answer is. */
#include "cli/ask.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

#define TIMEOUT_S  5
#define ANSWER_MAX (64u << 20)

static int dial(const char *admin, struct ep_error *err)
{
    struct timeval limit = {.tv_sec = TIMEOUT_S};
    struct ep_addr addr;
    int fd;

    if (!ep_addr_parse(ep_str(admin), &addr)) {
        ep_error_set(err, "'%s' is no address: 127.0.0.1:15000, [::1]:15000 or unix:/path", admin);
        return -1;
    }
    fd = socket(addr.u.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 && connect(fd, &addr.u.sa, addr.len) == 0)
        return fd;
    ep_error_set(err, "%s: %s; is ephor running, and is this its admin.bind?", admin, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool say(int fd, const char *method, const char *path, const char *token, struct ep_error *err)
{
    char *text;
    int n = asprintf(&text, "%s %s HTTP/1.1\r\nhost: localhost\r\n%s%s%scontent-length: 0\r\nconnection: close\r\n\r\n", method,
                     path, token ? "authorization: Bearer " : "", token ? token : "", token ? "\r\n" : "");
    bool good = n >= 0 && send(fd, text, (size_t)n, MSG_NOSIGNAL) == n;

    if (!good)
        ep_error_set(err, "sending to the admin server: %s", strerror(errno));
    if (n >= 0) {
        explicit_bzero(text, (size_t)n);
        free(text);
    }
    return good;
}

/* Everything up to the end of the connection. */
static char *hear(int fd, size_t *n, struct ep_error *err)
{
    size_t room = 1u << 16;
    char *text = ep_malloc(room + 1);
    ssize_t got = 1;

    for (*n = 0; got > 0 && *n < ANSWER_MAX; *n += got > 0 ? (size_t)got : 0) {
        if (*n == room)
            text = ep_realloc(text, (room *= 2) + 1);
        got = recv(fd, text + *n, room - *n, 0);
    }
    text[*n] = '\0';
    if (got == 0)
        return text;
    ep_error_set(err, "the answer of the admin server: %s", got < 0 ? strerror(errno) : "longer than 64 MiB");
    free(text);
    return NULL;
}

char *ep_cli_ask(const char *admin, const char *method, const char *path, unsigned *status, struct ep_error *err)
{
    return ep_cli_ask_as(NULL, admin, method, path, status, err);
}

char *ep_cli_ask_as(const char *token, const char *admin, const char *method, const char *path, unsigned *status,
                    struct ep_error *err)
{
    char *text = NULL, *body;
    int fd = dial(admin, err);
    size_t n;

    if (fd >= 0 && say(fd, method, path, token, err))
        text = hear(fd, &n, err);
    if (fd >= 0)
        close(fd);
    if (!text)
        return NULL;
    body = strstr(text, "\r\n\r\n");
    if (!body || sscanf(text, "HTTP/1.1 %3u", status) != 1) {
        ep_error_set(err, "%s: what answers there is no admin server", admin);
        free(text);
        return NULL;
    }
    n -= (size_t)(body + 4 - text);
    memmove(text, body + 4, n + 1);
    return text;
}
