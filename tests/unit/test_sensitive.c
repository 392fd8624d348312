/* link: ep_filters */
/* What `redact` finds by name, and what it leaves alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lua/sensitive.h"

static void test_finds(void **state)
{
    static const struct {
        enum ep_sensitive kind;
        const char *text, *found; /* NULL: nothing */
    } rows[] = {
        {EP_SENSITIVE_SSN, "my 123-45-6789.", "123-45-6789"},
        {EP_SENSITIVE_SSN, "123 45 6789", "123 45 6789"},
        {EP_SENSITIVE_SSN, "x9123-45-6789", NULL},
        {EP_SENSITIVE_SSN, "123-45-67891", NULL},
        {EP_SENSITIVE_SSN, "123-45 6789", NULL},
        {EP_SENSITIVE_SSN, "123-45-678", NULL},
        {EP_SENSITIVE_EMAIL, "to: Ann.B+x@mail.Example.co.uk, now", "Ann.B+x@mail.Example.co.uk"},
        {EP_SENSITIVE_EMAIL, "write to a@b.cd.", "a@b.cd"},
        {EP_SENSITIVE_EMAIL, "a@@b.cd", NULL},
        {EP_SENSITIVE_EMAIL, "@b.cd", NULL},
        {EP_SENSITIVE_EMAIL, "user@localhost", NULL},
        {EP_SENSITIVE_EMAIL, "a@b.", NULL},
        {EP_SENSITIVE_EMAIL, "a@.", NULL},
        {EP_SENSITIVE_EMAIL, "x@ jörg@exämple.de", "jörg@exämple.de"},
        {EP_SENSITIVE_CREDIT_CARD, "card 4111 1111 1111 1111!", "4111 1111 1111 1111"},
        {EP_SENSITIVE_CREDIT_CARD, "4111-1111-1111-1111", "4111-1111-1111-1111"},
        {EP_SENSITIVE_CREDIT_CARD, "4111111111111112", NULL},
        {EP_SENSITIVE_CREDIT_CARD, "378282246310005", "378282246310005"},
        {EP_SENSITIVE_CREDIT_CARD, "1 4111111111111111 2", "4111111111111111"},
        {EP_SENSITIVE_CREDIT_CARD, "94111111111111111", NULL},
        {EP_SENSITIVE_CREDIT_CARD, "0000000000000000", NULL},
        {EP_SENSITIVE_IBAN, "DE89 3704 0044 0532 0130 00 and", "DE89 3704 0044 0532 0130 00"},
        {EP_SENSITIVE_IBAN, "GB82WEST12345698765432", "GB82WEST12345698765432"},
        {EP_SENSITIVE_IBAN, "GB82WEST12345698765433", NULL},
        {EP_SENSITIVE_PHONE, "call +49 (30) 1234-5678 now", "+49 (30) 1234-5678"},
        {EP_SENSITIVE_PHONE, "1+1234567", NULL},
        {EP_SENSITIVE_API_KEY, "key=sk-abcdefghijklmnopqrstuv;", "sk-abcdefghijklmnopqrstuv"},
        {EP_SENSITIVE_API_KEY, "AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"},
        {EP_SENSITIVE_API_KEY, "task-abcdefghijklmnopqrstuv", NULL},
        {EP_SENSITIVE_API_KEY, "sk-short", NULL},
        {EP_SENSITIVE_JWT, "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_9", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_9"},
        {EP_SENSITIVE_JWT, "eyJust a word here and more", NULL},
        {EP_SENSITIVE_PRIVATE_KEY, "a\n-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\nb",
         "-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----"},
        {EP_SENSITIVE_PRIVATE_KEY, "-----BEGIN PRIVATE KEY-----\nMII cut", "-----BEGIN PRIVATE KEY-----\nMII cut"},
        {EP_SENSITIVE_PRIVATE_KEY, "-----BEGIN PUBLIC KEY-----", NULL},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_str s = ep_str(rows[i].text);
        size_t begin = 0, end = 0;
        bool found = ep_sensitive_find(rows[i].kind, s, 0, &begin, &end);
        if (found != !!rows[i].found)
            fail_msg("row %zu: %s", i, rows[i].text);
        if (found && !ep_str_eq(ep_str_n(s.p + begin, end - begin), ep_str(rows[i].found)))
            fail_msg("row %zu: '%.*s'", i, (int)(end - begin), s.p + begin);
    }
}

/* Whatever the text: a place inside of it, in time, and ever further. */
static void test_any_text(void **state)
{
    static const char *const pieces[] = {"1",  "23-",  "@",   "a@b.",  "....", "+4",  "eyJ",  "sk-",  "AKIA", "DE89",
                                         "\n", "4111", "1 1", "PRIVATE KEY-----", "-----", "ü",   "x",    "\"",   "\\",   ""};
    static char text[200000];
    struct ep_rng rng;

    (void)state;
    ep_rng_seed(&rng, 7);
    for (int round = 0; round < 40; round++) {
        size_t n = 0, few = 1 + ep_rng_u64(&rng) % EP_COUNT(pieces), first = ep_rng_u64(&rng) % EP_COUNT(pieces);
        while (n < sizeof text - 32) {
            const char *piece = pieces[(first + ep_rng_u64(&rng) % few) % EP_COUNT(pieces)];
            memcpy(text + n, piece, strlen(piece));
            n += EP_MAX(strlen(piece), (size_t)1);
        }
        for (int k = 0; k < EP_SENSITIVE_KINDS; k++) {
            size_t from = 0, begin, end;
            uint64_t start = ep_clock_ns();
            while (ep_sensitive_find((enum ep_sensitive)k, ep_str_n(text, n), from, &begin, &end)) {
                assert_true(begin >= from && begin < end && end <= n);
                from = end;
            }
            if (ep_clock_ns() - start > 2 * EP_S)
                fail_msg("%s takes too long", ep_sensitive_name((enum ep_sensitive)k));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_finds), cmocka_unit_test(test_any_text)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
