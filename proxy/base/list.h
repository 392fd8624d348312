/* An intrusive, doubly linked, circular list. The node sits in the object; a list allocates nothing. */
#ifndef EP_BASE_LIST_H
#define EP_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct ep_list {
    struct ep_list *next, *prev;
};

#define EP_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

static inline void ep_list_init(struct ep_list *l)
{
    l->next = l->prev = l;
}

static inline bool ep_list_empty(const struct ep_list *l)
{
    return l->next == l;
}

/* True for a node that was initialised and is in a list. */
static inline bool ep_list_linked(const struct ep_list *node)
{
    return node->next && node->next != node;
}

static inline void ep_list_push(struct ep_list *l, struct ep_list *node) /* at the end */
{
    node->prev = l->prev;
    node->next = l;
    l->prev->next = node;
    l->prev = node;
}

static inline void ep_list_push_front(struct ep_list *l, struct ep_list *node)
{
    ep_list_push(l->next, node);
}

/* Takes a node out; it is then initialised and unlinked. Harmless on an initialised, unlinked node. */
static inline void ep_list_remove(struct ep_list *node)
{
    node->next->prev = node->prev;
    node->prev->next = node->next;
    ep_list_init(node);
}

static inline struct ep_list *ep_list_pop(struct ep_list *l) /* the first, or NULL */
{
    struct ep_list *n = l->next;

    if (n == l)
        return NULL;
    ep_list_remove(n);
    return n;
}

/* Moves all nodes of `from` to the end of `to`. */
static inline void ep_list_splice(struct ep_list *to, struct ep_list *from)
{
    if (ep_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    ep_list_init(from);
}

/* Safe against removal of the node at hand. */
#define EP_LIST_FOREACH(node, list)                                                                  \
    for (struct ep_list *node = (list)->next, *node##_next = node->next; node != (list);             \
         node = node##_next, node##_next = node->next)

#endif
