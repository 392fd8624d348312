/* Reading, naming and keeping the text of a policies' directory. bundle.h has the design. */
#include "lua/bundle.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lua/host.h"

#define DEPTH_MAX      4u /* of folders with libraries */
#define TRIES_MAX      8u
#define MAGIC          "ephor-policies 1\n"
#define NAME_BYTES_MAX 512u

/* --- names --- */

bool ep_policy_bundle_is_test(struct ep_str name)
{
    return ep_str_ends(name, EP_STR("_test.lua")) && !memchr(name.p, '/', name.n);
}

bool ep_policy_bundle_is_policy(struct ep_str name)
{
    return name.n && name.p[0] != '.' && name.p[0] != '_' && ep_str_ends(name, EP_STR(".lua")) &&
           !ep_str_ends(name, EP_STR("_test.lua")) && !memchr(name.p, '/', name.n);
}

/* A name is a line of what is kept. */
static bool name_good(struct ep_str name)
{
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] < 0x20)
            return false;
    return name.n && name.n <= NAME_BYTES_MAX;
}

/* --- digests --- */

static void hex_of(const unsigned char *sum, char *hex)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < SHA256_DIGEST_LENGTH; i++) {
        hex[2 * i] = digits[sum[i] >> 4];
        hex[2 * i + 1] = digits[sum[i] & 15];
    }
    hex[EP_POLICY_BUNDLE_DIGEST_HEX] = 0;
}

static void add_file(SHA256_CTX *c, const struct ep_policy_bundle_file *f)
{
    char size[32];

    SHA256_Update(c, f->name.p, f->name.n + 1); /* its NUL too, and that after the size: no two lists look alike */
    SHA256_Update(c, size, (size_t)snprintf(size, sizeof size, "%zu", f->text.n) + 1);
    SHA256_Update(c, f->text.p, f->text.n);
}

static void complete(struct ep_policy_bundle *b)
{
    unsigned char sum[SHA256_DIGEST_LENGTH];
    SHA256_CTX all, libraries;

    SHA256_Init(&all);
    SHA256_Init(&libraries);
    for (unsigned i = 0; i < b->n; i++) {
        const struct ep_policy_bundle_file *f = &b->files[i];
        add_file(&all, f);
        if (ep_policy_bundle_is_policy(f->name))
            b->n_policies++;
        else if (!ep_policy_bundle_is_test(f->name))
            add_file(&libraries, f);
        b->bytes += f->text.n;
    }
    SHA256_Final(sum, &all);
    hex_of(sum, b->digest);
    SHA256_Final(sum, &libraries);
    hex_of(sum, b->libraries);
}

void ep_policy_bundle_digest(const struct ep_policy_bundle *b, const struct ep_policy_bundle_file *f,
                             char hex[EP_POLICY_BUNDLE_DIGEST_HEX + 1])
{
    unsigned char sum[SHA256_DIGEST_LENGTH];
    SHA256_CTX c;

    SHA256_Init(&c);
    SHA256_Update(&c, b->libraries, EP_POLICY_BUNDLE_DIGEST_HEX);
    SHA256_Update(&c, f->text.p, f->text.n);
    SHA256_Final(sum, &c);
    hex_of(sum, hex);
}

/* --- the bundle --- */

static struct ep_policy_bundle *bundle_new(void)
{
    struct ep_policy_bundle *b = ep_calloc(1, sizeof *b);

    atomic_init(&b->refs, 1);
    b->files = ep_calloc(EP_POLICY_BUNDLE_FILES_MAX, sizeof *b->files);
    return b;
}

