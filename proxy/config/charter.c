/* The text of a constitution: a directory, read once, whole.
 *
 * The canonical listing (docs/constitution.md) has one line for each regular file, by path bytewise:
 *     ephor-constitution-1
 *     <SHA-256 in hex> <size> <path>
 * and the digest is SHA-256 of that. What has a dot in front is left out (a mounted ConfigMap has its ..data there), and
 * so is the signature. Links to files are followed, links to folders are not. The files are kept in memory as they were
 * hashed, and policies are compiled from there. */
#include "config/charter.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/base64.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/bind.h"
#include "config/files.h"

#define TITLE          "ephor-constitution-1\n"
#define SIGNATURE_NAME "ed25519:"
#define SIGNATURE_B64  88u

/* --- constitution.yaml --- */

struct page {
    struct ep_str hash, version;
    struct ep_vec principles; /* of ep_principle */
};

#define PRINCIPLE(member) offsetof(struct ep_principle, member)
static const char *const severities[] = {"low", "medium", "high", "critical", NULL};

static const struct ep_field principle_fields[] = {
    {.key = "id", .type = EP_TYPE_STR, .offset = PRINCIPLE(id), .required = true, .help = "Its name: P3."},
    {.key = "text", .type = EP_TYPE_STR, .offset = PRINCIPLE(text), .required = true, .help = "What it says."},
    {.key = "severity",
     .type = EP_TYPE_ENUM,
     .offset = PRINCIPLE(severity),
     .preset = "high",
     .names = severities,
     .help = "How bad it is when it is broken."},
    {.key = "policies",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STR,
     .offset = PRINCIPLE(policies),
     .help = "Policies that carry it out, by name."},
    {.key = "tags",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STR,
     .offset = PRINCIPLE(tags),
     .help = "compliance_tags of what is decided in its name."},
};

/* A word that stands in headers, logs and tables. */
static bool is_word(struct ep_str s, size_t max)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= 0x20 || (unsigned char)s.p[i] >= 0x7f)
            return false;
    return s.n > 0 && s.n <= max;
}

static void check_principle(void *object, struct ep_checker *c)
{
    struct ep_principle *p = object;

    if (p->id.n && !is_word(p->id, 64))
        ep_check_error(c, object, "id", "a principle's id is a word of at most 64 visible characters");
    if (p->text.n > 1000)
        ep_check_error(c, object, "text", "a principle's text has at most 1000 bytes");
}

static const struct ep_schema principle_schema =
    EP_SCHEMA("principle", "A principle of the constitution.", struct ep_principle, principle_fields,
              .check = check_principle);

static const struct ep_field page_fields[] = {
    {.key = "hash",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct page, hash),
     .required = true,
     .help = "The hash that messages name."},
    {.key = "version", .type = EP_TYPE_STR, .offset = offsetof(struct page, version), .required = true, .help = "Of the text."},
    {.key = "principles",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STRUCT,
     .sub = &principle_schema,
     .offset = offsetof(struct page, principles),
     .required = true,
     .help = "What it demands."},
};

static void check_page(void *object, struct ep_checker *c)
{
    const struct page *page = object;
    const struct ep_principle *p = page->principles.v;

    if (page->hash.n && (page->hash.n < 8 || !is_word(page->hash, 128)))
        ep_check_error(c, object, "hash", "a hash is 8 to 128 visible characters");
    if (page->version.n && !is_word(page->version, 64))
        ep_check_error(c, object, "version", "a version is a word of at most 64 visible characters");
    for (size_t i = 0; i < page->principles.n; i++)
        for (size_t k = 0; k < i; k++)
            if (p[i].id.n && ep_str_eq(p[i].id, p[k].id))
                ep_check_error(c, &p[i], "id", "there are two principles '%.*s'", EP_STR_ARG(p[i].id));
}

static const struct ep_schema page_schema =
    EP_SCHEMA("constitution.yaml", "The text of a constitution.", struct page, page_fields, .check = check_page);

