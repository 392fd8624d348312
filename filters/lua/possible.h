/* Refusing rules on what can never be: a policy that speaks of a field that its protocol, its listener or its phase has
 * not would silently do nothing, or deny everything. Only what can never be is refused; what is merely unlikely shows in
 * coverage (`ephor policies`). */
#ifndef EP_LUA_POSSIBLE_H
#define EP_LUA_POSSIBLE_H

#include "lua/policy.h"

/* False when a call of that protocol never has the field; protocols that aren't known here may have all. */
bool ep_policy_field_possible(struct ep_str protocol, enum ep_policy_field f);
/* What of `match` and `needs` contradicts itself; false with a text that has no place in front. */
bool ep_policy_possible(const struct ep_policy *p, char *text, size_t room);

/* What the policy surely means to judge and doesn't: true with a text for a warning. An `event` without a `reply` sees nothing
 * of an answer that isn't streamed, which nearly every call may get. */
bool ep_policy_half_blind(const struct ep_policy *p, char *text, size_t room);
typedef void ep_policy_warn(void *user, const char *text);
/* The same of all that are not off, with file and line. */
void ep_policy_set_warn(const struct ep_policy_set *set, ep_policy_warn *warn, void *user);

/* A listener that the policies stand on. */
struct ep_policy_place {
    const struct ep_listener_config *listener;
    enum ep_direction direction;
    bool opaque; /* bytes of no known protocol alone */
};
/* Whether every policy may meet what it is about on one of the listeners. False with err, which names file and line. */
bool ep_policy_set_possible(const struct ep_policy_set *set, const struct ep_policy_place *v, size_t n,
                            struct ep_error *err);
/* The same for a view whose chains are made. */
bool ep_policy_view_possible(const struct ep_view *view, struct ep_error *err);
/* For `ephor check`: loads a directory as a worker does, and asks the same; `warn` is told of warnings. */
bool ep_policy_directory_possible(const struct ep_policies_config *config, const struct ep_policy_place *v, size_t n,
                                  ep_policy_warn *warn, void *user, struct ep_error *err);

/* slips.c: what the function of the policy's key `key` ("call" or "reply") reads of its argument, that no object has.
 * `text` is the whole file, `line` where the function begins. True: nothing, or nothing that is sure. Else the line and
 * the name, and the argument's own name. */
struct ep_policy_slip {
    int line;
    struct ep_str object, field;
};
typedef bool ep_policy_known(void *user, struct ep_str field);
bool ep_policy_slips(struct ep_str text, int line, const char *key, ep_policy_known *known, void *user,
                     struct ep_policy_slip *out);

#endif
