/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the extension module `haoperator.replica._hotpath` share. */
#ifndef HAOPERATOR_HOTPATH_H
#define HAOPERATOR_HOTPATH_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frames.h"
#include "inflight.h"

/* What the gate says to a request that wants to change something. */
enum gate { GATE_OPEN = 0, GATE_PARK = 1, GATE_READ_ONLY = 2 };

/* A request that waits at the gate: in the table, or here if that is full. */
struct parked {
	struct parked *next;
	int fuse_fd;
	int directory;
	uint64_t unique;
	size_t length;
	bool copied;
	char request[];
};

struct gate_state {
	pthread_mutex_t lock;
	pthread_cond_t idle; /* in_flight became 0 */
	enum gate mode;
	long in_flight; /* changes between gate_enter and gate_leave */
	struct parked *first, **last;
	long parked;
};

/* A FUSE request that was carried out here and waits for the peer. */
struct pending {
	uint64_t seq;
	uint64_t unique;
	double since; /* CLOCK_MONOTONIC seconds */
	int fuse_fd; /* -1: nobody waits */
	uint32_t length;
	char small[24]; /* an answer that fits is kept here, else in `large` */
	char *large;
};

struct fsync_pending {
	struct fsync_pending *next;
	uint64_t seq;
	uint64_t unique;
	int fuse_fd;
	int result; /* of the local fsync, valid when local_done */
	int error; /* why it was released without the peer, 0 otherwise */
	bool local_done, peer_done;
};

struct bytes_out {
	char *data;
	size_t length, room;
};

/* The encrypted connection to the peer: channel.h. */
struct channel;

/*
 * The primary's end of the stream.
 *
 * attached: frames are made. broken: the connection ended; nothing more is sent, and
 * whoever waits goes on waiting until `release` decides for all of them.
 */
struct stream {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* acked moved, or broken */
	struct channel *channel; /* held while attached */
	bool attached, broken;
	bool sending, receiving; /* a thread uses the channel outside of the lock */
	uint64_t epoch; /* counts attachments: a binding is valid in one of them */
	uint64_t next_seq, acked;
	struct bytes_out out, on_the_way;
	struct pending *ring;
	size_t ring_size, ring_head, ring_count;
	struct fsync_pending *fsyncs;
	struct bytes_out in; /* touched by the one receiving thread only */
	size_t in_used;
	uint64_t bytes_sent;
	uint64_t answered; /* changes that the peer acknowledged */
	double waited; /* seconds that those who made them waited for it, in all */
	_Atomic double heard; /* CLOCK_MONOTONIC seconds of the last bytes from the peer, 0: never */
};

/* A set of small numbers that grows. */
struct bits {
	unsigned char *bytes;
	size_t size;
};

/* What the data path knows of a node. Protected by its stripe's lock. */
struct slot {
	struct slot *next;
	uint64_t node;
	int fd; /* O_RDWR on the backing file, -1: not open */
	uint64_t bound; /* epoch in which the peer knows it; BOUND_NEVER: unlinked, not sent */
	int fsync_error; /* of an fsync since it was opened, 0: none failed */
	uint64_t period; /* in which `noted` holds */
	bool noted_all;
	struct bits noted; /* zones that were written down before they are written to */
	uint64_t tracking; /* in which `changed` holds */
	bool changed_all;
	struct bits changed; /* blocks that were written while the peer was away */
};
#define BOUND_NEVER UINT64_MAX
#define ZONE_BYTES (4u * 1024 * 1024)
#define BLOCK_BYTES (64u * 1024)

#define MOST_DIRECTORIES 256

/* A descriptor that a thread uses without the node lock; lies on that thread's stack. */
struct use {
	struct use *next;
	int fd;
	bool last_closes; /* its slot gave it up meanwhile */
};

#define STRIPES 1024
struct stripe {
	pthread_mutex_t lock; /* the node lock: local order = stream order */
	struct slot *slots;
	struct use *uses;
};

typedef struct {
	PyObject_HEAD
	struct gate_state gate;
	struct stream stream;
	uint64_t period; /* of the intent log; both change only while no change is in flight */
	uint64_t tracking; /* 0: the peer has everything */
	struct stripe stripes[STRIPES];
	/* By directory: its kernel caches writes, and tells the time of change by SETATTR. */
	_Atomic bool kernel_times[MOST_DIRECTORIES];
} HotPath;

/* stream.c */
bool bytes_reserve(struct bytes_out *b, size_t more);
void bytes_consume(struct bytes_out *b, size_t used);
void bytes_give_back(struct bytes_out *b);
int stream_init(struct stream *s);
void stream_destroy(struct stream *s);
uint64_t stream_submit(struct stream *s, uint64_t epoch, struct frame *head, size_t head_length,
		       const void *data, size_t data_length, int fuse_fd, uint64_t unique,
		       const void *answer, size_t answer_length);
uint64_t stream_submit_fsync(struct stream *s, struct frame *head, const void *data,
			     size_t data_length, struct fsync_pending *entry);
void stream_post(struct stream *s, struct frame *head);
void stream_fsync_local_done(struct stream *s, struct fsync_pending *entry, int result);
void stream_flush(struct stream *s);
int stream_receive(struct stream *s, int timeout_ms, struct frame **frame);
void stream_detach(struct stream *s);
void stream_release(struct stream *s, int error);
bool stream_wait_synced(struct stream *s, uint64_t seq, int timeout_ms);
void stream_forget_fuse(struct stream *s, int fuse_fd);

/* gate.c */
int gate_init(struct gate_state *g);
bool gate_enter(struct gate_state *g, int fuse_fd, int directory, const void *request,
		size_t length);
void gate_leave(struct gate_state *g);
void gate_set(struct gate_state *g, enum gate mode);
enum gate gate_mode(struct gate_state *g, long *in_flight, long *parked);
bool gate_quiesce(struct gate_state *g, int timeout_ms);
struct parked *gate_take(struct gate_state *g);
void gate_interrupt(struct gate_state *g, int fuse_fd, uint64_t unique);
void gate_forget_fuse(struct gate_state *g, int fuse_fd);

/* bits.c */
bool bits_set(struct bits *b, size_t number);
bool bits_have(const struct bits *b, size_t number);
void bits_clear(struct bits *b);

/* hotpath.c */
void fuse_answer(int fuse_fd, uint64_t unique, int error, const void *data, size_t length);
PyObject *frame_object(const struct frame *frame);
double monotonic_now(void);
void deadline_in(struct timespec *when, int timeout_ms);

/* channel.c, channeltype.c */
struct channel *channel_of(PyObject *object);
void channel_let_go(struct channel *c);
int channel_send(struct channel *c, const void *head, size_t head_length, const void *data,
		 size_t data_length, int timeout_ms);
int channel_receive(struct channel *c, void *data, size_t room, size_t *got, int timeout_ms);
void channel_shut(struct channel *c);

/* applier.c, channeltype.c, syscalls.c */
extern PyTypeObject ApplierType;
extern PyTypeObject ChannelType;
extern PyMethodDef syscall_methods[];

#endif
