/* link: ep_http */
/* The header table: ids, sets, removals, order; tokens; what may stand in a name or a value. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/http.h"

static const struct {
    uint16_t id;
    struct ep_str name;
} ids[] = {
#define X(id, name) {EP_HDR_##id, EP_STR_INIT(name)},
#include "http/header_ids.def"
#undef X
};

struct play {
    struct ep_chunk_pool pool;
    struct ep_arena arena;
    struct ep_headers h;
};

static void begin(struct play *p)
{
    ep_chunk_pool_init(&p->pool, 8);
    ep_arena_init(&p->arena, &p->pool);
    ep_headers_init(&p->h, &p->arena);
}

static void end(struct play *p)
{
    ep_headers_fini(&p->h);
    ep_arena_fini(&p->arena);
    ep_chunk_pool_fini(&p->pool);
}

static void assert_str(struct ep_str s, const char *expected)
{
    assert_true(ep_str_eq(s, ep_str(expected)));
}

static void every_name_has_its_id(void **state)
{
    (void)state;
    for (size_t i = 0; i < EP_COUNT(ids); i++) {
        char other[64];
        struct ep_str name = ids[i].name;

        assert_int_equal(ep_header_id(name), ids[i].id);
        assert_true(ep_str_eq(ep_header_name(ids[i].id), name));
        memcpy(other, name.p, name.n);
        other[name.n - 1] ^= 1;
        for (size_t n = 0; n < name.n; n++) /* its beginnings are others, or none */
            assert_int_not_equal(ep_header_id(ep_str_n(name.p, n)), ids[i].id);
        assert_int_not_equal(ep_header_id(ep_str_n(other, name.n)), ids[i].id);
    }
    assert_int_equal(ep_header_id(EP_STR("")), EP_HDR_OTHER);
    assert_int_equal(ep_header_id(EP_STR("x-nobody-knows-this-header-at-all-really")), EP_HDR_OTHER);
    assert_int_equal(ep_header_id(EP_STR("Host")), EP_HDR_OTHER); /* names are in lower case */
}

static void adds_and_gets(void **state)
{
    struct play p;

    (void)state;
    begin(&p);
    ep_headers_add(&p.h, EP_STR("Content-Type"), EP_STR("text/plain"));
    ep_headers_add(&p.h, EP_STR("X-Own"), EP_STR("1"));
    ep_headers_add_id(&p.h, EP_HDR_ACCEPT, EP_STR(""));
    assert_int_equal(p.h.n, 3);
    assert_int_equal(p.h.bytes, 12 + 10 + 5 + 1 + 6 + 0 + 3 * 32);
    assert_str(p.h.v[1].name, "x-own");
    assert_str(ep_headers_get(&p.h, EP_STR("content-type")), "text/plain");
    assert_str(ep_headers_get(&p.h, EP_STR("CONTENT-TYPE")), "text/plain");
    assert_str(ep_headers_get_id(&p.h, EP_HDR_CONTENT_TYPE), "text/plain");
    assert_str(ep_headers_get(&p.h, EP_STR("x-OWN")), "1");
    assert_non_null(ep_headers_get_id(&p.h, EP_HDR_ACCEPT).p);
    assert_null(ep_headers_get_id(&p.h, EP_HDR_COOKIE).p);
    assert_null(ep_headers_get(&p.h, EP_STR("x-none")).p);
    end(&p);
}

static void set_replaces_and_keeps_pseudo_in_front(void **state)
{
    struct play p;

    (void)state;
    begin(&p);
    ep_headers_add_id(&p.h, EP_HDR_METHOD, EP_STR("GET"));
    ep_headers_add(&p.h, EP_STR("x-a"), EP_STR("1"));
    ep_headers_add(&p.h, EP_STR("x-b"), EP_STR("2"));
    ep_headers_add(&p.h, EP_STR("X-A"), EP_STR("3"));
    ep_headers_set(&p.h, EP_STR("X-a"), EP_STR("long"));
    assert_int_equal(p.h.n, 3);
    assert_str(p.h.v[1].value, "long");
    assert_str(p.h.v[2].name, "x-b");
    ep_headers_set_id(&p.h, EP_HDR_PATH, EP_STR("/"));
    assert_int_equal(p.h.n, 4);
    assert_int_equal(p.h.v[0].id, EP_HDR_METHOD);
    assert_int_equal(p.h.v[1].id, EP_HDR_PATH);
    assert_str(p.h.v[2].name, "x-a");
    ep_headers_set(&p.h, EP_STR("x-c"), EP_STR(""));
    assert_int_equal(p.h.v[4].value.n, 0);
    assert_int_equal(p.h.bytes, 7 + 3 + 5 + 1 + 3 + 4 + 3 + 1 + 3 + 5 * 32);
    end(&p);
}

