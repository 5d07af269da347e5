/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requests that the kernel waits for, in memory that outlives the process.
 *
 * A thread reads its requests right into a buffer of this table (a memfd that systemd
 * keeps), and the entry that names the buffer is marked before: there is no moment at which
 * a request has left the kernel and is not here. The next process asks the kernel of each
 * one whether it still waits for it, and goes on with those.
 */
#ifndef HAOPERATOR_INFLIGHT_H
#define HAOPERATOR_INFLIGHT_H

#include <linux/fuse.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_DATA (1024u * 1024)
#define REQUEST_ROOM (MAX_DATA + 64u * 1024)
#define RESENT (1ULL << 63) /* in our `unique`: a former process may have carried it out */
#define ANSWER_ROOM 192

#define TABLE_MAGIC "HAFLIGHT"
#define TABLE_VERSION 1
#define TABLE_ENTRIES 2048u
#define TABLE_BUFFERS 1024u
#define NO_BUFFER UINT32_MAX

/* What an entry says of its request. */
enum flight_state {
	FLIGHT_NONE = 0,
	FLIGHT_READING = 1, /* the kernel may be putting one into the buffer, or has */
	FLIGHT_TAKEN = 2, /* it is in the buffer; nothing was changed for it */
	FLIGHT_BEGUN = 3, /* the gate let it through: it may have been carried out */
	FLIGHT_DONE = 4, /* carried out here; what is left to do is to give the answer */
};

/* At the start of the memfd, in every version: another one can find what it has to refuse. */
struct table_head {
	char magic[8];
	uint32_t version;
	uint32_t entry_size, entries, buffers;
	uint64_t entries_at, buffers_at, buffer_room;
	_Atomic uint64_t largest; /* the length of the largest request so far */
};

/* The fields before `error` are the same in every version. */
struct entry {
	_Atomic uint32_t state;
	uint32_t buffer; /* which one holds the request, NO_BUFFER: it is not needed any more */
	uint64_t directory; /* inflight.identity() of its name */
	struct fuse_in_header head; /* from FLIGHT_TAKEN on */
	int32_t error; /* the answer, from FLIGHT_DONE on */
	uint32_t answer_length;
	char answer[ANSWER_ROOM];
};

bool flights_open(int memfd);
unsigned long flights_unkept(void);

/* Around a thread's read(2). */
char *flight_next(uint64_t directory, int fuse_fd);
void flight_arrived(size_t length);
void flight_leave(void);
char *flight_scratch(int fuse_fd, uint64_t unique);
void flight_filled(size_t length);

/* What becomes of a request; nothing happens to one that is not in the table. */
bool flight_copy(int fuse_fd, uint64_t unique, void *request, size_t length);
bool flight_is_kept(int fuse_fd, uint64_t unique);
void flight_begun(int fuse_fd, uint64_t unique);
void flight_done(int fuse_fd, uint64_t unique, int error, const void *answer, size_t length);
bool flight_owes(int fuse_fd, uint64_t unique, struct entry *answer);
void flight_over(int fuse_fd, uint64_t unique);
void flights_forget(int fuse_fd);

/* What a former process left. */
size_t flights_adopt(uint64_t directory, int fuse_fd);
const struct fuse_in_header *flights_next_left(int fuse_fd);
void flights_drop_left(void);

#endif
