/* Hashes, base64 and signatures for the modules in lua/ephor: "ephor.native".crypto.
 *
 * Keys are public ones out of a JSON Web Key (RFC 7517, 7518, 8037) and nothing else, so no script ever holds a secret
 * here. A key knows its type, and a signature is verified only by an algorithm of that type: a token that says HS256
 * finds no algorithm, and one that says ES256 no RSA key. Base64 is read strictly (no white space, no bits left over),
 * so that one token has one spelling. Everything is charged before it is done: about a Lua instruction for each 10 ns.
 */
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>

#include "lua/host.h"
#include "lua/library.h"

#define KEY_CLASS     "ephor.crypto.key"
#define RSA_BITS_MIN  2048u /* RFC 7518 section 3.3 */
#define RSA_BITS_MAX  8192u
#define KEY_COST      5000 /* a point is checked to be on its curve */
#define P256_BYTES    32u
#define P384_BYTES    48u
#define ED25519_BYTES 32u

enum key_type { KEY_RSA, KEY_P256, KEY_P384, KEY_ED25519, KEY_TYPES };

/* `padding` lets Lua's allocator see about what BoringSSL took, so that garbage is collected in time. */
struct key {
    EVP_PKEY *pkey;
    enum key_type type;
    unsigned bits;
    char padding[2048];
};

struct algorithm {
    const char *name;
    enum key_type type;
    const EVP_MD *(*digest)(void); /* NULL: the signature takes the message itself */
    bool pss;
    size_t half_bytes; /* of an ECDSA signature: r, then s */
};

static const struct algorithm algorithms[] = {
    {"RS256", KEY_RSA, EVP_sha256, false, 0},
    {"RS384", KEY_RSA, EVP_sha384, false, 0},
    {"RS512", KEY_RSA, EVP_sha512, false, 0},
    {"PS256", KEY_RSA, EVP_sha256, true, 0},
    {"ES256", KEY_P256, EVP_sha256, false, P256_BYTES},
    {"ES384", KEY_P384, EVP_sha384, false, P384_BYTES},
    {"EdDSA", KEY_ED25519, NULL, false, 0},
};

/* --- hashes --- */

static void charge_hash(lua_State *L, size_t n)
{
    ep_lua_charge(L, n / 8 + 50);
}

static int sha256(lua_State *L)
{
    struct ep_str s = ep_lua_check_str(L, 1);
    uint8_t digest[SHA256_DIGEST_LENGTH];

    charge_hash(L, s.n);
    SHA256((const uint8_t *)s.p, s.n, digest);
    lua_pushlstring(L, (const char *)digest, sizeof digest);
    return 1;
}

static int hmac_sha256(lua_State *L)
{
    struct ep_str key = ep_lua_check_str(L, 1), s = ep_lua_check_str(L, 2);
    uint8_t digest[SHA256_DIGEST_LENGTH];
    unsigned n = 0;

    charge_hash(L, key.n + s.n);
    if (!HMAC(EVP_sha256(), key.p, key.n, (const uint8_t *)s.p, s.n, digest, &n)) {
        ERR_clear_error();
        return luaL_error(L, "HMAC failed");
    }
    lua_pushlstring(L, (const char *)digest, n);
    return 1;
}

static int equal(lua_State *L)
{
    struct ep_str a = ep_lua_check_str(L, 1), b = ep_lua_check_str(L, 2);

    ep_lua_charge(L, a.n / 16);
    lua_pushboolean(L, a.n == b.n && CRYPTO_memcmp(a.p, b.p, a.n) == 0);
    return 1;
}

static int hex(lua_State *L)
{
    static const char digits[] = "0123456789abcdef";
    struct ep_str s = ep_lua_check_str(L, 1);
    luaL_Buffer b;

    ep_lua_charge(L, s.n / 8);
    char *out = luaL_buffinitsize(L, &b, s.n * 2 + 1);
    for (size_t i = 0; i < s.n; i++) {
        *out++ = digits[(unsigned char)s.p[i] >> 4];
        *out++ = digits[(unsigned char)s.p[i] & 15];
    }
    luaL_pushresultsize(&b, s.n * 2);
    return 1;
}

/* --- base64 (RFC 4648) --- */