struct ep_policy_bundle *ep_policy_bundle_ref(struct ep_policy_bundle *b)
{
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void ep_policy_bundle_unref(struct ep_policy_bundle *b)
{
    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (unsigned i = 0; i < b->n; i++) {
        free((void *)(uintptr_t)b->files[i].name.p);
        free((void *)(uintptr_t)b->files[i].text.p);
    }
    free(b->files);
    free(b);
}

static int by_name(const void *a, const void *b)
{
    const struct ep_policy_bundle_file *x = a, *y = b;

    return strcmp(x->name.p, y->name.p);
}

const struct ep_policy_bundle_file *ep_policy_bundle_find(const struct ep_policy_bundle *b, struct ep_str name)
{
    unsigned low = 0, high = b->n;

    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct ep_policy_bundle_file *f = &b->files[middle];
        int order = strncmp(name.p, f->name.p, name.n);
        if (order == 0 && f->name.n == name.n)
            return f;
        if (order <= 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* Takes over both. */
static void add(struct ep_policy_bundle *b, char *name, char *text, size_t n)
{
    assert(b->n < EP_POLICY_BUNDLE_FILES_MAX);
    b->files[b->n++] = (struct ep_policy_bundle_file){ep_str(name), ep_str_n(text, n)};
}

/* --- reading a directory --- */

struct reading {
    struct ep_policy_bundle *bundle;
    size_t bytes;
    struct ep_error *err;
};

static bool too_large(struct reading *r, const char *name)
{
    return ep_error_set(r->err, "%s: larger than %zu KiB", name, EP_LUA_FILE_BYTES_MAX / 1024);
}

static bool read_file(struct reading *r, int at, const char *entry, const char *name)
{
    int fd = openat(at, entry, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold us */
    struct stat st;
    char *text = NULL;
    size_t n = 0;
    ssize_t got = 1;
    bool good;

    if (fd < 0)
        return ep_error_set(r->err, "%s: %s", name, strerror(errno));
    if (fstat(fd, &st) < 0)
        good = ep_error_set(r->err, "%s: %s", name, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        good = ep_error_set(r->err, "%s: not a regular file", name);
    else if ((uint64_t)st.st_size > EP_LUA_FILE_BYTES_MAX)
        good = too_large(r, name);
    else if (r->bundle->n == EP_POLICY_BUNDLE_FILES_MAX)
        good = ep_error_set(r->err, "more than %u files", EP_POLICY_BUNDLE_FILES_MAX);
    else
        good = true;
    if (good) {
        size_t cap = (size_t)st.st_size + 1; /* one more, to see that it grew */
        text = ep_malloc(cap + 1);
        while (n < cap && ((got = read(fd, text + n, cap - n)) > 0 || (got < 0 && errno == EINTR)))
            n += got > 0 ? (size_t)got : 0;
        if (got < 0)
            good = ep_error_set(r->err, "%s: %s", name, strerror(errno));
        else if (n >= cap)
            good = ep_error_set(r->err, "%s: changed while it was read", name);
        else if (n + r->bytes > EP_POLICY_BUNDLE_BYTES_MAX)
            good = ep_error_set(r->err, "%s: all files together are larger than %zu MiB", name,
                                EP_POLICY_BUNDLE_BYTES_MAX >> 20);
    }
    close(fd);
    if (!good) {
        free(text);
        return false;
    }
    text[n] = 0;
    r->bytes += n;
    add(r->bundle, ep_strdup(name), text, n);
    return true;
}

static bool read_folder(struct reading *r, int fd, const char *prefix, unsigned depth);

static bool read_entry(struct reading *r, int at, const struct dirent *d, const char *prefix, unsigned depth)
{
    bool lua = ep_str_ends(ep_str(d->d_name), EP_STR(".lua"));
    struct stat st;
    char *name = NULL;
    bool good = true;

    if (d->d_name[0] == '.' || (!lua && d->d_type != DT_DIR && d->d_type != DT_UNKNOWN))
        return true;
    if (asprintf(&name, "%s%s", prefix, d->d_name) < 0)
        abort();
    if (!name_good(ep_str(name))) {
        good = ep_error_set(r->err, "a file's name is longer than %u bytes or has control characters", NAME_BYTES_MAX);
    } else if (lua) {
        good = read_file(r, at, d->d_name, name);
    } else if (depth < DEPTH_MAX && fstatat(at, d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode)) {
        char *folder = NULL;
        int fd = openat(at, d->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (asprintf(&folder, "%s/", name) < 0)
            abort();
        good = fd < 0 ? ep_error_set(r->err, "%s: %s", name, strerror(errno)) : read_folder(r, fd, folder, depth + 1);
        free(folder);
    }
    free(name);
    return good;
}

/* Owns fd from here. */
static bool read_folder(struct reading *r, int fd, const char *prefix, unsigned depth)
{
    DIR *dir = fdopendir(fd);
    const struct dirent *d;
    bool good = true;

    if (!dir) {
        close(fd);
        return ep_error_set(r->err, "%s%s", prefix, strerror(errno));
    }
    while (good && (errno = 0, d = readdir(dir)))
        good = read_entry(r, dirfd(dir), d, prefix, depth);
    if (good && errno)
        good = ep_error_set(r->err, "%s%s", prefix, strerror(errno));
    closedir(dir);
    return good;
}

/* What changes when the directory does: the kubelet renames its `..data`, others make and rename files. */
struct print {
    struct timespec changed;
    ino_t inode;
    char data[256];
};

static struct print print_of(int fd)
{
    struct print p;
    struct stat st;

    memset(&p, 0, sizeof p);
    if (fstat(fd, &st) == 0) {
        p.changed = st.st_mtim;
        p.inode = st.st_ino;
    }
    if (readlinkat(fd, "..data", p.data, sizeof p.data - 1) < 0)
        p.data[0] = 0;
    return p;
}

static bool same_print(const struct print *a, const struct print *b)
{
    return a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec &&
           a->inode == b->inode && strcmp(a->data, b->data) == 0;
}

static struct ep_policy_bundle *read_once(const char *directory, bool *changed, struct ep_error *err)
{
    struct reading r = {.bundle = bundle_new(), .err = err};
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int look = fd < 0 ? -1 : dup(fd);
    struct print before, after;
    bool good;

    *changed = false;
    if (look < 0) {
        good = ep_error_set(err, "%s", strerror(errno));
        if (fd >= 0)
            close(fd);
    } else {
        before = print_of(look);
        good = read_folder(&r, fd, "", 0);
        after = print_of(look);
        *changed = !same_print(&before, &after);
        close(look);
    }
    if (!good) {
        ep_policy_bundle_unref(r.bundle);
        return NULL;
    }
    qsort(r.bundle->files, r.bundle->n, sizeof r.bundle->files[0], by_name);
    complete(r.bundle);
    return r.bundle;
}

struct ep_policy_bundle *ep_policy_bundle_read(const char *directory, struct ep_error *err)
{
    struct ep_policy_bundle *b = NULL;
    bool changed = true;

    for (unsigned i = 0; i < TRIES_MAX && changed; i++) {
        ep_policy_bundle_unref(b);
        b = read_once(directory, &changed, err);
    }
    if (b && changed) {
        ep_policy_bundle_unref(b);
        b = NULL;
        ep_error_set(err, "it changes all the time");
    }
    if (!b)
        ep_error_prefix(err, "policies in %s", directory);
    return b;
}

/* --- as one text: a line "bytes name" before each file --- */

char *ep_policy_bundle_print(const struct ep_policy_bundle *b, size_t *n)
{
    char *out = NULL;
    FILE *f = open_memstream(&out, n);

    if (!f)
        abort();
    fputs(MAGIC, f);
    for (unsigned i = 0; i < b->n; i++) {
        fprintf(f, "%zu %s\n", b->files[i].text.n, b->files[i].name.p);
        fwrite(b->files[i].text.p, 1, b->files[i].text.n, f);
        fputc('\n', f);
    }
    if (fclose(f) != 0)
        abort();
    return out;
}

static bool parse_file(struct ep_policy_bundle *b, struct ep_str *rest)
{
    struct ep_str line, number, name;
    uint64_t size;

    if (!ep_str_next(rest, '\n', &line))
        return false;
    name = line;
    if (!ep_str_next(&name, ' ', &number) || !ep_str_u64(number, &size) || !name_good(name) || size >= rest->n ||
        rest->p[size] != '\n' || b->n == EP_POLICY_BUNDLE_FILES_MAX)
        return false;
    add(b, ep_strndup(name.p, name.n), ep_strndup(size ? rest->p : "", (size_t)size), (size_t)size);
    *rest = ep_str_n(rest->p + size + 1, rest->n - (size_t)size - 1);
    return b->n < 2 || strcmp(b->files[b->n - 2].name.p, b->files[b->n - 1].name.p) < 0;
}

struct ep_policy_bundle *ep_policy_bundle_empty(void)
{
    struct ep_policy_bundle *b = bundle_new();

    complete(b);
    return b;
}

struct ep_policy_bundle *ep_policy_bundle_parse(struct ep_str text, struct ep_error *err)
{
    struct ep_policy_bundle *b = bundle_new();
    bool good = ep_str_starts(text, EP_STR(MAGIC));

    text = good ? ep_str_n(text.p + sizeof MAGIC - 1, text.n - (sizeof MAGIC - 1)) : text;
    while (good && text.n)
        good = parse_file(b, &text);
    if (good) {
        complete(b);
        return b;
    }
    ep_policy_bundle_unref(b);
    ep_error_set(err, "is damaged");
    return NULL;
}
