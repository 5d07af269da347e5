/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate before everything that changes something.
 *
 * Open: the change goes on and counts as in flight until gate_leave. Park: the request
 * is kept whole, its thread goes on with the next one, so that reads are served however
 * many writers wait; it stays in the table of inflight.c if it is there. Read-only: EROFS.
 * `gate_quiesce` after gate_set(PARK or READ_ONLY) is the one way to change what changes
 * mean: nothing is half-way when it returns.
 */
#include "hotpath.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>

int gate_init(struct gate_state *g)
{
	pthread_condattr_t monotonic;

	memset(g, 0, sizeof(*g));
	g->mode = GATE_PARK;
	g->last = &g->first;
	if (pthread_condattr_init(&monotonic) ||
	    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) ||
	    pthread_cond_init(&g->idle, &monotonic))
		return -1;
	return pthread_mutex_init(&g->lock, NULL);
}

/* True: go on, and call gate_leave when done. False: parked or answered. */
bool gate_enter(struct gate_state *g, int fuse_fd, int directory, const void *request,
		size_t length)
{
	const struct fuse_in_header *head = request;
	struct parked *p;
	bool kept;
	int error = EROFS;

	pthread_mutex_lock(&g->lock);
	switch (g->mode) {
	case GATE_OPEN:
		g->in_flight++;
		pthread_mutex_unlock(&g->lock);
		flight_begun(fuse_fd, head->unique);
		return true;
	case GATE_PARK:
		kept = flight_is_kept(fuse_fd, head->unique);
		p = malloc(sizeof(*p) + (kept ? 0 : length));
		if (p) {
			p->next = NULL;
			p->fuse_fd = fuse_fd;
			p->directory = directory;
			p->unique = head->unique;
			p->length = length;
			p->copied = !kept;
			if (p->copied)
				memcpy(p->request, request, length);
			*g->last = p;
			g->last = &p->next;
			g->parked++;
			pthread_mutex_unlock(&g->lock);
			return false;
		}
		error = ENOMEM;
		break;
	case GATE_READ_ONLY:
		break;
	}
	pthread_mutex_unlock(&g->lock);
	fuse_answer(fuse_fd, head->unique, error, NULL, 0);
	return false;
}

void gate_leave(struct gate_state *g)
{
	pthread_mutex_lock(&g->lock);
	if (--g->in_flight == 0)
		pthread_cond_broadcast(&g->idle);
	pthread_mutex_unlock(&g->lock);
}

/* Set what the gate says from now on; to read-only, those that wait get EROFS. */
void gate_set(struct gate_state *g, enum gate mode)
{
	struct parked *refused = NULL, *next;

	pthread_mutex_lock(&g->lock);
	g->mode = mode;
	if (mode == GATE_READ_ONLY) {
		refused = g->first;
		g->first = NULL;
		g->last = &g->first;
		g->parked = 0;
	}
	pthread_mutex_unlock(&g->lock);
	for (; refused; refused = next) {
		next = refused->next;
		fuse_answer(refused->fuse_fd, refused->unique, EROFS, NULL, 0);
		free(refused);
	}
}

/* What the gate says now, and how many are in flight and parked (NULL: not asked). */
enum gate gate_mode(struct gate_state *g, long *in_flight, long *parked)
{
	pthread_mutex_lock(&g->lock);
	enum gate mode = g->mode;
	if (in_flight)
		*in_flight = g->in_flight;
	if (parked)
		*parked = g->parked;
	pthread_mutex_unlock(&g->lock);
	return mode;
}

/* Wait until nothing is in flight; false when `timeout_ms` passed first. */
bool gate_quiesce(struct gate_state *g, int timeout_ms)
{
	struct timespec until;
	int error = 0;

	deadline_in(&until, timeout_ms);
	pthread_mutex_lock(&g->lock);
	while (g->in_flight && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&g->idle, &g->lock, &until);
	bool idle = g->in_flight == 0;
	pthread_mutex_unlock(&g->lock);
	return idle;
}

/* The oldest parked request if the gate is open, else NULL. The caller frees it. */
struct parked *gate_take(struct gate_state *g)
{
	struct parked *p = NULL;

	pthread_mutex_lock(&g->lock);
	if (g->mode == GATE_OPEN && g->first) {
		p = g->first;
		g->first = p->next;
		if (!g->first)
			g->last = &g->first;
		g->parked--;
	}
	pthread_mutex_unlock(&g->lock);
	return p;
}

static struct parked *unlink_if(struct gate_state *g, int fuse_fd, uint64_t unique, bool any)
{
	struct parked **at = &g->first, *removed = NULL;

	while (*at) {
		struct parked *p = *at;

		if (p->fuse_fd == fuse_fd && (any || (p->unique & ~RESENT) == unique)) {
			*at = p->next;
			p->next = removed;
			removed = p;
			g->parked--;
		} else {
			at = &p->next;
		}
	}
	g->last = at;
	return removed;
}

/* A signal for a waiting caller: it need not wait for a decision about the cluster. */
void gate_interrupt(struct gate_state *g, int fuse_fd, uint64_t unique)
{
	pthread_mutex_lock(&g->lock);
	struct parked *p = unlink_if(g, fuse_fd, unique, false);
	pthread_mutex_unlock(&g->lock);
	if (p) {
		fuse_answer(fuse_fd, unique, EINTR, NULL, 0);
		free(p);
	}
}

/* The directory was unmounted: nobody waits there any more. */
void gate_forget_fuse(struct gate_state *g, int fuse_fd)
{
	struct parked *p, *next;

	pthread_mutex_lock(&g->lock);
	p = unlink_if(g, fuse_fd, 0, true);
	pthread_mutex_unlock(&g->lock);
	for (; p; p = next) {
		next = p->next;
		free(p);
	}
}