static void set_of_a_pseudo_alone(void **state)
{
    struct play p;

    (void)state;
    begin(&p);
    ep_headers_set_id(&p.h, EP_HDR_STATUS, EP_STR("200"));
    assert_int_equal(p.h.n, 1);
    assert_str(ep_headers_get_id(&p.h, EP_HDR_STATUS), "200");
    ep_headers_remove_id(&p.h, EP_HDR_STATUS);
    ep_headers_add(&p.h, EP_STR("x-a"), EP_STR("1"));
    ep_headers_set_id(&p.h, EP_HDR_STATUS, EP_STR("404"));
    assert_int_equal(p.h.v[0].id, EP_HDR_STATUS);
    assert_str(p.h.v[1].name, "x-a");
    end(&p);
}

static void removes_all_of_a_name(void **state)
{
    struct play p;

    (void)state;
    begin(&p);
    for (int i = 0; i < 100; i++) { /* grows past its first size */
        ep_headers_add_id(&p.h, EP_HDR_COOKIE, EP_STR("a=b"));
        ep_headers_add(&p.h, EP_STR("x-i"), ep_arena_printf(&p.arena, "%d", i));
    }
    assert_int_equal(ep_headers_count_id(&p.h, EP_HDR_COOKIE), 100);
    assert_int_equal(ep_headers_remove_id(&p.h, EP_HDR_COOKIE), 100);
    assert_int_equal(ep_headers_remove_id(&p.h, EP_HDR_COOKIE), 0);
    assert_int_equal(p.h.n, 100);
    assert_str(p.h.v[57].value, "57");
    assert_int_equal(ep_headers_remove(&p.h, EP_STR("X-I")), 100);
    assert_int_equal(p.h.n, 0);
    assert_int_equal(p.h.bytes, 0);
    end(&p);
}

static void finds_tokens(void **state)
{
    static const struct {
        const char *value, *token;
        bool found;
    } rows[] = {
        {"close", "close", true},       {"Keep-Alive, Close", "close", true}, {"x,close ,y", "close", true},
        {"closed", "close", false},     {"", "close", false},                 {",,\t close\t", "close", true},
        {"not close", "close", false},  {"close;q=1", "close", false},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++)
        assert_int_equal(ep_header_has_token(ep_str(rows[i].value), ep_str(rows[i].token)), rows[i].found);
    assert_str(ep_media_type(EP_STR(" text/html ; charset=utf-8")), "text/html");
    assert_str(ep_media_type(EP_STR("application/json")), "application/json");
}

static void judges_names_and_values(void **state)
{
    const char *tchar = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

    (void)state;
    for (int c = 0; c < 256; c++) {
        char byte = (char)c, value[3] = {'a', byte, 'b'};

        assert_int_equal(ep_header_name_valid(ep_str_n(&byte, 1)), c != 0 && strchr(tchar, c) != NULL);
        assert_int_equal(ep_header_value_valid(ep_str_n(value, 3)), c == '\t' || (c >= 0x20 && c != 0x7f));
    }
    assert_false(ep_header_name_valid(EP_STR("")));
    assert_false(ep_header_name_valid(EP_STR("a b")));
    assert_true(ep_header_value_valid(EP_STR("")));
}

static void names_statuses_and_resets(void **state)
{
    (void)state;
    assert_string_equal(ep_status_reason(200), "OK");
    assert_string_equal(ep_status_reason(103), "Early Hints");
    assert_string_equal(ep_status_reason(431), "Request Header Fields Too Large");
    assert_string_equal(ep_status_reason(451), "Unavailable For Legal Reasons");
    assert_string_equal(ep_status_reason(511), "Network Authentication Required");
    for (unsigned status = 0; status < 1100; status++)
        assert_non_null(ep_status_reason(status));
    assert_string_equal(ep_status_reason(599), "");
    assert_string_equal(ep_status_reason(42), "");
    for (enum ep_reset r = EP_RESET_CANCEL; r < EP_RESET_COUNT; r++)
        assert_true(strlen(ep_reset_name(r)) > 0);
}

static void presets_leave_nothing_unlimited(void **state)
{
    struct ep_http_options o;

    (void)state;
    ep_http_options_preset(&o);
    assert_true(o.max_streams && o.max_header_bytes && o.max_header_count && o.max_request_line && o.stream_window &&
                o.connection_window && o.headers_timeout_ns && o.idle_timeout_ns && o.flush_timeout_ns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_name_has_its_id),
        cmocka_unit_test(adds_and_gets),
        cmocka_unit_test(set_replaces_and_keeps_pseudo_in_front),
        cmocka_unit_test(set_of_a_pseudo_alone),
        cmocka_unit_test(removes_all_of_a_name),
        cmocka_unit_test(finds_tokens),
        cmocka_unit_test(judges_names_and_values),
        cmocka_unit_test(names_statuses_and_resets),
        cmocka_unit_test(presets_leave_nothing_unlimited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
