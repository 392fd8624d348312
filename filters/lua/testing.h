/* Private to the tests of policies: what the files policy_test.c, test_*.c and replay.c share.
 *
 * policy_test.c runs the files and says what came out; test_stream.c makes streams of tables and judges them; test_play.c
 * takes such a stream through the filter `policies`, and test_events.c plays streamed replies on it; test_world.c has the fakes of clock, peer and shared table; test_report.c writes TAP and JUnit; test_coverage.c knows
 * which lines ran; replay.c judges again what a proxy has recorded (record.c). */
#ifndef EP_LUA_TESTING_H
#define EP_LUA_TESTING_H

#include <stdio.h>

#include "filter/chain.h"
#include "filter/memory.h"
#include "lua/object.h"
#include "lua/policy_test.h"

struct ep_test_result {
    struct ep_str file, name, error; /* error: why it did not pass; of the tests' arena */
    bool failed;                     /* an expectation was not met */
    bool broken;                     /* it could not be carried out: an error of Lua, no load, over the budget */
    uint64_t ns;
};

struct ep_test_case {
    struct ep_str name;
    int line, ref;
};

struct ep_test_coverage;

struct ep_test_lines {
    unsigned n, hit;
    char missing[512]; /* "12, 15-17"; cut with "..." */
};

struct ep_test_covered {
    struct ep_str policy, file;
    struct ep_test_lines lines;
};
static inline double ep_test_covered_share(const struct ep_test_covered *c)
{
    return c->lines.n ? (double)c->lines.hit / c->lines.n : 1;
}

struct ep_tests {
    struct ep_policy_set *set;
    struct ep_worker *worker;
    const char *directory;
    struct ep_policy_bundle *bundle; /* what the directory had when it was read; NULL: it is read as the tests run */
    struct ep_str pattern; /* --run; empty: all */
    struct ep_chunk_pool chunks;
    struct ep_arena arena; /* of all text here */
    struct ep_test_case *cases; /* of the file that runs */
    size_t n_cases, cap_cases;
    struct ep_test_result *results;
    size_t n_results, cap_results, n_bad;
    struct ep_str file;     /* that runs */
    uint64_t deadline_ns;   /* of all cases together; 0: none */
    struct ep_str expected; /* the expectation that was not met, as the error will say it; empty: none */
    uint8_t touched[EP_POLICIES_MAX]; /* by the case that runs: bits of the phases (enum ep_policy_phase) that the policy answered in */
    uint8_t tested[EP_POLICIES_MAX];  /* by cases that passed */
    struct ep_test_coverage *coverage; /* NULL: not asked for */
    struct ep_test_covered *covered;   /* one a policy */
    size_t n_covered;
};

static inline struct ep_tests *ep_tests_of(lua_State *L)
{
    return ep_lua_of(L)->test;
}

/* --- policy_test.c --- */
void ep_tests_add_case(struct ep_tests *t, struct ep_str name, int line, int ref);
struct ep_test_result *ep_tests_add_result(struct ep_tests *t, struct ep_str file, struct ep_str name);

/* --- test_stream.c: a stream made of a table --- */
struct ep_test_stream {
    struct ep_stream s;
    struct ep_chain chain;
    struct ep_listener_config listener;
    struct ep_route route;
    struct ep_route_config route_config;
    struct ep_leg leg; /* nobody is on it */
    struct ep_policy_reply reply;
    bool open;
    /* of a play; state NULL: there is none */
    struct ep_view view;
    struct ep_server_listener server;
    struct ep_filter_instance filter;
    void *state;
    struct ep_protocol how;
    const struct ep_protocol *real; /* `how` is made of it */
    bool cut; /* it was reset: its protocol has no word for what happened */
};

/* Pushes it as a userdata, so that an error lets it go too. */
struct ep_test_stream *ep_test_stream_new(lua_State *L, struct ep_worker *w);
void ep_test_stream_close(struct ep_test_stream *f);
/* Fills it from the table at `index`, whose fields are those of t.call. Raises. */
void ep_test_stream_read(lua_State *L, int index, struct ep_test_stream *f);
int ep_test_call(lua_State *L);
int ep_test_reply(lua_State *L);
int ep_test_find(lua_State *L);
/* Raises for fields that no call, reply or stream has. */
void ep_test_check_fields(lua_State *L, int table);
struct ep_str ep_test_text(lua_State *L, int table, const char *key, struct ep_arena *arena);
/* "headers" of a table: a map of values, or a list of pairs. Raises. */
void ep_test_read_headers(lua_State *L, int table, struct ep_headers *h);
/* status and headers of a response; the same and the call, of the table of a reply. */
void ep_test_read_head(lua_State *L, int table, struct ep_test_stream *f);
void ep_test_read_reply(lua_State *L, int table, struct ep_test_stream *f);
/* The policy of that name; NULL: nil was given. */
const struct ep_policy *ep_test_named(lua_State *L, const struct ep_tests *t, int index);
/* Leaves the table that a test gets of a decision. */
void ep_test_push_decision(lua_State *L, const struct ep_test_stream *f, const struct ep_policy *p,
                           const struct ep_policy_verdict *v, bool matched, const struct ep_headers *h);

/* --- test_play.c: the stream goes through the filter `policies`, all of whose steps are the proxy's --- */
/* The request. False: it was refused. The set must outlive the play; who hears is told by set->hearing. */
bool ep_test_play_request(struct ep_test_stream *f, struct ep_policy_set *set);
/* The head of the response, which f->s has; `end`: no body follows. EP_BUFFER: the body comes whole. */
enum ep_step ep_test_play_head(struct ep_test_stream *f, bool end);
/* A piece of the body, which is then what the client gets of it. False: it was refused; what the client is told last is in
 * f->s.last_words, when f->cut doesn't say that it is told nothing. */
bool ep_test_play_body(struct ep_test_stream *f, struct ep_body *b, bool end);
void ep_test_play_end(struct ep_test_stream *f); /* may be called twice */

/* --- test_events.c --- */
int ep_test_events(lua_State *L);

/* --- test_world.c --- */
/* The world as each case finds it. */
void ep_test_world_reset(struct ep_lua *l);
int ep_test_clock(lua_State *L);   /* clock(): seconds since 1970 */
int ep_test_set_clock(lua_State *L); /* set_clock(seconds) */
int ep_test_http(lua_State *L);    /* http(function(request) ... return {status = 200} end) */
int ep_test_advance(lua_State *L); /* advance(seconds, or text like "5m") */

/* --- test_coverage.c --- */
/* From here on the lines of the directory's policies are noted: before they are loaded. */
struct ep_test_coverage *ep_test_coverage_new(struct ep_lua *l);
void ep_test_coverage_free(struct ep_test_coverage *c, struct ep_lua *l);
/* Of one policy's file. In protected mode, since it compiles. Raises. */
void ep_test_coverage_of(lua_State *L, struct ep_test_coverage *c, const char *directory, struct ep_str file,
                         struct ep_test_lines *out);

/* --- test_report.c --- */
void ep_test_report_tap(FILE *f, const struct ep_tests *t);
void ep_test_report_junit(FILE *f, const struct ep_tests *t); /* which has no place for coverage */
void ep_test_report_coverage(FILE *f, const struct ep_test_covered *c); /* one line of text */

/* --- replay.c --- */
int ep_test_replay(struct ep_tests *t, const struct ep_policy_test_options *o, FILE *out);

#endif
