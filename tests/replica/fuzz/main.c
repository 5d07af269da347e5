/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz SEED SECONDS | fuzz SEED =NUMBER: cases for a time, or that one alone. */
#include "fuzz.h"

#include <sanitizer/common_interface_defs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t seed, number, state;

uint64_t any(void) /* splitmix64 */
{
	uint64_t z = (state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint64_t below(uint64_t limit)
{
	return any() % limit;
}

uint64_t edgy(void)
{
	static const uint64_t edges[] = { 0, 1u << 20, INT32_MAX, UINT32_MAX, INT64_MAX, 1ull << 63,
					  UINT64_MAX };

	switch (below(4)) {
	case 0:
		return any();
	case 1:
		return below(100);
	case 2:
		return (1ull << below(64)) + below(5) - 2;
	default:
		return edges[below(sizeof(edges) / sizeof(*edges))] + below(5) - 2;
	}
}

void noise(void *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		((uint8_t *)data)[i] = (uint8_t)any();
}

static void tell(void)
{
	fprintf(stderr, "the case: fuzz %llu =%llu\n", (unsigned long long)seed,
		(unsigned long long)number);
}

void require(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "does not hold: %s\n", what);
	tell();
	abort();
}

static void one_case(void)
{
	state = seed * 0x100000001b3u ^ number;
	if (number % 2)
		frames_case();
	else
		requests_case();
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	seed = strtoull(argv[1], NULL, 10);
	__sanitizer_set_death_callback(tell);
	frames_begin();
	requests_begin();
	if (*argv[2] == '=') {
		number = strtoull(argv[2] + 1, NULL, 10);
		one_case();
		return 0;
	}
	for (time_t end = time(NULL) + atoi(argv[2]); time(NULL) < end; number++)
		one_case();
	printf("%llu cases\n", (unsigned long long)number);
	return 0;
}
