/* The handshake of RFC 6455 section 4: keys and what they are answered with. */
#include <openssl/base64.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include "http/h1.h"

#define KEY_RAW_BYTES 16u
#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

bool h1_websocket_key_good(struct ep_str key)
{
    uint8_t raw[KEY_RAW_BYTES + 2];
    size_t n = 0;

    return key.n == H1_KEY_BYTES && EVP_DecodeBase64(raw, &n, sizeof raw, (const uint8_t *)key.p, key.n) == 1 &&
           n == KEY_RAW_BYTES;
}

void h1_websocket_new_key(char out[H1_KEY_BYTES])
{
    uint8_t raw[KEY_RAW_BYTES], text[H1_KEY_BYTES + 1];

    RAND_bytes(raw, sizeof raw);
    EVP_EncodeBlock(text, raw, sizeof raw);
    memcpy(out, text, H1_KEY_BYTES);
}

void h1_websocket_accept(struct ep_str key, char out[H1_ACCEPT_BYTES])
{
    uint8_t digest[SHA_DIGEST_LENGTH], text[H1_ACCEPT_BYTES + 1];
    SHA_CTX sha;

    SHA1_Init(&sha);
    SHA1_Update(&sha, key.p, key.n);
    SHA1_Update(&sha, GUID, sizeof GUID - 1);
    SHA1_Final(digest, &sha);
    EVP_EncodeBlock(text, digest, sizeof digest);
    memcpy(out, text, H1_ACCEPT_BYTES);
}
