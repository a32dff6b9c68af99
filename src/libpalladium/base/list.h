/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Intrusive doubly linked list with a head that is a node. A node that stands in no list points to
 * itself, so removing it twice is harmless.
 */
#ifndef PD_BASE_LIST_H
#define PD_BASE_LIST_H

#include <stdbool.h>
#include "base/compiler.h"

struct pd_list {
	struct pd_list *next;
	struct pd_list *prev;
};

/* Static initialiser of an empty list named `name`. */
#define PD_LIST_INIT(name)       \
	{                        \
		&(name), &(name) \
	}

static inline void pd_list_init(struct pd_list *head)
{
	head->next = head;
	head->prev = head;
}

static inline bool pd_list_empty(const struct pd_list *head)
{
	return head->next == head;
}

/* Put `node` at the end; it must stand in no list. */
static inline void pd_list_add_tail(struct pd_list *head, struct pd_list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

/* Put `node` at the front; it must stand in no list. */
static inline void pd_list_add(struct pd_list *head, struct pd_list *node)
{
	pd_list_add_tail(head->next, node);
}

/* Take `node` out of whatever list it stands in. */
static inline void pd_list_del(struct pd_list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	pd_list_init(node);
}

#define pd_list_entry(ptr, type, member) pd_container_of(ptr, type, member)

/* Walk `head`; `pos` is a pointer to the containing type. The body must not remove `pos`. */
#define pd_list_for_each(pos, head, member)                                   \
	for ((pos) = pd_list_entry((head)->next, __typeof__(*(pos)), member); \
	     &(pos)->member != (head);                                        \
	     (pos) = pd_list_entry((pos)->member.next, __typeof__(*(pos)), member))

/* The same; the body may remove `pos`. `tmp` is a second pointer of the same type. */
#define pd_list_for_each_safe(pos, tmp, head, member)                              \
	for ((pos) = pd_list_entry((head)->next, __typeof__(*(pos)), member),      \
	    (tmp) = pd_list_entry((pos)->member.next, __typeof__(*(pos)), member); \
	     &(pos)->member != (head);                                             \
	     (pos) = (tmp), (tmp) = pd_list_entry((tmp)->member.next, __typeof__(*(tmp)), member))

#endif /* PD_BASE_LIST_H */
