/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The waiting protocol of src/libpalladium/vlib/lane.[ch], one side of one lane, for spin.
 *
 * The names are those of the code: pos is what ops->position gives, cursor, arm, drain, ring, tell,
 * sleep and wake are the functions there, step by step; what happens under the side's lock interleaves
 * with the peer and with sleepers that are just waking, neither of whom takes the lock.
 *
 *   Peer      publishes PUBLISH times, each time one or two frames; then, as a second step, looks
 *             whether it was asked to notify
 *   Level     sleepers that consume: a blocking receive, poll, level-triggered epoll
 *   Edge      sleepers that do not consume and want each position once: edge-triggered epoll, and
 *             whoever wakes for another lane and leaves the frames to others
 *   Passer    sleeps PASSES times, gives up by its timeout whenever it likes, takes nothing
 *   Drainer   consumes without ever sleeping: MSG_DONTWAIT, LOOKS times
 *   Control   takes the link down and up BOUNCES times
 *
 * With HOLD above 1, a sleeper who is alone and knows all there is asks for that many positions at once while traffic flows
 * (vlib/moderation.h), and then sleeps on a timer too. What flows is judged by time, so here anything that was consumed may mean
 * that it does; a period that ends short means that it does not.
 *
 * Checked: (1) nothing is lost: when nobody can move any more, every published frame has been consumed
 * and every Edge knows the last position; (2) nobody spins: there is no cycle without a publication, a
 * consumption or a change of the link (pan -l); (3) assertions.
 *
 * Two ways of notification: with EVENT_IDX the peer compares the armed position with what it has
 * published (virtio 1.2 section 2.7.10), else it takes a flag (the loop transport; a ring without the
 * feature). BREAK names a deliberate fault that the checks must find (tests/model/check.sh).
 */
#ifndef LEVELS
#define LEVELS 1
#endif
#ifndef EDGES
#define EDGES 2
#endif
#ifndef PASSERS
#define PASSERS 0
#endif
#ifndef PASSES
#define PASSES 2
#endif
#ifndef LOOKS
#define LOOKS 0
#endif
#ifndef PUBLISH
#define PUBLISH 2
#endif
#ifndef BOUNCES
#define BOUNCES 0
#endif
#ifndef HOLD
#define HOLD 1
#endif
#ifndef EVENT_IDX
#define EVENT_IDX 1
#endif
#define WAITERS (LEVELS + EDGES + PASSERS)

/* Deliberate faults. */
#define SLEEP_DOES_NOT_TELL 1 /* a new sleeper arms over an older one and does not tell it */
#define WAKE_DOES_NOT_RING  2 /* who drains keeps the notification for itself */
#define WAKE_DOES_NOT_ARM   3 /* ... or does not arm again for those that stay */
#define LINK_DOES_NOT_RING  4 /* a change of the link wakes nobody */
#define ARM_DOES_NOT_LOOK   5 /* no second look after arming */
#define RING_TELLS_AGAIN    6 /* each is told of a position over and over */
#define SEEN_READ_LATE      7 /* sleep from a position read after the decision */
#define HELD_FOR_EVER       8 /* a sleep for several positions has no bound */
#define HELD_AGAIN          9 /* a period that ended short changes nothing */
#ifndef BREAK
#define BREAK 0
#endif

/* Shared with the peer. */
byte pos = 0;	   /* frames published */
bool armed = false;
byte event = 0;	   /* with EVENT_IDX: notify when the position leaves this */
bool event_fd = false;
byte link = 0;	   /* generation: a new link has a new event_fd */
/* Under the lock. */
bool lock = false;
bool up = true;
byte cursor = 0;
bool linked[WAITERS];
byte seen[WAITERS];
bool wake_fd[WAITERS];
byte known[WAITERS]; /* Edge: the position it has reported */
bool held[WAITERS]; /* the sleep is bounded */
bool flowing = false;
bool published_all = false;

inline take()
{
	atomic { !lock -> lock = true }
}

inline release()
{
	lock = false
}

/* The position as the code sees it: a side that is down stands at its cursor. */
inline read_position(v)
{
	if
	:: up -> v = pos
	:: else -> v = cursor
	fi
}

/* ops->arm: `moved` when the position has left `v` already. */
inline arm(v, hold)
{
	d_step { event = v + hold - 1; armed = true };
	if
	:: BREAK == ARM_DOES_NOT_LOOK -> moved = false
	:: else -> moved = (pos != v)
	fi
}

/* pd_lane_ring. */
inline ring(all)
{
	read_position(now);
	d_step {
		i = 0;
		do
		:: i < WAITERS ->
			if
			:: linked[i] && (all || seen[i] != now || BREAK == RING_TELLS_AGAIN) ->
				seen[i] = now;
				wake_fd[i] = true
			:: else
			fi;
			i++
		:: else -> break
		od;
		i = 0
	}
}

/* pd_lane_tell: `at` is the position it armed. */
inline tell()
{
	do
	:: at = pos;
	   if
	   :: BREAK == WAKE_DOES_NOT_RING
	   :: else -> ring(false)
	   fi;
	   if
	   :: BREAK == WAKE_DOES_NOT_ARM -> break
	   :: else -> skip
	   fi;
	   arm(at, 1);
	   if
	   :: moved
	   :: else -> break
	   fi
	od
}

inline anybody(yes)
{
	d_step {
		yes = false;
		i = 0;
		do
		:: i < WAITERS -> yes = (yes || linked[i]); i++
		:: else -> break
		od;
		i = 0
	}
}

