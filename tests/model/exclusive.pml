/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Turns of exclusive members (src/libpalladium/wait/epoll.c, EPOLLEXCLUSIVE), for spin.
 *
 * One object; each waiter has an epoll of its own with it. That everyone who sleeps looks when something came is the protocol of
 * waiting.pml; here a ring that a waiter has not seen yet ends its sleep.
 *
 *   Source   what comes: the edge count moves and the object is ready, in any order, then it rings; PUBLISH times, one or two at once
 *   Waiter   looks (pd_epoll_ask, pd_turns_take); what it takes a turn for it returns with, and then it reads nothing, one or all,
 *            and calls again, CALLS times in all. The first LEAVERS may end their waits whenever they like: by time, a signal,
 *            cancellation, or because the member or the epoll goes.
 *
 * With QUIET the source begins when all are asleep, nobody reads and nobody leaves. Then there are as many returns as came, or as there
 * are waiters: no fewer, and no more. Otherwise: when nobody can move and somebody waits, then nothing is ready that
 * came since the last return.
 *
 * BEFORE: what came and was read while no epoll looked. RENEWED: the counts began anew since turns were last given. Counts are bytes:
 * they wrap as the code's do. BREAK names a deliberate fault that the checks must find (tests/model/check.sh).
 */
#ifndef WAITERS
#define WAITERS 3
#endif
#ifndef LEAVERS
#define LEAVERS 0
#endif
#ifndef CALLS
#define CALLS 1
#endif
#ifndef PUBLISH
#define PUBLISH 1
#endif
#ifndef QUIET
#define QUIET 0
#endif
#ifndef BEFORE
#define BEFORE 0
#endif
#ifndef RENEWED
#define RENEWED 0
#endif

/* Deliberate faults. */
#define CHOSEN_BEFORE_IT_LOOKS 1 /* a turn is taken by who may still leave without the event */
#define NO_TURNS	       2 /* everyone is told */
#define NOT_ATOMIC	       3 /* two take the same turn */
#define ONE_TURN_A_LOOK	       4 /* whatever came, one is told */
#define COUNTS_WHAT_WAS_READ   5 /* what came before the waiter found nothing gives turns */
#define NOT_READY_TAKES	       6 /* who finds nothing takes the turns of what it counted */
#define ONLY_FORWARD	       7 /* a count that fell gives no turn */
#define OLD_LOOKS_COUNT	       8 /* a look that others have overtaken gives turns */
#ifndef BREAK
#define BREAK 0
#endif

byte edge = BEFORE;
byte ready = 0;
byte rings = 0;
byte turns_edge = 100 * RENEWED, turns_left = 0, turns_moves = 0; /* under the object's lock */
byte asleep = 0;      /* waiters */
byte returns = 0;     /* with the event */
byte told = BEFORE;   /* the edge at the last of them, when it was the newest */
byte came = 0;
bool published_all = false;

/*
 * pd_turns_take: `turn` tells whether one was left, `old` that others have given turns since the look began, so what it saw may be
 * older than what they saw. Under the object's lock.
 */
inline turns_take()
{
	d_step {
		old = (saw != turns_edge && moves != turns_moves && BREAK != OLD_LOOKS_COUNT);
		if
		:: old
		:: !old && saw != turns_edge && !(BREAK == ONLY_FORWARD && saw < turns_edge) ->
			more = saw - turns_edge + turns_left;
			since = saw - quiet;
			turns_left = (more < since || BREAK == COUNTS_WHAT_WAS_READ -> more : since);
			if
			:: turns_left == 0 || BREAK == ONE_TURN_A_LOOK -> turns_left = 1
			:: else
			fi;
			turns_edge = saw;
			turns_moves++;
			more = 0;
			since = 0
		:: else
		fi;
		turn = (turns_left > 0 && !old)
	};
	if
	:: turn -> turns_left--
	:: else
	fi
}

inline take_locked()
{
	if
	:: BREAK == NOT_ATOMIC -> turns_take()
	:: else -> atomic { turns_take() }
	fi
}

/* What the object says. Its answer and its count need not be of one moment. */
inline look()
{
	if
	:: saw = edge; found = (ready > 0)
	:: found = (ready > 0); saw = edge
	fi
}

/* The program reads what it was told of, some of it, or nothing. */
inline read_some()
{
	if
	:: QUIET
	:: !QUIET -> d_step { if :: ready > 0 -> ready-- :: else fi }
	:: !QUIET -> ready = 0
	:: !QUIET
	fi
}

proctype Waiter(byte me)
{
	byte calls = 0, saw, quiet = BEFORE, seen, moves, more, since;
	bool turn, old, found, waited = false, first, gone = false;

	do
	:: calls < CALLS && !gone ->
		d_step { calls++; first = true };
		do
		:: seen = rings; /* noted before the look */
again:		   moves = turns_moves;
		   look();
		   if
		   :: found ->
			take_locked();
			if
			:: old -> d_step { old = false; saw = 0; found = false }; goto again
			:: else
			fi;
			if
			:: turn || BREAK == NO_TURNS || first || !waited -> break
			:: else
			fi
		   :: else ->
			d_step { quiet = saw; waited = true };
			if
			:: BREAK == NOT_READY_TAKES -> d_step { turns_edge = saw; turns_left = 0 }
			:: else
			fi
		   fi;
		   atomic {
			d_step { first = false; saw = 0; moves = 0; found = false; turn = false };
			asleep++;
			if
			:: gone = false
			:: me < LEAVERS && !QUIET -> gone = true
			fi
		   };
end_asleep:	   atomic { rings != seen || gone -> asleep-- };
		   if
		   :: gone && BREAK == CHOSEN_BEFORE_IT_LOOKS -> saw = edge; moves = turns_moves; take_locked(); break
		   :: gone && BREAK != CHOSEN_BEFORE_IT_LOOKS -> break
		   :: else
		   fi
		od;
		if
		:: gone
		:: else ->
			d_step {
				returns = returns + QUIET;
				if
				:: saw == edge -> told = edge
				:: else
				fi
			};
			read_some()
		fi;
		d_step { saw = 0; seen = 0; moves = 0; turn = false; found = false; first = false }
	:: else -> break
	od
}

proctype Source()
{
	byte n = 0, more;

	(!QUIET || asleep == WAITERS);
	do
	:: n < PUBLISH ->
		n++;
		if
		:: more = 1
		:: more = 2
		fi;
		came = came + more * QUIET;
		if
		:: edge = edge + more; ready = ready + more
		:: ready = ready + more; edge = edge + more
		fi;
progress_published:
		rings++
	:: else -> break
	od;
	published_all = true
}

/* When nobody can move: is everything where it belongs? */
proctype Judge()
{
	timeout ->
	d_step {
		assert(published_all);
		assert(asleep == 0 || ready == 0 || told == edge);
		assert(!QUIET || returns == (came < WAITERS -> came : WAITERS))
	}
}

init
{
	byte w = 0;

	atomic {
		do
		:: w < WAITERS -> run Waiter(w); w++
		:: else -> break
		od;
		run Source();
		run Judge()
	}
}
