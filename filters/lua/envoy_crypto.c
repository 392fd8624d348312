/* importPublicKey(), verifySignature() and base64Escape() of Envoy's API, by BoringSSL. */
#include <openssl/bytestring.h>
#include <openssl/digest.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include "lua/envoy.h"

#define KEY_BYTES_MAX 16384u
#define PARSE_COST    2000u  /* instructions */
#define VERIFY_COST   20000u /* of an RSA or ECDSA signature: some tens of microseconds */

/* SubjectPublicKeyInfo in DER. */
struct key {
    struct ep_envoy_object object;
    bool good;
    size_t n;
    char der[];
};

static EVP_PKEY *parse_key(struct ep_str der)
{
    CBS cbs;
    EVP_PKEY *key;

    CBS_init(&cbs, (const uint8_t *)der.p, der.n);
    key = EVP_parse_public_key(&cbs);
    if (key && CBS_len(&cbs) > 0) {
        EVP_PKEY_free(key);
        key = NULL;
    }
    ERR_clear_error();
    return key;
}

/* The first `length` bytes of the string at `index`, the length being the argument behind it. */
static struct ep_str check_bytes(lua_State *L, int index)
{
    struct ep_str s = ep_lua_check_str(L, index);
    lua_Integer n = luaL_checkinteger(L, index + 1);

    if (n < 0 || (size_t)n > s.n)
        luaL_argerror(L, index, "the length behind it is beyond the end of the string");
    return ep_str_n(s.p, (size_t)n);
}

int ep_envoy_import_public_key(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_HANDLE);
    struct ep_str der = check_bytes(L, 2);
    EVP_PKEY *parsed;
    struct key *k;

    if (der.n > KEY_BYTES_MAX)
        return luaL_error(L, "a public key has at most %d bytes", (int)KEY_BYTES_MAX);
    ep_lua_charge(L, PARSE_COST);
    k = ep_envoy_push_new(L, h, EP_ENVOY_KEY, sizeof *k + der.n);
    k->n = der.n;
    memcpy(k->der, der.p, der.n);
    parsed = parse_key(der);
    k->good = parsed != NULL;
    EVP_PKEY_free(parsed);
    return 1;
}

static int key_get(lua_State *L)
{
    const struct key *k = ep_envoy_check_object(L, EP_ENVOY_KEY);

    if (k->good)
        lua_pushlstring(L, k->der, k->n);
    else
        lua_pushnil(L);
    return 1;
}

static const EVP_MD *hash_of(struct ep_str name)
{
    static const struct {
        const char *name;
        const EVP_MD *(*hash)(void);
    } rows[] = {
        {"sha1", EVP_sha1},     {"sha224", EVP_sha224}, {"sha256", EVP_sha256},
        {"sha384", EVP_sha384}, {"sha512", EVP_sha512},
    };

    for (size_t i = 0; i < EP_COUNT(rows); i++)
        if (ep_str_caseeq(name, ep_str(rows[i].name)))
            return rows[i].hash();
    return NULL;
}

static const char *verify(EVP_PKEY *key, const EVP_MD *hash, struct ep_str signature, struct ep_str data)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const char *error = NULL;

    if (!ctx || !EVP_DigestVerifyInit(ctx, NULL, hash, NULL, key))
        error = "Failed to initialize digest verify.";
    else if (EVP_DigestVerify(ctx, (const uint8_t *)signature.p, signature.n, (const uint8_t *)data.p, data.n) != 1)
        error = "Failed to verify digest. Error code: 0";
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return error;
}

/* verifySignature(hash, key, signature, length, data, length): true, or false and why. */
int ep_envoy_verify_signature(lua_State *L)
{
    struct ep_str hash_name, signature, data;
    const EVP_MD *hash;
    const char *error;
    EVP_PKEY *key;

    ep_envoy_check(L, EP_ENVOY_HANDLE);
    hash_name = ep_lua_check_str(L, 2);
    signature = check_bytes(L, 4);
    data = check_bytes(L, 6);
    ep_lua_charge(L, VERIFY_COST + data.n / 16);
    key = lua_type(L, 3) == LUA_TSTRING ? parse_key(ep_lua_check_str(L, 3)) : NULL;
    if (!key)
        return luaL_error(L, "invalid public key");
    hash = hash_of(hash_name);
    error = hash ? verify(key, hash, signature, data) : NULL;
    EVP_PKEY_free(key);
    lua_pushboolean(L, hash && !error);
    if (!hash)
        lua_pushfstring(L, "%s is not supported.", hash_name.p);
    else if (error)
        lua_pushstring(L, error);
    else
        lua_pushnil(L);
    return 2;
}

int ep_envoy_base64_escape(lua_State *L)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct ep_str s;
    luaL_Buffer b;

    ep_envoy_check(L, EP_ENVOY_HANDLE);
    s = ep_lua_check_text(L, 2);
    ep_lua_charge(L, s.n / 16);
    size_t n = (s.n + 2) / 3 * 4;
    char *out = luaL_buffinitsize(L, &b, n);
    for (size_t i = 0; i < s.n; i += 3) {
        uint32_t v = (uint32_t)(unsigned char)s.p[i] << 16;
        if (i + 1 < s.n)
            v |= (uint32_t)(unsigned char)s.p[i + 1] << 8;
        if (i + 2 < s.n)
            v |= (unsigned char)s.p[i + 2];
        *out++ = digits[v >> 18];
        *out++ = digits[(v >> 12) & 63];
        *out++ = i + 1 < s.n ? digits[(v >> 6) & 63] : '=';
        *out++ = i + 2 < s.n ? digits[v & 63] : '=';
    }
    luaL_pushresultsize(&b, n);
    return 1;
}

void ep_envoy_crypto_open(lua_State *L)
{
    static const luaL_Reg methods[] = {{"get", key_get}, {NULL, NULL}};

    ep_envoy_class(L, EP_ENVOY_KEY, methods, NULL);
}
