/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of zones and blocks of a file: one bit each, as long as the highest needs. */
#include "hotpath.h"

#include <stdlib.h>
#include <string.h>

#define MOST_BYTES (256u * 1024 * 1024) /* blocks of a file of 128 TiB */

/* False without memory, or for a number that no file has. */
bool bits_set(struct bits *b, size_t number)
{
	size_t at = number / 8;

	if (at >= b->size) {
		size_t size = b->size ? b->size : 16;
		unsigned char *bytes;

		if (at >= MOST_BYTES)
			return false;
		while (size <= at)
			size *= 2;
		bytes = realloc(b->bytes, size);
		if (!bytes)
			return false;
		memset(bytes + b->size, 0, size - b->size);
		b->bytes = bytes;
		b->size = size;
	}
	b->bytes[at] |= (unsigned char)(1u << number % 8);
	return true;
}

bool bits_have(const struct bits *b, size_t number)
{
	return number / 8 < b->size && b->bytes[number / 8] >> number % 8 & 1;
}

void bits_clear(struct bits *b)
{
	free(b->bytes);
	b->bytes = NULL;
	b->size = 0;
}
