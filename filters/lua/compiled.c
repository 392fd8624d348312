/* See compiled.h. */
#include "lua/compiled.h"

#include <lauxlib.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdlib.h>

#define BUCKETS 1024u

/* Immutable once it is in the table; counted under the lock. */
struct entry {
    struct entry *next;
    unsigned refs;
    uint8_t key[SHA256_DIGEST_LENGTH];
    size_t n;
    char *code;
};

struct ep_lua_compiled {
    pthread_mutex_t lock;
    struct entry *buckets[BUCKETS];
    size_t bytes;
    uint64_t hits;
};

struct ep_lua_compiled *ep_lua_compiled_new(void)
{
    struct ep_lua_compiled *c = ep_calloc(1, sizeof *c);

    pthread_mutex_init(&c->lock, NULL);
    return c;
}

static void unref(struct entry *e)
{
    if (--e->refs > 0)
        return;
    free(e->code);
    free(e);
}

static void forget(struct ep_lua_compiled *c)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        while (c->buckets[i]) {
            struct entry *e = c->buckets[i];
            c->buckets[i] = e->next;
            unref(e);
        }
    c->bytes = 0;
}

void ep_lua_compiled_free(struct ep_lua_compiled *c)
{
    if (!c)
        return;
    forget(c);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

uint64_t ep_lua_compiled_hits(struct ep_lua_compiled *c)
{
    pthread_mutex_lock(&c->lock);
    uint64_t hits = c->hits;
    pthread_mutex_unlock(&c->lock);
    return hits;
}

size_t ep_lua_compiled_bytes(struct ep_lua_compiled *c)
{
    pthread_mutex_lock(&c->lock);
    size_t bytes = c->bytes;
    pthread_mutex_unlock(&c->lock);
    return bytes;
}

static struct entry **bucket(struct ep_lua_compiled *c, const uint8_t *key)
{
    return &c->buckets[(key[0] | (unsigned)key[1] << 8) % BUCKETS];
}

static struct entry *find(struct ep_lua_compiled *c, const uint8_t *key)
{
    struct entry *e = *bucket(c, key);

    while (e && memcmp(e->key, key, sizeof e->key) != 0)
        e = e->next;
    return e;
}

static int add_code(lua_State *L, const void *p, size_t n, void *user)
{
    struct entry *e = user;

    (void)L;
    e->code = ep_realloc(e->code, e->n + n);
    memcpy(e->code + e->n, p, n);
    e->n += n;
    return 0;
}

/* The function on top, for the next who asks. */
static void keep(struct ep_lua_compiled *c, lua_State *L, const uint8_t *key)
{
    struct entry *e = ep_calloc(1, sizeof *e);

    e->refs = 1;
    memcpy(e->key, key, sizeof e->key);
    lua_dump(L, add_code, e, 0);
    pthread_mutex_lock(&c->lock);
    if (find(c, key)) { /* another thread was as fast */
        unref(e);
    } else {
        if (c->bytes + e->n > EP_LUA_COMPILED_BYTES_MAX)
            forget(c);
        struct entry **b = bucket(c, key);
        e->next = *b;
        *b = e;
        c->bytes += e->n;
    }
    pthread_mutex_unlock(&c->lock);
}

int ep_lua_compiled_load(struct ep_lua_compiled *c, lua_State *L, struct ep_str text, const char *name)
{
    uint8_t key[SHA256_DIGEST_LENGTH];
    struct entry *e;
    SHA256_CTX hash;
    int rc;

    if (!c)
        return luaL_loadbufferx(L, text.n ? text.p : "", text.n, name, "t");
    SHA256_Init(&hash);
    SHA256_Update(&hash, name, strlen(name) + 1); /* it is part of the code */
    SHA256_Update(&hash, text.n ? text.p : "", text.n);
    SHA256_Final(key, &hash);
    pthread_mutex_lock(&c->lock);
    e = find(c, key);
    if (e) {
        e->refs++;
        c->hits++;
    }
    pthread_mutex_unlock(&c->lock);
    if (!e) {
        rc = luaL_loadbufferx(L, text.n ? text.p : "", text.n, name, "t");
        if (rc == LUA_OK)
            keep(c, L, key);
        return rc;
    }
    rc = luaL_loadbufferx(L, e->code, e->n, name, "b");
    pthread_mutex_lock(&c->lock);
    unref(e);
    pthread_mutex_unlock(&c->lock);
    return rc;
}