/* pd_lane_sleep: `asleep` tells whether the caller may sleep. */
inline lane_sleep(me)
{
	asleep = true;
	if
	:: up ->
		anybody(others);
		if
		:: others && BREAK != SLEEP_DOES_NOT_TELL ->
			tell();
			asleep = (at == seen[me])
		:: else ->
			held[me] = (HOLD > 1 && flowing && seen[me] == cursor);
			if
			:: held[me] -> arm(seen[me], HOLD)
			:: else -> arm(seen[me], 1)
			fi;
			asleep = !moved;
			held[me] = (held[me] && asleep)
		fi
	:: else
	fi;
	if
	:: asleep -> linked[me] = true; generation = link
	:: else
	fi
}

/* pd_lane_wake. */
inline lane_wake(me, notified)
{
	linked[me] = false;
	if
	:: held[me] && up && !notified && pos < seen[me] + HOLD && BREAK != HELD_AGAIN -> flowing = false
	:: else
	fi;
	held[me] = false;
	if
	:: up ->
		if
		:: notified -> event_fd = false
		:: else
		fi;
		anybody(others);
		if
		:: !others -> armed = false
		:: others && (notified || BREAK == RING_TELLS_AGAIN) -> tell()
		:: else
		fi
	:: else
	fi
}

/* What one ppoll is: sleep until a descriptor is readable; then unlink. */
inline sleep_and_wake(me)
{
	lane_sleep(me);
	if
	:: asleep ->
		release();
end_asleep:	atomic {
			wake_fd[me] || (event_fd && generation == link) || (held[me] && BREAK != HELD_FOR_EVER) ->
			told = (event_fd && generation == link)
		};
		wake_fd[me] = false; /* the sleeper's own eventfd is read before the lock is taken */
		take();
		lane_wake(me, told);
		told = false
	:: else
	fi
}

#define SLEEPER_LOCALS                                                                             \
	byte now, at, i, generation;                                                               \
	bool moved, others, asleep, told

proctype Level(byte me)
{
	SLEEPER_LOCALS;
	byte limit;

	do
	:: take();
	   read_position(limit);
	   if
	   :: limit != cursor -> /* one at a time, or all that is there */
		if
		:: cursor = cursor + 1
		:: cursor = limit
		fi;
		if
		:: HOLD > 1 -> flowing = true
		:: true
		fi;
progress_consumed:	release()
	   :: else ->
		if
		:: BREAK == SEEN_READ_LATE -> read_position(seen[me])
		:: else -> seen[me] = cursor
		fi;
		sleep_and_wake(me);
		release()
	   fi;
	   d_step { now = 0; at = 0; limit = 0; generation = 0; moved = 0; others = 0; asleep = 0 }
	od
}

proctype Edge(byte me)
{
	SLEEPER_LOCALS;

	do
	:: take();
	   read_position(now);
	   if
	   :: up && now != known[me] -> known[me] = now
	   :: else ->
		seen[me] = known[me];
		sleep_and_wake(me)
	   fi;
	   release();
	   d_step { now = 0; at = 0; generation = 0; moved = 0; others = 0; asleep = 0 }
	od
}

proctype Passer(byte me)
{
	SLEEPER_LOCALS;
	byte passes = 0;

	do
	:: passes < PASSES ->
		passes++;
		take();
		read_position(seen[me]);
		lane_sleep(me);
		if
		:: asleep ->
			release();
			atomic {
				if
				:: wake_fd[me] || (event_fd && generation == link)
				:: true /* the timeout */
				fi;
				told = (event_fd && generation == link)
			};
			wake_fd[me] = false;
			take();
			lane_wake(me, told)
		:: else
		fi;
		release();
		d_step { now = 0; at = 0; generation = 0; moved = 0; others = 0; asleep = 0; told = 0 }
	:: else -> break
	od
}

proctype Drainer()
{
	byte looks = 0, limit;

	do
	:: looks < LOOKS ->
		looks++;
		take();
		read_position(limit);
		cursor = limit;
		release()
	:: else -> break
	od
}

proctype Peer()
{
	byte n = 0, old;
	byte more;

	do
	:: n < PUBLISH ->
		n++;
		if
		:: more = 1
		:: more = 2
		fi;
		old = pos;
progress_published:	pos = old + more; /* one index store; the fence; then the look */
		atomic {
			if
			:: armed && (EVENT_IDX == 0 || (event >= old && event < old + more)) ->
				event_fd = true;
				armed = (EVENT_IDX != 0)
			:: else
			fi
		}
	:: else -> break
	od;
	published_all = true
}

proctype Control()
{
	byte now, i, n = 0;

	do
	:: n < BOUNCES ->
		n++;
		take();
		/* pd_lane_set_link: down, no event_fd */
progress_down:	d_step { up = false; link++; event_fd = false; armed = false };
		if
		:: BREAK != LINK_DOES_NOT_RING -> ring(true)
		:: else
		fi;
		release();
		take();
		up = true;
		link++;
		if
		:: BREAK != LINK_DOES_NOT_RING -> ring(true)
		:: else
		fi;
		release()
	:: else -> break
	od
}

/* When nobody can move: is everything where it belongs? */
proctype Judge()
{
	byte i = 0;

	timeout ->
	d_step {
		assert(published_all && up && !lock);
		assert(LEVELS == 0 || cursor == pos);
		do
		:: i < EDGES -> assert(known[LEVELS + i] == pos); i++
		:: else -> break
		od
	}
}

init
{
	byte w = 0;

	atomic {
		do
		:: w < LEVELS -> run Level(w); w++
		:: w >= LEVELS && w < LEVELS + EDGES -> run Edge(w); w++
		:: w >= LEVELS + EDGES && w < WAITERS -> run Passer(w); w++
		:: w >= WAITERS -> break
		od;
		run Peer();
		if
		:: LOOKS > 0 -> run Drainer()
		:: else
		fi;
		if
		:: BOUNCES > 0 -> run Control()
		:: else
		fi;
		run Judge()
	}
}