static void tags_json(struct ep_charter *c, struct ep_principle *p)
{
    const struct ep_str *tags = p->tags.v;
    struct ep_json j;

    if (!p->tags.n)
        return;
    ep_json_init(&j);
    ep_json_array(&j);
    for (size_t i = 0; i < p->tags.n; i++)
        ep_json_str(&j, tags[i]);
    ep_json_array_end(&j);
    p->tags_json = ep_arena_str(&c->arena, ep_json_text(&j));
    ep_json_fini(&j);
}

static bool read_page(struct ep_charter *c, struct ep_str text, struct ep_error *err)
{
    struct ep_problems problems;
    struct page page = {0};
    bool good;

    ep_problems_init(&problems);
    problems.file = ep_strdup(EP_CHARTER_YAML);
    good = ep_yaml_bind(&c->arena, &page_schema, &page, text, true,
                        "the file is empty; it needs hash, version and principles", &problems);
    if (!good)
        ep_problems_first(&problems, err);
    ep_problems_fini(&problems);
    if (!good)
        return false;
    c->hash = page.hash;
    c->version = page.version;
    c->principles = page.principles.v;
    c->n_principles = page.principles.n;
    for (size_t i = 0; i < c->n_principles; i++)
        tags_json(c, &c->principles[i]);
    return true;
}

/* --- files --- */

static bool path_good(struct ep_str path)
{
    for (size_t i = 0, n; i < path.n; i += n) {
        n = ep_utf8_length(path.p + i, path.n - i);
        if (n == 0 || (unsigned char)path.p[i] < 0x20 || path.p[i] == 0x7f)
            return false;
    }
    return path.n > 0 && path.n <= EP_CHARTER_PATH_MAX;
}

static bool add(struct ep_charter *c, struct ep_str path, struct ep_str text, struct ep_error *err)
{
    if (!path_good(path))
        return ep_error_set(err, "a file name must be UTF-8 without control characters, and at most %u bytes",
                            EP_CHARTER_PATH_MAX);
    if (ep_str_eq(path, EP_STR(EP_CHARTER_SIGNATURE))) {
        c->signature = ep_arena_str(&c->arena, text);
        return true;
    }
    if (c->n_files == EP_CHARTER_FILES_MAX)
        return ep_error_set(err, "more than %u files", EP_CHARTER_FILES_MAX);
    if (text.n > EP_CHARTER_FILE_BYTES || c->bytes + text.n > EP_CHARTER_BYTES)
        return ep_error_set(err, "%.*s: too large: a file may have 1 MiB, all of them 8 MiB", EP_STR_ARG(path));
    c->files[c->n_files++] =
        (struct ep_charter_file){ep_arena_str(&c->arena, path), ep_arena_str(&c->arena, text.n ? text : EP_STR(""))};
    c->bytes += text.n;
    return true;
}

static bool visit(struct ep_charter *c, const char *directory, struct ep_str below, unsigned depth, struct ep_error *err);

/* `path` is on the disk, `name` in the bundle. */
static bool visit_one(struct ep_charter *c, const char *path, struct ep_str name, unsigned depth, struct ep_error *err)
{
    struct ep_str text;
    struct stat st, link;
    bool good;

    if (lstat(path, &link) < 0 || stat(path, &st) < 0)
        return ep_error_set(err, "%.*s: %s", EP_STR_ARG(name), strerror(errno));
    if (S_ISDIR(link.st_mode))
        return visit(c, path, name, depth + 1, err);
    if (S_ISDIR(st.st_mode))
        return true; /* a link to a folder: where it leads is not this bundle's */
    if (!S_ISREG(st.st_mode))
        return ep_error_set(err, "%.*s: not a file", EP_STR_ARG(name));
    if (!ep_file_read(ep_str(path), EP_CHARTER_FILE_BYTES, &text, err))
        return ep_error_prefix(err, "%.*s", EP_STR_ARG(name));
    good = add(c, name, text, err);
    ep_file_free(&text, false);
    return good;
}

