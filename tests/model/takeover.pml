/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Taking over an epoll in which threads sleep in the kernel (src/libpalladium/sock/sleepers.[ch], wait/beacon.h), for spin.
 *
 *   Sleeper   notes the epoll, looks whether it is ours, sleeps in the kernel until the beacon or, a few times, until an event or its
 *             timeout; then leaves, and comes back. It may be interrupted by a handler that never returns to it.
 *   Adopter   makes the epoll ours and calls out who has noted it
 *
 * Checked: nobody stays asleep in the kernel, and the beacon is out at the end. Memory is sequentially consistent here, which the fences
 * of the code provide for the two pairs (note, ours) and (called, note).
 */
#ifndef SLEEPERS
#define SLEEPERS 2
#endif
#ifndef VISITS
#define VISITS 2
#endif

/* Deliberate faults. */
#define SLEEPER_DOES_NOT_LOOK   1 /* no look between the note and the sleep */
#define ADOPTER_DOES_NOT_VERIFY 2 /* who left while it was called stays called */
#define LAST_LEAVES_IT_LIT      3
#define FIRST_PUTS_IT_OUT       4
#ifndef BREAK
#define BREAK 0
#endif

bool ours = false, beacon = false, lock = false;
bool noted[SLEEPERS];
bool called[SLEEPERS];
byte out = 0; /* sleepers that came out for good */

inline leave(me)
{
	noted[me] = false;
	if
	:: called[me] ->
		atomic { !lock -> lock = true };
		called[me] = false;
		d_step {
			others = false;
			i = 0;
			do
			:: i < SLEEPERS -> others = (others || called[i]); i++
			:: else -> break
			od;
			i = 0
		};
		if
		:: (!others || BREAK == FIRST_PUTS_IT_OUT) && BREAK != LAST_LEAVES_IT_LIT -> beacon = false
		:: else
		fi;
		lock = false
	:: else
	fi
}

proctype Sleeper(byte me)
{
	byte visits = 0, i;
	bool others, gone = false;

	do
	:: noted[me] = true;
	   if
	   :: ours && BREAK != SLEEPER_DOES_NOT_LOOK -> gone = true
	   :: else ->
		if
		:: beacon
		:: visits < VISITS -> visits++
		:: visits < VISITS -> gone = true /* a handler that does not come back */
		fi
	   fi;
	   leave(me);
	   if
	   :: gone || ours -> out++; break
	   :: else
	   fi
	od
}

proctype Adopter()
{
	byte i = 0;
	bool any = false;

	ours = true;
	atomic { !lock -> lock = true };
	do
	:: i < SLEEPERS ->
		if
		:: noted[i] ->
			called[i] = true;
			if
			:: noted[i] || BREAK == ADOPTER_DOES_NOT_VERIFY -> any = true
			:: else -> called[i] = false
			fi
		:: else
		fi;
		i++
	:: else -> break
	od;
	if
	:: any -> beacon = true
	:: else
	fi;
	lock = false
}

/* When nobody can move: whoever has not come out will not. */
proctype Judge()
{
	byte i = 0;

	timeout ->
	d_step {
		assert(out == SLEEPERS && !beacon && !lock);
		do
		:: i < SLEEPERS -> assert(!noted[i] && !called[i]); i++
		:: else -> break
		od
	}
}

init
{
	byte s = 0;

	atomic {
		do
		:: s < SLEEPERS -> run Sleeper(s); s++
		:: else -> break
		od;
		run Adopter();
		run Judge()
	}
}