static const char standard[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char urlsafe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static int encode(lua_State *L, const char *alphabet, bool padded)
{
    struct ep_str s = ep_lua_check_str(L, 1);
    luaL_Buffer b;
    size_t n = 0;

    ep_lua_charge(L, s.n / 8);
    char *out = luaL_buffinitsize(L, &b, s.n / 3 * 4 + 5);
    for (size_t i = 0; i < s.n; i += 3) {
        const unsigned char *p = (const unsigned char *)s.p + i;
        size_t left = EP_MIN(s.n - i, (size_t)3);
        uint32_t v = (uint32_t)p[0] << 16 | (left > 1 ? (uint32_t)p[1] << 8 : 0) | (left > 2 ? p[2] : 0u);
        for (size_t k = 0; k < 4; k++) {
            if (k <= left)
                out[n++] = alphabet[v >> (18 - 6 * k) & 63];
            else if (padded)
                out[n++] = '=';
        }
    }
    luaL_pushresultsize(&b, n);
    return 1;
}

/* As ep_base64_digit, or of the alphabet for URLs and file names (RFC 4648 section 5). */
static uint32_t digit_of(char c, bool url)
{
    if (url && (c == '-' || c == '_'))
        return c == '-' ? 62 : 63;
    return url && (c == '+' || c == '/') ? 64 : ep_base64_digit(c);
}

/* Writes at most n/4*3+2 bytes; false for another alphabet, a wrong length or bits left over. */
static bool read_base64(struct ep_str s, bool url, char *out, size_t *n_out)
{
    uint32_t v = 0, bad = 0;
    size_t n = 0;

    if (!url) {
        if (s.n % 4)
            return false;
        for (int i = 0; i < 2 && s.n && s.p[s.n - 1] == '='; i++)
            s.n--;
    }
    if (s.n % 4 == 1)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        uint32_t d = digit_of(s.p[i], url);
        bad |= d & 64;
        v = v << 6 | (d & 63);
        if (i % 4)
            out[n++] = (char)(v >> (6 - 2 * (i % 4)) & 255);
    }
    if (s.n % 4)
        bad |= v & ((1u << (s.n % 4 == 2 ? 4 : 2)) - 1);
    *n_out = n;
    return !bad;
}

static int decode(lua_State *L, bool url)
{
    struct ep_str s = ep_lua_check_str(L, 1);
    luaL_Buffer b;
    size_t n;

    ep_lua_charge(L, s.n / 8);
    char *out = luaL_buffinitsize(L, &b, s.n / 4 * 3 + 4);
    if (!read_base64(s, url, out, &n)) {
        lua_pushnil(L);
        return 1;
    }
    luaL_pushresultsize(&b, n);
    return 1;
}

static int to_base64(lua_State *L)
{
    return encode(L, standard, true);
}

static int to_base64url(lua_State *L)
{
    return encode(L, urlsafe, false);
}

static int from_base64(lua_State *L)
{
    return decode(L, false);
}

static int from_base64url(lua_State *L)
{
    return decode(L, true);
}

/* --- keys --- */

static EVP_PKEY *rsa_key(struct ep_str n, struct ep_str e, unsigned *bits)
{
    RSA *rsa = RSA_new();
    EVP_PKEY *pkey = EVP_PKEY_new();
    BIGNUM *modulus = BN_bin2bn((const uint8_t *)n.p, n.n, NULL);
    BIGNUM *exponent = BN_bin2bn((const uint8_t *)e.p, e.n, NULL);
    bool good = rsa && pkey && modulus && exponent && BN_is_odd(modulus) && BN_is_odd(exponent) &&
                BN_num_bits(exponent) >= 2 && BN_num_bits(exponent) <= 32;

    *bits = modulus ? BN_num_bits(modulus) : 0;
    good = good && *bits >= RSA_BITS_MIN && *bits <= RSA_BITS_MAX && RSA_set0_key(rsa, modulus, exponent, NULL);
    if (good)
        modulus = exponent = NULL; /* the RSA has them */
    good = good && EVP_PKEY_set1_RSA(pkey, rsa);
    BN_free(modulus);
    BN_free(exponent);
    RSA_free(rsa);
    if (good)
        return pkey;
    EVP_PKEY_free(pkey);
    return NULL;
}

static EVP_PKEY *ec_key(int curve, struct ep_str x, struct ep_str y)
{
    EC_KEY *ec = EC_KEY_new_by_curve_name(curve);
    EVP_PKEY *pkey = EVP_PKEY_new();
    BIGNUM *bx = BN_bin2bn((const uint8_t *)x.p, x.n, NULL), *by = BN_bin2bn((const uint8_t *)y.p, y.n, NULL);
    bool good = ec && pkey && bx && by && EC_KEY_set_public_key_affine_coordinates(ec, bx, by) &&
                EVP_PKEY_set1_EC_KEY(pkey, ec);

    BN_free(bx);
    BN_free(by);
    EC_KEY_free(ec);
    if (good)
        return pkey;
    EVP_PKEY_free(pkey);
    return NULL;
}

static EVP_PKEY *make_key(enum key_type type, struct ep_str a, struct ep_str b, unsigned *bits)
{
    size_t ec_bytes = type == KEY_P256 ? P256_BYTES : P384_BYTES;

    switch (type) {
    case KEY_RSA:
        return a.n <= RSA_BITS_MAX / 8 && b.n <= 8 ? rsa_key(a, b, bits) : NULL;
    case KEY_P256:
    case KEY_P384:
        if (a.n != ec_bytes || b.n != ec_bytes)
            return NULL;
        return ec_key(type == KEY_P256 ? NID_X9_62_prime256v1 : NID_secp384r1, a, b);
    case KEY_ED25519:
        if (a.n != ED25519_BYTES || b.n)
            return NULL;
        return EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, (const uint8_t *)a.p, a.n);
    case KEY_TYPES:
        break;
    }
    return NULL;
}

