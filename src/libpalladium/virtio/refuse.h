/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tests of what a peer has written: pd_refuse(x) where the frames of a decent peer never make x
 * true.
 *
 * What they cost is measured against a program without them (tests/bench/ring_unchecked), which is
 * made of these sources with PD_BENCH_UNCHECKED. It trusts its peer with all of its memory, so no
 * library is made so.
 */
#ifndef PD_VIRTIO_REFUSE_H
#define PD_VIRTIO_REFUSE_H

#include "base/compiler.h"

#ifdef PD_BENCH_UNCHECKED
#	if defined(PIC) || defined(__PIC__) && !defined(__PIE__)
#		error "a library checks what its peer writes: PD_BENCH_UNCHECKED is for a benchmark alone"
#	endif
#	define pd_refuse(x) ((void)sizeof(x), 0)
#else
#	define pd_refuse(x) pd_unlikely(x)
#endif

#endif /* PD_VIRTIO_REFUSE_H */
