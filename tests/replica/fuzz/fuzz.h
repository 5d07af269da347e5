/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feeds the C parsers with requests and frames that no kernel and no peer would send.
 *
 * Each case lies in memory of exactly its size, so that the address sanitizer sees every
 * byte that is read past it. A case is made from (seed, number) alone: a finding is seen
 * again with `fuzz SEED NUMBER`.
 */
#ifndef HAOPERATOR_FUZZ_H
#define HAOPERATOR_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Pseudo-random numbers of the present case. */
uint64_t any(void);
uint64_t below(uint64_t limit);
/* Mostly near a power of two or a limit of some type. */
uint64_t edgy(void);
/* Fill with noise. */
void noise(void *data, size_t size);
/* What must hold does not: the case is a finding. */
void require(int holds, const char *what);

/* The standby's frames (applier.c) and the kernel's requests (hotpath.c). */
void frames_begin(void);
void frames_case(void);
void requests_begin(void);
void requests_case(void);

#endif
