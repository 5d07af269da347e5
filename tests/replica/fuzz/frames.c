/* SPDX-License-Identifier: Apache-2.0 */
/* The standby's side: `apply` gets whole frames of every length, as `next_frame` finds them. */
#include "../../../haoperator/replica/applier.c"

#include "fuzz.h"

#include <sys/mman.h>

#define NODES 4

static Applier applier;

void frames_begin(void)
{
	applier.last_job = &applier.jobs;
	pthread_mutex_init(&applier.jobs_lock, NULL);
	pthread_cond_init(&applier.jobs_changed, NULL);
	for (uint64_t node = 1; node <= NODES; node++) {
		struct bound **at = place_of(&applier, node);

		*at = calloc(1, sizeof(**at));
		(*at)->node = node;
		(*at)->fd = node == NODES ? -1 : memfd_create("file", 0);
	}
}

static void give_back(void)
{
	settle(&applier);
	while (applier.jobs) {
		struct fsync_job *job = applier.jobs;

		applier.jobs = job->next;
		close(job->fd);
		free(job);
	}
	applier.last_job = &applier.jobs;
	for (uint64_t node = 1; node < NODES; node++)
		require(!ftruncate((*place_of(&applier, node))->fd, 0), "the file is still ours");
}

void frames_case(void)
{
	static const uint16_t types[] = { FRAME_PING, FRAME_ACK,      FRAME_SYNCED,
					  FRAME_WRITE, FRAME_SYNCDATA, FRAME_FSYNC };
	size_t size = sizeof(struct frame) +
		      (below(8) ? below(2 * sizeof(struct write_frame)) : below(70000));
	struct frame *f = malloc(size);
	bool mine;

	noise(f, size);
	f->length = (uint32_t)size;
	f->type = below(16) ? types[below(6)] : (uint16_t)any();
	f->node = below(8) ? below(NODES + 2) : any();
	f->seq = below(8) ? applier.received + 1 : edgy();
	if (size >= sizeof(struct write_frame)) {
		struct write_frame *w = (void *)f;

		w->offset = edgy();
		w->mtime_ns = (int64_t)edgy();
		w->mode = below(2) ? 0 : (uint32_t)edgy();
	}
	/* In a mixture an FSYNC of what is not there is answered: nobody listens here. */
	applier.tolerant = f->type != FRAME_FSYNC && below(2);
	uint64_t before = applier.received;
	int error = apply(&applier, f, &mine);
	bool fits = size >= sizeof(struct write_frame);
	bool write = f->type == FRAME_WRITE || f->type == FRAME_SYNCDATA;
	require(error || fits || !write, "a WRITE without its fields is refused");
	require(error || f->seq == 0 || f->seq == before + 1, "frames come in their order");
	require(error || f->seq || f->type == FRAME_PING, "what changes something has a number");
	free(f);
	give_back();
}