static bool visit(struct ep_charter *c, const char *directory, struct ep_str below, unsigned depth, struct ep_error *err)
{
    struct dirent *e;
    bool good = true;
    DIR *d;

    if (depth > EP_CHARTER_DEPTH_MAX)
        return ep_error_set(err, "folders deeper than %u", EP_CHARTER_DEPTH_MAX);
    d = opendir(directory);
    if (!d)
        return ep_error_set(err, "%s", strerror(errno));
    while (good && (e = readdir(d))) {
        struct ep_str name;
        char *path = NULL;
        if (e->d_name[0] == '.')
            continue;
        if (asprintf(&path, "%s/%s", directory, e->d_name) < 0)
            abort();
        name = ep_arena_printf(&c->arena, "%.*s%s%s", EP_STR_ARG(below), below.n ? "/" : "", e->d_name);
        good = visit_one(c, path, name, depth, err);
        free(path);
    }
    (void)closedir(d);
    return good;
}

/* --- the listing --- */

static int by_path(const void *a_, const void *b_)
{
    const struct ep_charter_file *a = a_, *b = b_;
    int order = memcmp(a->path.p, b->path.p, EP_MIN(a->path.n, b->path.n));

    return order ? order : (a->path.n > b->path.n) - (a->path.n < b->path.n);
}

static void list(struct ep_charter *c)
{
    size_t room = sizeof TITLE + c->n_files * (EP_SHA256_HEX + 32 + EP_CHARTER_PATH_MAX), n = sizeof TITLE - 1;
    char *out = ep_arena_alloc(&c->arena, room), hex[EP_SHA256_HEX];

    memcpy(out, TITLE, n);
    for (size_t i = 0; i < c->n_files; i++) {
        const struct ep_charter_file *f = &c->files[i];
        ep_sha256_hex(f->text, hex);
        n += (size_t)snprintf(out + n, room - n, "%.*s %zu %.*s\n", (int)sizeof hex, hex, f->text.n, EP_STR_ARG(f->path));
    }
    assert(n < room);
    c->listing = ep_str_n(out, n);
    ep_sha256_hex(c->listing, hex);
    c->digest = ep_arena_printf(&c->arena, "sha256:%.*s", (int)sizeof hex, hex);
}

static struct ep_charter *charter_new(struct ep_str directory)
{
    struct ep_charter *c = ep_calloc(1, sizeof *c);

    ep_chunk_pool_init(&c->chunks, 0);
    ep_arena_init(&c->arena, &c->chunks);
    c->directory = ep_arena_str(&c->arena, directory);
    c->files = ep_arena_zalloc(&c->arena, EP_CHARTER_FILES_MAX * sizeof *c->files);
    return c;
}

static bool complete(struct ep_charter *c, struct ep_error *err)
{
    if (c->n_files)
        qsort(c->files, c->n_files, sizeof *c->files, by_path);
    for (size_t i = 1; i < c->n_files; i++)
        if (by_path(&c->files[i - 1], &c->files[i]) == 0)
            return ep_error_set(err, "%.*s is there twice", EP_STR_ARG(c->files[i].path));
    list(c);
    for (size_t i = 0; i < c->n_files; i++)
        if (ep_str_eq(c->files[i].path, EP_STR(EP_CHARTER_YAML)))
            return read_page(c, c->files[i].text, err);
    return ep_error_set(err, "there is no " EP_CHARTER_YAML);
}

struct ep_charter *ep_charter_read(struct ep_str directory, struct ep_error *err)
{
    struct ep_charter *c = charter_new(directory);
    char *path = ep_strndup(directory.p, directory.n);
    bool good = visit(c, path, (struct ep_str){NULL, 0}, 0, err) && complete(c, err);

    if (!good) {
        ep_error_prefix(err, "%s", path);
        ep_charter_free(c);
        c = NULL;
    }
    free(path);
    return c;
}

