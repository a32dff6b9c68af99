/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Items of an epoll that rest until they are marked (src/libpalladium/wait/epoll.c), for spin.
 *
 * One epoll, ITEMS items, one object each. Names as in the code: ep->marked is a stack of items, here a set with an order that does
 * not matter; item->marked is the flag that is set by who pushes and cleared by who collects.
 *
 *   Source   changes its object CHANGES times: under the object's lock, then marks: sets the flag, pushes when it was clear, and
 *            rings the bell of the epoll (pd_pollable_ring)
 *   Waiter   epoll_wait: notes the bell's count, collects, asks each item that does not rest, lets those rest that have nothing; with
 *            nothing found sleeps unless the bell has rung since. What it finds it takes.
 *
 * Two waiters harvest the same epoll by turns, under its lock. Checked: when nobody can move any more, no object has news that nobody was
 * told of. BREAK names a deliberate fault that the check must find (tests/model/check.sh).
 */
#ifndef ITEMS
#define ITEMS 2
#endif
#ifndef CHANGES
#define CHANGES 2
#endif
#ifndef WAITERS
#define WAITERS 2
#endif

/* Deliberate faults. */
#define CLEAR_AFTER_ASKING 1 /* the flag is cleared when the item has been asked */
#define MARK_BEFORE_CHANGE 2
#define BELL_READ_LATE     3 /* the bell's count is noted after the asking */
#ifndef BREAK
#define BREAK 0
#endif

bool ep_lock = false;
bool object_lock[ITEMS];
byte news[ITEMS];     /* of the object, under its lock */
bool flag[ITEMS];     /* item->marked */
bool pushed[ITEMS];   /* in ep->marked */
bool rests[ITEMS];    /* under ep_lock */
byte bell = 0;        /* its count */
byte done = 0;        /* sources that have ended */

inline take(l)
{
	atomic { !l -> l = true }
}

/* pd_epoll_item_mark: the exchange, and the push when the flag was clear. */
inline mark(i)
{
	atomic { was = flag[i]; flag[i] = true };
	if
	:: was
	:: else -> pushed[i] = true
	fi
}

inline change(i)
{
	take(object_lock[i]);
	news[i]++;
	object_lock[i] = false
}

proctype Source(byte i)
{
	byte n = 0;
	bool was;

	do
	:: n < CHANGES ->
		if
		:: BREAK == MARK_BEFORE_CHANGE -> mark(i); bell++; change(i)
		:: else -> change(i); mark(i); bell++
		fi;
progress_change:
		n++
	:: else -> break
	od;
	done++
}

/* pd_epoll_collect: takes the whole stack, then clears each flag and moves the item. */
inline collect()
{
	d_step {
		i = 0;
		do
		:: i < ITEMS -> mine[i] = pushed[i]; pushed[i] = false; i++
		:: else -> break
		od;
		i = 0
	};
	do
	:: i < ITEMS ->
		if
		:: mine[i] ->
			if
			:: BREAK != CLEAR_AFTER_ASKING -> flag[i] = false
			:: else
			fi;
			rests[i] = false
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0
}

/* pd_epoll_ask, which takes what it finds, as a program that reads does. */
inline ask()
{
	do
	:: i < ITEMS ->
		if
		:: !rests[i] ->
			take(object_lock[i]);
			if
			:: news[i] > 0 -> news[i] = 0; found = true
			:: else -> rests[i] = true
			fi;
			object_lock[i] = false;
			if
			:: BREAK == CLEAR_AFTER_ASKING && mine[i] -> flag[i] = false
			:: else
			fi
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0
}

proctype Waiter()
{
	bool mine[ITEMS], found;
	byte i = 0, seen;

	do
	:: found = false;
	   if
	   :: BREAK != BELL_READ_LATE -> seen = bell
	   :: else
	   fi;
	   take(ep_lock);
	   collect();
	   ask();
	   ep_lock = false;
	   if
	   :: BREAK == BELL_READ_LATE -> seen = bell
	   :: else
	   fi;
	   if
	   :: found ->
progress_found:
		skip
	   :: else ->
end_asleep:
		bell != seen;
progress_rung:
		skip
	   fi
	od
}

/* When all have come to rest, nobody has missed anything. */
proctype Check()
{
	byte i = 0;

	timeout ->
	do
	:: i < ITEMS -> assert(done < ITEMS || news[i] == 0); i++
	:: else -> break
	od
}

init {
	byte i = 0;

	atomic {
		do
		:: i < ITEMS -> run Source(i); i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < WAITERS -> run Waiter(); i++
		:: else -> break
		od;
		run Check()
	}
}