/* key(type, a[, b]): "RSA" with n and e, "P-256" and "P-384" with x and y, "Ed25519" with x; bytes, not base64.
 * nil when they make no key that we accept. */
static int new_key(lua_State *L)
{
    static const char *const types[] = {"RSA", "P-256", "P-384", "Ed25519", NULL};
    enum key_type type = (enum key_type)luaL_checkoption(L, 1, NULL, types);
    struct ep_str a = ep_lua_check_str(L, 2), b = {"", 0};

    if (!lua_isnoneornil(L, 3))
        b = ep_lua_check_str(L, 3);
    ep_lua_charge(L, KEY_COST);
    struct key *k = lua_newuserdatauv(L, sizeof *k, 0);
    k->pkey = NULL;
    k->type = type;
    k->bits = 0;
    luaL_setmetatable(L, KEY_CLASS);
    k->pkey = make_key(type, a, b, &k->bits);
    ERR_clear_error();
    if (!k->pkey)
        lua_pushnil(L);
    return 1;
}

static int key_gc(lua_State *L)
{
    struct key *k = luaL_checkudata(L, 1, KEY_CLASS);

    EVP_PKEY_free(k->pkey);
    k->pkey = NULL;
    return 0;
}

/* --- signatures --- */

/* JOSE writes r and s side by side, BoringSSL wants them in DER; *der is to be freed. */
static bool to_der(struct ep_str raw, size_t half_bytes, uint8_t **der, size_t *n)
{
    ECDSA_SIG *sig = raw.n == 2 * half_bytes ? ECDSA_SIG_new() : NULL;
    bool good = false;

    if (sig) {
        BIGNUM *r = BN_bin2bn((const uint8_t *)raw.p, half_bytes, NULL);
        BIGNUM *s = BN_bin2bn((const uint8_t *)raw.p + half_bytes, half_bytes, NULL);
        if (r && s && ECDSA_SIG_set0(sig, r, s)) {
            good = ECDSA_SIG_to_bytes(der, n, sig);
        } else {
            BN_free(r);
            BN_free(s);
        }
    }
    ECDSA_SIG_free(sig);
    return good;
}

static bool verify_with(const struct algorithm *a, EVP_PKEY *pkey, struct ep_str data, struct ep_str signature)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *pctx = NULL;
    uint8_t *der = NULL;
    const uint8_t *sig = (const uint8_t *)signature.p;
    size_t n = signature.n;
    bool good = ctx && EVP_DigestVerifyInit(ctx, &pctx, a->digest ? a->digest() : NULL, NULL, pkey);

    if (good && a->pss)
        good = EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) &&
               EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, -1); /* as long as the digest: RFC 7518 section 3.5 */
    if (good && a->half_bytes) {
        good = to_der(signature, a->half_bytes, &der, &n);
        sig = der;
    }
    good = good && EVP_DigestVerify(ctx, sig, n, (const uint8_t *)data.p, data.n);
    OPENSSL_free(der);
    EVP_MD_CTX_free(ctx);
    ERR_clear_error(); /* the queue is TLS's too */
    return good;
}

static uint64_t cost(const struct key *k)
{
    static const uint64_t costs[KEY_TYPES] = {
        [KEY_RSA] = 3000, [KEY_P256] = 10000, [KEY_P384] = 60000, [KEY_ED25519] = 10000};
    uint64_t ratio = k->type == KEY_RSA ? (k->bits + RSA_BITS_MIN - 1) / RSA_BITS_MIN : 1;

    return costs[k->type] * ratio * ratio;
}

/* key:verify(algorithm, data, signature): true only when the algorithm is one of the key's type, and it fits. */
static int key_verify(lua_State *L)
{
    struct key *k = luaL_checkudata(L, 1, KEY_CLASS);
    struct ep_str name = ep_lua_check_str(L, 2), data = ep_lua_check_str(L, 3), signature = ep_lua_check_str(L, 4);
    bool good = false;

    ep_lua_charge(L, cost(k));
    charge_hash(L, data.n);
    for (size_t i = 0; i < EP_COUNT(algorithms); i++)
        if (k->pkey && algorithms[i].type == k->type && ep_str_eq(name, ep_str(algorithms[i].name)))
            good = verify_with(&algorithms[i], k->pkey, data, signature);
    lua_pushboolean(L, good);
    return 1;
}

int ep_lua_crypto_native(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"sha256", sha256},
        {"hmac_sha256", hmac_sha256},
        {"equal", equal},
        {"hex", hex},
        {"to_base64", to_base64},
        {"to_base64url", to_base64url},
        {"from_base64", from_base64},
        {"from_base64url", from_base64url},
        {"key", new_key},
        {NULL, NULL},
    };
    static const luaL_Reg methods[] = {{"verify", key_verify}, {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", key_gc}, {NULL, NULL}};

    if (luaL_getmetatable(L, KEY_CLASS) == LUA_TNIL) {
        ep_lua_class(L, KEY_CLASS, methods, meta);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    luaL_newlib(L, functions);
    return 1;
}
