/* Ed25519 (RFC 8032) by BoringSSL; keys as RFC 8410 has them in PKCS#8. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/base64.h>
#include <openssl/curve25519.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "observe/signature.h"

#define SEED_BYTES 32u
#define FILE_MAX   4096u
#define NAME       "ed25519:"
#define PEM_BEGIN  "-----BEGIN PRIVATE KEY-----"
#define PEM_END    "-----END PRIVATE KEY-----"

/* The whole of a PKCS#8 of version 0 before the seed: RFC 8410 section 7. */
static const uint8_t pkcs8[] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06,
                                0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20};

static void from_seed(const uint8_t seed[SEED_BYTES], struct ep_signer *out)
{
    uint8_t public_key[EP_PUBLIC_KEY_BYTES];

    ED25519_keypair_from_seed(public_key, out->secret, seed);
}

static bool decode(char *text, struct ep_signer *out)
{
    uint8_t der[FILE_MAX];
    char *begin = strstr(text, PEM_BEGIN), *end, *to;
    size_t n = 0;
    bool good;

    if (!begin)
        return false;
    begin += sizeof(PEM_BEGIN) - 1;
    end = strstr(begin, PEM_END);
    if (!end)
        return false;
    to = begin;
    for (const char *p = begin; p < end; p++)
        if ((unsigned char)*p > ' ')
            *to++ = *p;
    good = EVP_DecodeBase64(der, &n, sizeof der, (const uint8_t *)begin, (size_t)(to - begin)) &&
           n == sizeof pkcs8 + SEED_BYTES && memcmp(der, pkcs8, sizeof pkcs8) == 0;
    if (good)
        from_seed(der + sizeof pkcs8, out);
    explicit_bzero(der, sizeof der);
    return good;
}

bool ep_signer_load(struct ep_str path_, struct ep_signer *out, struct ep_error *err)
{
    char text[FILE_MAX], *path = ep_strndup(path_.p, path_.n);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    ssize_t n = -1;
    bool good = false;

    if (fd < 0 || fstat(fd, &st) < 0) {
        (void)ep_error_set(err, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode) || st.st_size >= (off_t)sizeof text) {
        (void)ep_error_set(err, "%s: not a file of a private key", path);
    } else if ((n = read(fd, text, sizeof text - 1)) < 0) {
        (void)ep_error_set(err, "%s: %s", path, strerror(errno));
    } else {
        text[n] = '\0';
        good = decode(text, out) || ep_error_set(err, "%s: no Ed25519 private key (PKCS#8, PEM)", path);
    }
    explicit_bzero(text, sizeof text);
    if (fd >= 0)
        (void)close(fd);
    free(path);
    return good;
}

bool ep_signer_generate(struct ep_signer *out, struct ep_error *err)
{
    uint8_t seed[SEED_BYTES];

    if (!RAND_bytes(seed, sizeof seed))
        return ep_error_set(err, "no random numbers");
    from_seed(seed, out);
    explicit_bzero(seed, sizeof seed);
    return true;
}

size_t ep_signer_pem(const struct ep_signer *s, char out[EP_PRIVATE_PEM_BYTES])
{
    uint8_t der[sizeof pkcs8 + SEED_BYTES], text[96];
    int n;

    memcpy(der, pkcs8, sizeof pkcs8);
    memcpy(der + sizeof pkcs8, s->secret, SEED_BYTES);
    (void)EVP_EncodeBlock(text, der, sizeof der);
    n = snprintf(out, EP_PRIVATE_PEM_BYTES, PEM_BEGIN "\n%s\n" PEM_END "\n", (const char *)text);
    explicit_bzero(der, sizeof der);
    explicit_bzero(text, sizeof text);
    return (size_t)n;
}

void ep_signer_public(const struct ep_signer *s, uint8_t key[EP_PUBLIC_KEY_BYTES])
{
    memcpy(key, s->secret + SEED_BYTES, EP_PUBLIC_KEY_BYTES);
}

void ep_signer_sign(const struct ep_signer *s, struct ep_str text, uint8_t signature[EP_SIGNATURE_BYTES])
{
    int done = ED25519_sign(signature, (const uint8_t *)text.p, text.n, s->secret);

    assert(done == 1); /* there is no other error than that of memory */
}

void ep_signer_forget(struct ep_signer *s)
{
    explicit_bzero(s, sizeof *s);
}

void ep_public_key_text(const uint8_t key[EP_PUBLIC_KEY_BYTES], char out[EP_PUBLIC_KEY_TEXT])
{
    memcpy(out, NAME, sizeof(NAME) - 1);
    (void)EVP_EncodeBlock((uint8_t *)out + sizeof(NAME) - 1, key, EP_PUBLIC_KEY_BYTES);
}

bool ep_public_key_parse(struct ep_str text, uint8_t key[EP_PUBLIC_KEY_BYTES])
{
    uint8_t bytes[48];
    size_t n;

    if (!ep_str_starts(text, EP_STR(NAME)) || text.n - (sizeof(NAME) - 1) != 44 ||
        !EVP_DecodeBase64(bytes, &n, sizeof bytes, (const uint8_t *)text.p + sizeof(NAME) - 1, 44) ||
        n != EP_PUBLIC_KEY_BYTES)
        return false;
    memcpy(key, bytes, EP_PUBLIC_KEY_BYTES);
    return true;
}

bool ep_signature_good(struct ep_str text, const uint8_t signature[EP_SIGNATURE_BYTES],
                       const uint8_t key[EP_PUBLIC_KEY_BYTES])
{
    return ED25519_verify((const uint8_t *)text.p, text.n, signature, key) == 1;
}

void ep_hex(const uint8_t *bytes, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool ep_unhex(struct ep_str text, uint8_t *bytes, size_t n)
{
    if (text.n != 2 * n)
        return false;
    for (size_t i = 0; i < n; i++) {
        int high = digit(text.p[2 * i]), low = digit(text.p[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

void ep_sha256_hex(struct ep_str text, char hex[EP_SHA256_HEX])
{
    uint8_t digest[SHA256_DIGEST_LENGTH];

    (void)SHA256((const uint8_t *)text.p, text.n, digest);
    ep_hex(digest, sizeof digest, hex);
}
