/* SPDX-License-Identifier: Apache-2.0 */
/* The primary's side: `dispatch` gets requests whose length is true, as `hot_serve` does. */
#include "../../../haoperator/replica/hotpath.c"

#include "fuzz.h"

#include <sys/mman.h>

#define NODES 4

static HotPath hot;
static int nowhere;

void requests_begin(void)
{
	require(!gate_init(&hot.gate) && !stream_init(&hot.stream), "there are locks");
	for (int i = 0; i < STRIPES; i++)
		pthread_mutex_init(&hot.stripes[i].lock, NULL);
	for (uint64_t node = 1; node <= NODES; node++) {
		struct slot *slot = find_or_add(stripe_of(&hot, node), node);

		slot->fd = node == NODES ? -1 : memfd_create("file", 0);
		slot->noted_all = true;
	}
	nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
	hot.stream.sending = true; /* by somebody else, so it seems: nothing leaves */
}

static void stand(void)
{
	hot.stream.attached = below(2);
	hot.stream.epoch = 1;
	hot.tracking = below(2);
	for (uint64_t node = 1; node <= NODES; node++)
		find(stripe_of(&hot, node), node)->bound = below(3) ? 1 : below(2) * BOUND_NEVER;
	gate_set(&hot.gate, (enum gate)below(3));
}

static void give_back(void)
{
	require(hot.gate.in_flight == 0, "whoever enters the gate leaves it");
	gate_forget_fuse(&hot.gate, nowhere);
	require(hot.gate.parked == 0 && !hot.gate.first, "what was parked is gone");
	stream_release(&hot.stream, 0);
	require(!hot.stream.fsyncs && !hot.stream.ring_count, "nobody waits for the peer");
	hot.stream.out.length = 0;
	for (uint64_t node = 1; node <= NODES; node++) {
		struct stripe *stripe = stripe_of(&hot, node);
		struct slot *slot = find(stripe, node);

		require(!stripe->uses, "nobody uses a descriptor");
		require(!pthread_mutex_trylock(&stripe->lock), "no node is locked");
		pthread_mutex_unlock(&stripe->lock);
		bits_clear(&slot->changed);
		require(slot->fd < 0 || !ftruncate(slot->fd, 0), "the file is still ours");
	}
}

void requests_case(void)
{
	static const uint32_t opcodes[] = { FUSE_READ, FUSE_WRITE, FUSE_FSYNC, FUSE_INTERRUPT,
					    FUSE_GETXATTR };
	size_t body = below(8) ? below(2 * sizeof(struct fuse_write_in)) : below(REQUEST_ROOM);
	size_t size = sizeof(struct fuse_in_header) + body;
	struct fuse_in_header *head = malloc(size);

	noise(head, size < 1000 ? size : 1000);
	head->len = (uint32_t)size;
	head->opcode = below(16) ? opcodes[below(5)] : (uint32_t)any();
	head->nodeid = below(8) ? below(NODES + 2) : any();
	if (head->opcode == FUSE_WRITE && body >= sizeof(struct fuse_write_in)) {
		struct fuse_write_in *in = (void *)(head + 1);

		in->offset = edgy();
		in->size = below(2) ? (uint32_t)(body - sizeof(*in)) : (uint32_t)edgy();
	}
	if (head->opcode == FUSE_READ && body >= sizeof(struct fuse_read_in)) {
		struct fuse_read_in *in = (void *)(head + 1);

		in->offset = edgy();
		in->size = (uint32_t)edgy();
	}
	if (head->opcode == FUSE_GETXATTR && body >= sizeof(struct fuse_getxattr_in)) {
		struct fuse_getxattr_in *in = (void *)(head + 1);
		size_t name = body - sizeof(*in);

		in->size = (uint32_t)edgy();
		if (name && below(4)) {
			memset(in + 1, 'x', name);
			((char *)(in + 1))[name - 1] = below(4) ? 0 : 'x';
		}
	}
	stand();
	dispatch(&hot, nowhere, (int)below(3), head);
	free(head);
	give_back();
}