struct ep_charter *ep_charter_parse(const struct ep_charter_file *files, size_t n, struct ep_error *err)
{
    struct ep_charter *c = charter_new((struct ep_str){NULL, 0});
    bool good = true;

    for (size_t i = 0; good && i < n; i++)
        good = add(c, files[i].path, files[i].text, err);
    if (good && complete(c, err))
        return c;
    ep_charter_free(c);
    return NULL;
}

void ep_charter_free(struct ep_charter *c)
{
    if (!c)
        return;
    ep_arena_fini(&c->arena);
    ep_chunk_pool_fini(&c->chunks);
    free(c);
}

/* --- signatures --- */

size_t ep_charter_sign(const struct ep_charter *c, const struct ep_signer *s, char out[EP_CHARTER_SIGNATURE_TEXT])
{
    uint8_t signature[EP_SIGNATURE_BYTES];
    size_t n = sizeof SIGNATURE_NAME - 1;

    ep_signer_sign(s, c->listing, signature);
    memcpy(out, SIGNATURE_NAME, n);
    n += EVP_EncodeBlock((uint8_t *)out + n, signature, sizeof signature);
    out[n++] = '\n';
    out[n] = '\0';
    return n;
}

bool ep_charter_signed(const struct ep_charter *c, const uint8_t key[EP_PUBLIC_KEY_BYTES], struct ep_error *err)
{
    struct ep_str text = c->signature;
    uint8_t signature[EP_SIGNATURE_BYTES + 2];
    size_t n;

    if (!text.n)
        return ep_error_set(err, "it is not signed: there is no " EP_CHARTER_SIGNATURE);
    while (text.n && (unsigned char)text.p[text.n - 1] <= ' ')
        text.n--;
    if (!ep_str_starts(text, EP_STR(SIGNATURE_NAME)) || text.n != sizeof SIGNATURE_NAME - 1 + SIGNATURE_B64 ||
        !EVP_DecodeBase64(signature, &n, sizeof signature, (const uint8_t *)text.p + sizeof SIGNATURE_NAME - 1,
                          SIGNATURE_B64) ||
        n != EP_SIGNATURE_BYTES)
        return ep_error_set(err, EP_CHARTER_SIGNATURE ": this is no signature: ed25519: and 64 bytes in base64");
    return ep_signature_good(c->listing, signature, key) ||
           ep_error_set(err, EP_CHARTER_SIGNATURE ": the signature is not of this key and this text");
}

/* --- for the configuration --- */

static bool fits(struct ep_charter *c, const struct ep_constitution_config *config, struct ep_error *err)
{
    uint8_t key[EP_PUBLIC_KEY_BYTES];

    if (config->digest.n && !ep_str_eq(config->digest, c->digest))
        return ep_error_set(err, "this is another text: its digest is %.*s, and %.*s is pinned", EP_STR_ARG(c->digest),
                            EP_STR_ARG(config->digest));
    if (config->signature) {
        if (!ep_public_key_parse(config->signature->key, key))
            return ep_error_set(err, "constitution.signature.key is no public key");
        if (!ep_charter_signed(c, key, err))
            return false;
        c->signer = ep_arena_str(&c->arena, config->signature->key);
    }
    if (config->hash.n && !ep_str_eq(config->hash, c->hash))
        return ep_error_set(err, EP_CHARTER_YAML " names another hash than constitution.hash");
    return true;
}

bool ep_charter_take(struct ep_constitution_config *config, struct ep_error *err)
{
    struct ep_charter *c;

    if (!config->bundle.n)
        return true;
    c = ep_charter_read(config->bundle, err);
    if (!c)
        return ep_error_prefix(err, "constitution.bundle");
    if (!fits(c, config, err)) {
        ep_error_prefix(err, "constitution.bundle: %.*s", EP_STR_ARG(config->bundle));
        ep_charter_free(c);
        return false;
    }
    config->charter = c;
    if (!config->hash.n)
        config->hash = c->hash; /* lives as long */
    return true;
}
