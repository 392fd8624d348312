/* The matcher of Lua's patterns: where one match that begins at one place ends.
 *
 * Lua's own matcher is a recursion, and holds whoever called it for as long as it backtracks. Here each level of that
 * recursion is a frame that says what to do when all behind it failed, so that the whole state is one struct that can be
 * left and gone on with at any step: a match that uses its slice up pauses like the Lua code around it (host.h). Results,
 * errors, and the depth at which a pattern is too complex are those of Lua (Reference Manual section 6.4.1). */
#ifndef EP_LUA_MATCH_H
#define EP_LUA_MATCH_H

#include "lua/host.h"

#define EP_MATCH_CAPTURES_MAX 32
#define EP_MATCH_DEPTH_MAX    200

enum { EP_CAPTURE_OPEN = -1, EP_CAPTURE_POSITION = -2 };

enum ep_match { EP_MATCH_FAILS, EP_MATCH_FITS, EP_MATCH_PAUSES };

enum ep_matcher_mode {
    EP_MATCHER_FORWARD, /* s against p */
    EP_MATCHER_SCAN,    /* as many as there are, for the frame on top */
    EP_MATCHER_BALANCE, /* inside of %b */
    EP_MATCHER_BACK,    /* that failed: the frames know what else there is */
    EP_MATCHER_FITS,
    EP_MATCHER_FAILS,
};

/* A choice that was made, or something to undo. */
enum ep_matcher_choice { EP_FRAME_GREEDY, EP_FRAME_LAZY, EP_FRAME_OPTIONAL, EP_FRAME_OPENED, EP_FRAME_CLOSED };
struct ep_matcher_frame {
    enum ep_matcher_choice kind;
    int capture;           /* CLOSED */
    const char *s;         /* where what follows was tried last */
    const char *least;     /* GREEDY: no further back than here */
    const char *p, *after; /* the item, and its suffix */
};

struct ep_matcher {
    lua_State *L;
    const char *begin, *end; /* the subject */
    const char *pattern, *pattern_end;
    const char *first, *first_end; /* an item that every match begins with; NULL: there is none */
    const char *s, *p; /* where it stands; when it fits, s is the end of the match */
    unsigned steps, steps_max; /* not charged yet */
    enum ep_matcher_mode mode;
    bool whole;        /* it may not pause */
    size_t level;      /* BALANCE: how many are open */
    int n_captures, n_frames;
    struct {
        const char *p;
        ptrdiff_t n; /* or EP_CAPTURE_… */
    } capture[EP_MATCH_CAPTURES_MAX];
    struct ep_matcher_frame frames[EP_MATCH_DEPTH_MAX + 1]; /* last: those behind n_frames are never read */
};

/* Both strings must outlive the match; the pattern is without its ^. `whole`: it may not pause. Raises for a first item that
 * is malformed. */
void ep_matcher_init(struct ep_matcher *m, lua_State *L, struct ep_str subject, struct ep_str pattern, bool whole);
/* A match that begins at s: next is ep_matcher_run. */
void ep_matcher_start(struct ep_matcher *m, const char *s);
/* Goes on from where it stands. Charges the budget, and raises for that and for a pattern that is malformed. PAUSES: the
 * caller must leave by ep_lua_pause, and run it again when it is back; it may be moved meanwhile. */
enum ep_match ep_matcher_run(struct ep_matcher *m);
/* n more steps, charged by the next run. */
void ep_matcher_spend(struct ep_matcher *m, size_t n);
/* Charges what is left. */
void ep_matcher_settle(struct ep_matcher *m);
/* What of it is in use, for a copy. */
static inline size_t ep_matcher_size(const struct ep_matcher *m)
{
    return offsetof(struct ep_matcher, frames) + (size_t)m->n_frames * sizeof *m->frames;
}

#endif
