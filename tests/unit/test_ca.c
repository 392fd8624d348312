/* link: ep_net */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>

#include "net/ca.h"

#define NOW 1800000000ull

static struct ep_ca *made(void)
{
    struct ep_error err;
    struct ep_ca *ca = ep_ca_new(EP_STR("orders"), &err);

    assert_non_null(ca);
    return ca;
}

static X509 *root_of(const struct ep_ca *ca)
{
    struct ep_str pem = ep_ca_pem(ca);
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *x = PEM_read_bio_X509(bio, NULL, NULL, NULL);

    BIO_free(bio);
    assert_non_null(x);
    return x;
}

static X509 *leaf_of(struct ep_ca *ca, const char *host, uint64_t now)
{
    unsigned char *der;
    const unsigned char *p;
    size_t n;
    X509 *x;

    assert_true(ep_ca_leaf(ca, ep_str(host), now, &der, &n));
    p = der;
    x = d2i_X509(NULL, &p, (long)n);
    assert_non_null(x);
    free(der);
    return x;
}

/* As a strict client looks at it. */
static bool verifies(X509 *root, X509 *leaf, const char *host, uint64_t at)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    bool good;

    X509_STORE_add_cert(store, root);
    X509_STORE_CTX_init(ctx, store, leaf, NULL);
    X509_STORE_CTX_set_default(ctx, "ssl_server");
    X509_STORE_CTX_set_time(ctx, 0, (int64_t)at);
    good = X509_verify_cert(ctx) == 1 && X509_check_host(leaf, host, strlen(host), X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) == 1;
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    return good;
}

static void test_a_leaf_is_good_for_its_host_and_its_day(void **state)
{
    struct ep_ca *ca = made(), *other = made();
    X509 *root = root_of(ca), *stranger = root_of(other), *leaf = leaf_of(ca, "api.x.test", NOW);

    (void)state;
    assert_true(verifies(root, leaf, "api.x.test", NOW));
    assert_true(verifies(root, leaf, "api.x.test", NOW - EP_CA_BACKDATE + 1));
    assert_false(verifies(root, leaf, "api.x.test", NOW - EP_CA_BACKDATE - 1));
    assert_true(verifies(root, leaf, "api.x.test", NOW + EP_CA_LEAF_SECONDS - 1));
    assert_false(verifies(root, leaf, "api.x.test", NOW + EP_CA_LEAF_SECONDS + 1));
    assert_false(verifies(root, leaf, "x.test", NOW));
    assert_false(verifies(root, leaf, "a.api.x.test", NOW));
    assert_false(verifies(stranger, leaf, "api.x.test", NOW));
    assert_false(X509_check_ca(leaf));
    X509_free(leaf);
    leaf = leaf_of(ca, "a-name-of-more-than-sixty-four-bytes.which-no-common-name-can-hold.in-full.test", NOW);
    assert_true(verifies(root, leaf, "a-name-of-more-than-sixty-four-bytes.which-no-common-name-can-hold.in-full.test", NOW));
    X509_free(leaf);
    X509_free(root);
    X509_free(stranger);
    ep_ca_unref(ca);
    ep_ca_unref(other);
}

static void test_one_is_kept_for_half_its_day(void **state)
{
    struct ep_ca *ca = made();
    X509 *first = leaf_of(ca, "a.test", NOW), *same = leaf_of(ca, "a.test", NOW + EP_CA_LEAF_SECONDS / 2 - 1),
         *next = leaf_of(ca, "a.test", NOW + EP_CA_LEAF_SECONDS / 2), *back = leaf_of(ca, "a.test", NOW);
    uint64_t count;
    size_t kept;

    (void)state;
    assert_int_equal(X509_cmp(first, same), 0);
    assert_int_not_equal(X509_cmp(first, next), 0);
    assert_int_not_equal(X509_cmp(next, back), 0); /* the clock was set back: it might not be good yet */
    ep_ca_counts(ca, &kept, &count);
    assert_int_equal(kept, 1);
    assert_int_equal(count, 3);
    X509_free(first);
    X509_free(same);
    X509_free(next);
    X509_free(back);
    ep_ca_unref(ca);
}

static void test_the_least_recently_used_leaves(void **state)
{
    struct ep_ca *ca = made();
    uint64_t count;
    size_t kept;
    char host[32];

    (void)state;
    for (unsigned i = 0; i < EP_CA_LEAVES; i++) {
        snprintf(host, sizeof host, "h%u.test", i);
        X509_free(leaf_of(ca, host, NOW));
    }
    X509_free(leaf_of(ca, "h0.test", NOW));  /* used: h1 is the oldest now */
    X509_free(leaf_of(ca, "new.test", NOW)); /* h1 leaves */
    X509_free(leaf_of(ca, "h0.test", NOW));
    ep_ca_counts(ca, &kept, &count);
    assert_int_equal(kept, EP_CA_LEAVES);
    assert_int_equal(count, EP_CA_LEAVES + 1);
    X509_free(leaf_of(ca, "h1.test", NOW));
    ep_ca_counts(ca, &kept, &count);
    assert_int_equal(count, EP_CA_LEAVES + 2);
    ep_ca_unref(ca);
}

static void *use(void *arg)
{
    struct ep_ca *ca = arg;
    char host[32];

    for (unsigned i = 0; i < 300; i++) {
        snprintf(host, sizeof host, "h%u.test", i % 40);
        X509_free(leaf_of(ca, host, NOW + i * 400));
    }
    return NULL;
}

static void test_threads_share_it(void **state)
{
    struct ep_ca *ca = made();
    pthread_t threads[4];
    uint64_t count;
    size_t kept;

    (void)state;
    for (size_t i = 0; i < EP_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use, ca), 0);
    for (size_t i = 0; i < EP_COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    ep_ca_counts(ca, &kept, &count);
    assert_int_equal(kept, 40);
    ep_ca_unref(ca);
}

static void test_what_can_t_be_loaded_says_why(void **state)
{
    static const char junk[] = "-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n";
    struct ep_ca *ca = made();
    struct ep_error err;

    (void)state;
    assert_null(ep_ca_load(ep_ca_pem(ca), EP_STR(""), &err));
    assert_non_null(strstr(err.text, "key: no private key"));
    assert_null(ep_ca_load(ep_ca_pem(ca), ep_str(junk), &err));
    assert_null(strstr(err.text, "bm90"));
    ep_ca_unref(ca);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_leaf_is_good_for_its_host_and_its_day),
        cmocka_unit_test(test_one_is_kept_for_half_its_day),
        cmocka_unit_test(test_the_least_recently_used_leaves),
        cmocka_unit_test(test_threads_share_it),
        cmocka_unit_test(test_what_can_t_be_loaded_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
