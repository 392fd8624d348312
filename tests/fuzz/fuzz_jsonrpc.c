/* link: ep_filters */
/* The scan of JSON bodies, and the answers made of what it found: every slice lies where it may, a scan of the same bytes
 * elsewhere says the same, and a refusal is JSON that carries the request's id as it came. */
#include <stdlib.h>

#include "agent/agent.h"

#define CHECK(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void *alloc(void *user, size_t n)
{
    return ep_arena_alloc(user, n);
}

struct text {
    char *p;
    size_t n;
};

static struct text padded(const void *p, size_t n, int fill)
{
    struct text t = {malloc(n + EP_SCAN_PADDING), n};

    CHECK(t.p);
    if (n)
        memcpy(t.p, p, n);
    memset(t.p + n, fill, EP_SCAN_PADDING);
    return t;
}

static void check_value(const struct ep_scan_value *v, struct text t)
{
    if (v->kind == EP_SCAN_ABSENT)
        return;
    CHECK(v->raw.n > 0 && v->raw.p >= t.p && v->raw.p + v->raw.n <= t.p + t.n);
    CHECK(v->text.n <= v->raw.n);
    if (v->kind == EP_SCAN_STRING)
        CHECK(v->raw.n >= 2 && v->raw.p[0] == '"' && v->raw.p[v->raw.n - 1] == '"');
    if (v->kind == EP_SCAN_OBJECT)
        CHECK(v->raw.p[0] == '{' && v->raw.p[v->raw.n - 1] == '}');
    if (v->kind == EP_SCAN_ARRAY)
        CHECK(v->raw.p[0] == '[' && v->raw.p[v->raw.n - 1] == ']');
}

static bool same(const struct ep_scan_value *a, const struct ep_scan_value *b)
{
    return a->kind == b->kind && a->raw.n == b->raw.n && a->text.n == b->text.n &&
           (!a->raw.n || !memcmp(a->raw.p, b->raw.p, a->raw.n)) && (!a->text.n || !memcmp(a->text.p, b->text.p, a->text.n));
}

static void check_answer(struct ep_scanner *scanner, const struct ep_scan_message *m, struct ep_arena *arena)
{
    static const struct ep_refusal denied = {.kind = EP_REFUSE_POLICY, .policy = EP_STR_INIT("p"),
                                             .reason = EP_STR_INIT("\"\\\n\xff"), .code = "c", .grpc_status = -1};
    struct ep_call call = {.method = m->method.kind == EP_SCAN_STRING ? ep_agent_str(m->method.text) : EP_STR(""),
                           .id_raw = ep_agent_str(m->id.raw), .visible = EP_VISIBLE_FULL, .wants_json = true};
    struct ep_answer a;
    struct ep_scan out;
    struct text t;

    ep_mcp_answer(&call, &denied, EP_STR("d"), arena, &a);
    CHECK(a.status == 200);
    t = padded(a.body.p, a.body.n, '"');
    CHECK(ep_scan_json(scanner, t.p, t.n, alloc, arena, &out) == EP_SCAN_OK);
    CHECK(!out.duplicate && out.n == 1 && same(&out.first->id, &m->id));
    CHECK((out.first->result.kind == EP_SCAN_OBJECT) != (out.first->error.kind == EP_SCAN_OBJECT));
    free(t.p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct ep_chunk_pool pool;
    struct ep_scanner *scanner = ep_scanner_new(1);
    struct text a = padded(data, n, '"'), b = padded(data, n, 0);
    struct ep_scan x, y;
    struct ep_arena arena;
    enum ep_scan_result result;
    struct ep_str decoded;

    ep_arena_init(&arena, &pool);
    CHECK(scanner);
    result = ep_scan_json(scanner, a.p, a.n, alloc, &arena, &x);
    CHECK(result == ep_scan_json(scanner, b.p, b.n, alloc, &arena, &y));
    if (result == EP_SCAN_OK) {
        const struct ep_scan_message *m = x.first, *k = y.first;

        CHECK(x.n == y.n && x.duplicate == y.duplicate && x.n <= EP_SCAN_BATCH_MAX && (x.batch || x.n == 1));
        for (; m && k; m = m->next, k = k->next) {
            const struct ep_scan_value *const v[] = {&m->jsonrpc, &m->id, &m->method, &m->params, &m->result, &m->error,
                                                     &m->name, &m->arguments, &m->uri, &m->task_id, &m->meta_version,
                                                     &m->model, &m->input};
            for (size_t i = 0; i < EP_COUNT(v); i++)
                check_value(v[i], a);
            CHECK(same(&m->method, &k->method) && same(&m->name, &k->name) && same(&m->arguments, &k->arguments));
            CHECK(m->is_object || !m->method.kind);
            if (!x.duplicate && (m->id.kind == EP_SCAN_STRING || m->id.kind == EP_SCAN_NUMBER) && m == x.first)
                check_answer(scanner, m, &arena);
        }
        CHECK(!m && !k);
    }
    ep_mcp_decode_header(ep_str_n(data, n), &arena, &decoded);
    ep_arena_fini(&arena);
    ep_chunk_pool_fini(&pool);
    ep_scanner_free(scanner);
    free(a.p);
    free(b.p);
    return 0;
}
