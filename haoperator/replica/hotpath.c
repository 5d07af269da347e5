/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data path: READ, WRITE and FSYNC, from /dev/fuse to the backing file and to the
 * peer, without the GIL, and GETXATTR of files that are open, because it comes along with
 * writes. Every other request goes to Python, as does one that needs something prepared first (a data descriptor, a binding); Python then hands the same
 * request to the same function here. There is no second way to write.
 */
#include "hotpath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define KILL_SUIDGID (1u << 2) /* FUSE_WRITE_KILL_SUIDGID */

static __thread char *thread_buffer; /* for what has no place in the table */

static char *own_buffer(void)
{
	if (!thread_buffer)
		thread_buffer = malloc(REQUEST_ROOM);
	return thread_buffer;
}

/* What Python sees of a frame: (type, directory, seq, node, payload). */
PyObject *frame_object(const struct frame *frame)
{
	return Py_BuildValue("iiKKy#", frame->type, frame->directory,
			     (unsigned long long)frame->seq, (unsigned long long)frame->node,
			     (const char *)(frame + 1),
			     (Py_ssize_t)(frame->length - sizeof(*frame)));
}

double monotonic_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void deadline_in(struct timespec *when, int timeout_ms)
{
	clock_gettime(CLOCK_MONOTONIC, when);
	when->tv_sec += timeout_ms / 1000;
	when->tv_nsec += (timeout_ms % 1000) * 1000000L;
	if (when->tv_nsec >= 1000000000L) {
		when->tv_sec++;
		when->tv_nsec -= 1000000000L;
	}
}

/*
 * Answer one FUSE request, and take it from the table. Nobody to answer (interrupted,
 * unmounted) is no error.
 */
void fuse_answer(int fuse_fd, uint64_t unique, int error, const void *data, size_t length)
{
	struct fuse_out_header head = { .len = (uint32_t)(sizeof(head) + length),
					.error = -error,
					.unique = unique & ~RESENT };
	struct iovec parts[2] = { { &head, sizeof(head) }, { (void *)data, length } };

	while (writev(fuse_fd, parts, length ? 2 : 1) < 0 && errno == EINTR)
		;
	flight_over(fuse_fd, unique);
}

static struct stripe *stripe_of(HotPath *hot, uint64_t node)
{
	return &hot->stripes[node % STRIPES];
}

static struct slot *find(struct stripe *stripe, uint64_t node)
{
	struct slot *slot = stripe->slots;

	while (slot && slot->node != node)
		slot = slot->next;
	return slot;
}

static struct slot *find_or_add(struct stripe *stripe, uint64_t node)
{
	struct slot *slot = find(stripe, node);

	if (!slot && (slot = calloc(1, sizeof(*slot)))) {
		slot->node = node;
		slot->fd = -1;
		slot->next = stripe->slots;
		stripe->slots = slot;
	}
	return slot;
}

/*
 * A descriptor for use without the lock, which is held now. The kernel sends the last
 * RELEASE after the answer, but a restarted process does not know who had the file open
 * before, so that a descriptor may be given up, and its number taken, in the middle.
 */
static void begin_use(struct stripe *stripe, struct use *use, int fd)
{
	use->fd = fd;
	use->last_closes = false;
	use->next = stripe->uses;
	stripe->uses = use;
}

/* Whether somebody uses it; then the last who does closes it, and the caller does not. */
static bool left_to_users(struct stripe *stripe, int fd)
{
	bool found = false;

	for (struct use *use = stripe->uses; use; use = use->next)
		if (use->fd == fd)
			found = use->last_closes = true;
	return found;
}

static void end_use(struct stripe *stripe, struct use *use)
{
	pthread_mutex_lock(&stripe->lock);
	struct use **at = &stripe->uses;
	while (*at != use)
		at = &(*at)->next;
	*at = use->next;
	bool close_it = use->last_closes && !left_to_users(stripe, use->fd);
	pthread_mutex_unlock(&stripe->lock);
	if (close_it)
		close(use->fd);
}

/* What became of a request that was offered to the data path. */
enum outcome { DONE, FOR_PYTHON };

static enum outcome do_read(HotPath *hot, int fuse_fd, const struct fuse_in_header *head)
{
	struct fuse_read_in in;
	struct stripe *stripe = stripe_of(hot, head->nodeid);
	uint64_t unique = head->unique;
	char *buffer = flight_scratch(fuse_fd, unique);

	memcpy(&in, head + 1, sizeof(in));
	pthread_mutex_lock(&stripe->lock);
	struct slot *slot = find(stripe, head->nodeid);
	if (!slot || slot->fd < 0) {
		pthread_mutex_unlock(&stripe->lock);
		return FOR_PYTHON;
	}
	struct use use;
	begin_use(stripe, &use, slot->fd);
	pthread_mutex_unlock(&stripe->lock);
	bool in_table = buffer != NULL;
	if (!in_table)
		buffer = own_buffer(); /* the request may lie in it: overwritten by the data */
	size_t size = in.size < MAX_DATA ? in.size : MAX_DATA;
	ssize_t n = buffer ? pread(use.fd, buffer, size, (off_t)in.offset) : (errno = ENOMEM, -1);
	int error = n < 0 ? errno : 0;
	end_use(stripe, &use);
	if (in_table && n > 0)
		flight_filled((size_t)n);
	fuse_answer(fuse_fd, unique, error, buffer, error ? 0 : (size_t)n);
	return DONE;
}

/*
 * The kernel asks for security.capability before the first write to a file and before
 * every change of owner. By the descriptor of an open file; for others Python has one.
 */
static enum outcome do_getxattr(HotPath *hot, int fuse_fd, const struct fuse_in_header *head)
{
	struct fuse_getxattr_in in;
	struct stripe *stripe = stripe_of(hot, head->nodeid);
	const char *asked = (const char *)(head + 1) + sizeof(in);
	size_t length = head->len - sizeof(*head) - sizeof(in);
	char name[256], *buffer = own_buffer(); /* the request may lie in it */
	uint64_t unique = head->unique;

	if (!buffer || !memchr(asked, 0, length < sizeof(name) ? length : sizeof(name)))
		return FOR_PYTHON;
	strcpy(name, asked);
	memcpy(&in, head + 1, sizeof(in));
	pthread_mutex_lock(&stripe->lock); /* whoever closes the file waits */
	struct slot *slot = find(stripe, head->nodeid);
	if (!slot || slot->fd < 0) {
		pthread_mutex_unlock(&stripe->lock);
		return FOR_PYTHON;
	}
	size_t size = in.size < MAX_DATA ? in.size : MAX_DATA;
	ssize_t n = fgetxattr(slot->fd, name, buffer, size);
	int error = n < 0 ? errno : 0;
	pthread_mutex_unlock(&stripe->lock);
	if (error) {
		fuse_answer(fuse_fd, unique, error, NULL, 0);
	} else if (!size) {
		struct fuse_getxattr_out out = { .size = (uint32_t)n };

		fuse_answer(fuse_fd, unique, 0, &out, sizeof(out));
	} else {
		fuse_answer(fuse_fd, unique, 0, buffer, (size_t)n);
	}
	return DONE;
}

/* Ready to change: open here, and known to the peer or in need of no peer. */
static bool prepared(HotPath *hot, const struct slot *slot)
{
	struct stream *s = &hot->stream;

	if (!slot || slot->fd < 0)
		return false;
	/* attached and epoch change only while no change is in flight */
	return !s->attached || slot->bound == s->epoch || slot->bound == BOUND_NEVER;
}

/* Whether all that a write touches was written down in the intent log. */
static bool noted(const HotPath *hot, const struct slot *slot, uint64_t offset, size_t size)
{
	if (slot->period != hot->period)
		return false;
	if (slot->noted_all)
		return true;
	for (uint64_t zone = offset / ZONE_BYTES; zone * ZONE_BYTES < offset + size; zone++)
		if (!bits_have(&slot->noted, zone))
			return false;
	return true;
}

/* The peer is away: remember the blocks. Without memory all of the file counts. */
static void track(const HotPath *hot, struct slot *slot, uint64_t offset, size_t size)
{
	if (slot->tracking != hot->tracking) {
		bits_clear(&slot->changed);
		slot->changed_all = false;
		slot->tracking = hot->tracking;
	}
	for (uint64_t block = offset / BLOCK_BYTES; block * BLOCK_BYTES < offset + size; block++)
		if (!bits_set(&slot->changed, block))
			slot->changed_all = true;
}

/* Write as much as possible; what went wrong with the rest, 0 if there is none. */
static int write_whole(int fd, const char *data, size_t size, off_t offset, size_t *written)
{
	while (*written < size) {
		ssize_t n = pwrite(fd, data + *written, size - *written,
				   offset + (off_t)*written);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? (errno == EBADF ? EPERM : errno) : EIO;
		*written += (size_t)n;
	}
	return 0;
}

/*
 * Write here, all of it unless something stops it. `written` and the frame say what was
 * done also where an error is returned: a failed write may have moved the file's time.
 */
static int write_here(int fd, struct write_frame *frame, const char *data, size_t size,
		      bool kill_suidgid, bool keep_times, size_t *written)
{
	struct stat st, before;

	if (keep_times && fstat(fd, &before))
		return errno;
	int error = write_whole(fd, data, size, (off_t)frame->offset, written);
	frame->mtime_ns = NO_TIME;
	if (keep_times) {
		/* the SETATTR that brings the time may have come before the data */
		struct timespec times[2] = { { 0, UTIME_OMIT }, before.st_mtim };

		if (futimens(fd, times))
			return errno;
	}
	if (fstat(fd, &st))
		return errno;
	if (kill_suidgid && *written) {
		mode_t group_exec = S_ISGID | S_IXGRP;
		mode_t kept = st.st_mode & ~(mode_t)S_ISUID;

		if ((kept & group_exec) == group_exec)
			kept &= ~(mode_t)S_ISGID;
		if (kept != st.st_mode && !fchmod(fd, kept & 07777))
			frame->mode = kept;
	}
	frame->mtime_ns = st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec;
	return error;
}

static void attributes_changed(int fuse_fd, uint64_t node)
{
	struct {
		struct fuse_out_header head;
		struct fuse_notify_inval_inode_out inode;
	} note = { { sizeof(note), FUSE_NOTIFY_INVAL_INODE, 0 }, { node, -1, 0 } };

	while (write(fuse_fd, &note, sizeof(note)) < 0 && errno == EINTR)
		;
}

static enum outcome do_write(HotPath *hot, int fuse_fd, int directory,
			     const struct fuse_in_header *head)
{
	struct fuse_write_in in;
	struct stripe *stripe = stripe_of(hot, head->nodeid);
	const char *data = (const char *)(head + 1) + sizeof(in);
	size_t written = 0;

	memcpy(&in, head + 1, sizeof(in));
	if (in.size > MAX_DATA || head->len < sizeof(*head) + sizeof(in) + in.size ||
	    in.offset > INT64_MAX - MAX_DATA) {
		fuse_answer(fuse_fd, head->unique, EINVAL, NULL, 0);
		return DONE;
	}
	if (!gate_enter(&hot->gate, fuse_fd, directory, head, head->len))
		return DONE;
	pthread_mutex_lock(&stripe->lock);
	struct slot *slot = find(stripe, head->nodeid);
	if (!prepared(hot, slot) || !noted(hot, slot, in.offset, in.size)) {
		pthread_mutex_unlock(&stripe->lock);
		gate_leave(&hot->gate);
		return FOR_PYTHON;
	}
	if (hot->tracking)
		track(hot, slot, in.offset, in.size);
	struct write_frame frame = { .head = { .type = FRAME_WRITE,
					       .directory = (uint16_t)directory,
					       .node = head->nodeid },
				     .offset = in.offset };
	bool keep_times = directory >= 0 && directory < MOST_DIRECTORIES &&
			  hot->kernel_times[directory];
	int error = write_here(slot->fd, &frame, data, in.size,
			       in.write_flags & KILL_SUIDGID, keep_times, &written);
	/* The kernel does not look at how much of its cache was written, a caller does. */
	if (written && !(in.write_flags & FUSE_WRITE_CACHE))
		error = 0;
	struct fuse_write_out out = { .size = (uint32_t)written };
	if (frame.mode) /* before the answer; the kernel does not wait for it */
		attributes_changed(fuse_fd, head->nodeid);
	bool send = slot->bound != BOUND_NEVER;
	if (send) /* what a failed one did, the peer does too: nobody waits for that */
		stream_submit(&hot->stream, 0, &frame.head, sizeof(frame), data, written,
			      error ? -1 : fuse_fd, head->unique, &out, sizeof(out));
	else if (!error)
		flight_done(fuse_fd, head->unique, 0, &out, sizeof(out));
	pthread_mutex_unlock(&stripe->lock);
	if (error)
		fuse_answer(fuse_fd, head->unique, error, NULL, 0);
	else if (!send)
		fuse_answer(fuse_fd, head->unique, 0, &out, sizeof(out));
	if (send)
		stream_flush(&hot->stream);
	gate_leave(&hot->gate);
	return DONE;
}

/*
 * What an fsync failed with counts until the file is closed: the kernel reports it once,
 * but who asks again must not hear that all is on disk.
 */
static void fsync_failed(HotPath *hot, uint64_t node, int fd, int error)
{
	struct stripe *stripe = stripe_of(hot, node);

	pthread_mutex_lock(&stripe->lock);
	struct slot *slot = find(stripe, node);
	if (slot && slot->fd == fd)
		slot->fsync_error = error;
	pthread_mutex_unlock(&stripe->lock);
}

static enum outcome do_fsync(HotPath *hot, int fuse_fd, int directory,
			     const struct fuse_in_header *head)
{
	struct fuse_fsync_in in;
	struct stripe *stripe = stripe_of(hot, head->nodeid);
	struct use use;
	uint64_t seq = 0;

	memcpy(&in, head + 1, sizeof(in));
	if (gate_mode(&hot->gate, NULL, NULL) == GATE_READ_ONLY) { /* from the time before: only this copy is ours */
		pthread_mutex_lock(&stripe->lock);
		struct slot *known = find(stripe, head->nodeid);
		bool open = known && known->fd >= 0;
		if (open)
			begin_use(stripe, &use, known->fd);
		pthread_mutex_unlock(&stripe->lock);
		if (!open)
			return FOR_PYTHON;
		int failed = fsync(use.fd) ? errno : 0;
		end_use(stripe, &use);
		fuse_answer(fuse_fd, head->unique, failed, NULL, 0);
		return DONE;
	}
	if (!gate_enter(&hot->gate, fuse_fd, directory, head, head->len))
		return DONE;
	pthread_mutex_lock(&stripe->lock);
	struct slot *slot = find(stripe, head->nodeid);
	if (!prepared(hot, slot)) {
		pthread_mutex_unlock(&stripe->lock);
		gate_leave(&hot->gate);
		return FOR_PYTHON;
	}
	int former_error = slot->fsync_error;
	struct frame frame = { .type = FRAME_FSYNC,
			       .directory = (uint16_t)directory,
			       .node = head->nodeid };
	struct fsync_body sync = { .datasync = in.fsync_flags & 1 };
	struct fsync_pending *entry = NULL;
	if (slot->bound != BOUND_NEVER) {
		entry = calloc(1, sizeof(*entry));
		if (!entry) { /* this copy alone is less than was asked for */
			pthread_mutex_unlock(&stripe->lock);
			gate_leave(&hot->gate);
			fuse_answer(fuse_fd, head->unique, ENOMEM, NULL, 0);
			return DONE;
		}
		entry->fuse_fd = fuse_fd;
		entry->unique = head->unique;
		seq = stream_submit_fsync(&hot->stream, &frame, &sync, sizeof(sync), entry);
	}
	begin_use(stripe, &use, slot->fd);
	pthread_mutex_unlock(&stripe->lock);
	if (seq)
		stream_flush(&hot->stream);
	gate_leave(&hot->gate); /* the fsync itself may take long and changes nothing */
	int error = (in.fsync_flags & 1 ? fdatasync(use.fd) : fsync(use.fd)) ? errno : former_error;
	if (error)
		fsync_failed(hot, head->nodeid, use.fd, error);
	end_use(stripe, &use);
	if (seq) {
		stream_fsync_local_done(&hot->stream, entry, error);
	} else {
		free(entry);
		fuse_answer(fuse_fd, head->unique, error, NULL, 0);
	}
	return DONE;
}

/* A former process carried it out: the answer is due once changes are let through. */
static void give_owed(HotPath *hot, int fuse_fd, int directory, const struct fuse_in_header *head,
		      const struct entry *owed)
{
	if (!gate_enter(&hot->gate, fuse_fd, directory, head, sizeof(*head)))
		return;
	fuse_answer(fuse_fd, head->unique, owed->error, owed->answer, owed->answer_length);
	gate_leave(&hot->gate);
}

static enum outcome dispatch(HotPath *hot, int fuse_fd, int directory,
			     const struct fuse_in_header *head)
{
	size_t body = head->len - sizeof(*head);
	struct entry owed;

	if (flight_owes(fuse_fd, head->unique, &owed)) {
		give_owed(hot, fuse_fd, directory, head, &owed);
		return DONE;
	}
	switch (head->opcode) {
	case FUSE_READ:
		return body < sizeof(struct fuse_read_in) ? FOR_PYTHON
							  : do_read(hot, fuse_fd, head);
	case FUSE_WRITE:
		return body < sizeof(struct fuse_write_in)
			       ? FOR_PYTHON
			       : do_write(hot, fuse_fd, directory, head);
	case FUSE_FSYNC:
		return body < sizeof(struct fuse_fsync_in)
			       ? FOR_PYTHON
			       : do_fsync(hot, fuse_fd, directory, head);
	case FUSE_GETXATTR:
		return body < sizeof(struct fuse_getxattr_in)
			       ? FOR_PYTHON
			       : do_getxattr(hot, fuse_fd, head);
	case FUSE_INTERRUPT:
		if (body >= sizeof(struct fuse_interrupt_in))
			gate_interrupt(&hot->gate, fuse_fd,
				       ((const struct fuse_interrupt_in *)(head + 1))->unique);
		flight_over(fuse_fd, head->unique);
		return DONE;
	default:
		return FOR_PYTHON;
	}
}

static PyObject *hot_serve(HotPath *hot, PyObject *args)
{
	int fuse_fd, directory, error = 0;
	unsigned long long identity;
	ssize_t n = 0;
	char *buffer;

	if (!PyArg_ParseTuple(args, "iiK", &fuse_fd, &directory, &identity))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	for (;;) {
		char *kept = flight_next(identity, fuse_fd);

		buffer = kept ? kept : own_buffer();
		if (!buffer) {
			error = ENOMEM;
			break;
		}
		n = read(fuse_fd, buffer, REQUEST_ROOM);
		if (n < 0) {
			if (errno == EINTR || errno == EAGAIN || errno == ENOENT)
				continue;
			error = errno;
			break;
		}
		const struct fuse_in_header *head = (const void *)buffer;
		if ((size_t)n < sizeof(*head) || head->len != (size_t)n) {
			error = EPROTO;
			break;
		}
		if (kept)
			flight_arrived((size_t)n);
		if (dispatch(hot, fuse_fd, directory, head) == FOR_PYTHON)
			break;
	}
	if (error)
		flight_leave();
	Py_END_ALLOW_THREADS;
	if (error) {
		free(thread_buffer); /* most likely this thread is about to end */
		thread_buffer = NULL;
		errno = error;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	return PyBytes_FromStringAndSize(buffer, n);
}

/* Use this memfd for the table of requests in flight: a new one, or a former process's. */
static PyObject *hot_keep_requests(HotPath *hot, PyObject *args)
{
	int memfd;

	(void)hot;
	if (!PyArg_ParseTuple(args, "i", &memfd))
		return NULL;
	return PyBool_FromLong(flights_open(memfd));
}

static PyObject *hot_adopt(HotPath *hot, PyObject *args)
{
	int fuse_fd;
	unsigned long long identity;

	(void)hot;
	if (!PyArg_ParseTuple(args, "iK", &fuse_fd, &identity))
		return NULL;
	return PyLong_FromSize_t(flights_adopt(identity, fuse_fd));
}

static PyObject *hot_next_left(HotPath *hot, PyObject *args)
{
	int fuse_fd;

	(void)hot;
	if (!PyArg_ParseTuple(args, "i", &fuse_fd))
		return NULL;
	const struct fuse_in_header *head = flights_next_left(fuse_fd);
	if (!head)
		Py_RETURN_NONE;
	return PyBytes_FromStringAndSize((const char *)head, head->len);
}

static PyObject *hot_drop_left(HotPath *hot, PyObject *unused)
{
	(void)hot;
	(void)unused;
	flights_drop_left();
	Py_RETURN_NONE;
}

/* A request that has no answer is through. */
static PyObject *hot_over(HotPath *hot, PyObject *args)
{
	int fuse_fd;
	unsigned long long unique;

	(void)hot;
	if (!PyArg_ParseTuple(args, "iK", &fuse_fd, &unique))
		return NULL;
	flight_over(fuse_fd, unique);
	Py_RETURN_NONE;
}

static PyObject *hot_handle(HotPath *hot, PyObject *args)
{
	int fuse_fd, directory;
	Py_buffer request;
	enum outcome outcome = FOR_PYTHON;

	if (!PyArg_ParseTuple(args, "iiy*", &fuse_fd, &directory, &request))
		return NULL;
	const struct fuse_in_header *head = request.buf;
	if ((size_t)request.len >= sizeof(*head) && head->len == (size_t)request.len) {
		Py_BEGIN_ALLOW_THREADS;
		outcome = dispatch(hot, fuse_fd, directory, head);
		Py_END_ALLOW_THREADS;
	}
	PyBuffer_Release(&request);
	return PyBool_FromLong(outcome == DONE);
}

static PyObject *hot_answer(HotPath *hot, PyObject *args)
{
	int fuse_fd, error;
	unsigned long long unique;
	Py_buffer data;

	(void)hot;
	if (!PyArg_ParseTuple(args, "iKiy*", &fuse_fd, &unique, &error, &data))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	flight_done(fuse_fd, unique, error, data.buf, (size_t)data.len);
	fuse_answer(fuse_fd, unique, error, data.buf, (size_t)data.len);
	Py_END_ALLOW_THREADS;
	PyBuffer_Release(&data);
	Py_RETURN_NONE;
}

static PyObject *hot_enter(HotPath *hot, PyObject *args)
{
	int fuse_fd, directory;
	Py_buffer request;
	bool entered = false;

	if (!PyArg_ParseTuple(args, "iiy*", &fuse_fd, &directory, &request))
		return NULL;
	if ((size_t)request.len >= sizeof(struct fuse_in_header))
		entered = gate_enter(&hot->gate, fuse_fd, directory, request.buf,
				     (size_t)request.len);
	PyBuffer_Release(&request);
	return PyBool_FromLong(entered);
}

static PyObject *hot_leave(HotPath *hot, PyObject *unused)
{
	(void)unused;
	gate_leave(&hot->gate);
	Py_RETURN_NONE;
}

static PyObject *hot_set_gate(HotPath *hot, PyObject *args)
{
	int mode;

	if (!PyArg_ParseTuple(args, "i", &mode))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	gate_set(&hot->gate, (enum gate)mode);
	Py_END_ALLOW_THREADS;
	Py_RETURN_NONE;
}

static PyObject *hot_quiesce(HotPath *hot, PyObject *args)
{
	int timeout_ms;
	bool idle;

	if (!PyArg_ParseTuple(args, "i", &timeout_ms))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	idle = gate_quiesce(&hot->gate, timeout_ms);
	Py_END_ALLOW_THREADS;
	return PyBool_FromLong(idle);
}

static PyObject *hot_take_parked(HotPath *hot, PyObject *unused)
{
	struct parked *p;

	(void)unused;
	while ((p = gate_take(&hot->gate))) {
		int fuse_fd = p->fuse_fd, directory = p->directory;
		PyObject *request = PyBytes_FromStringAndSize(p->copied ? p->request : NULL,
							      (Py_ssize_t)p->length);
		bool there = request && (p->copied || flight_copy(fuse_fd, p->unique,
								  PyBytes_AS_STRING(request),
								  p->length));

		if (!request)
			fuse_answer(fuse_fd, p->unique, ENOMEM, NULL, 0);
		free(p);
		if (there)
			return Py_BuildValue("iiN", fuse_fd, directory, request);
		if (!request)
			return NULL;
		Py_DECREF(request); /* unmounted meanwhile */
	}
	Py_RETURN_NONE;
}

static PyObject *hot_forget_fuse(HotPath *hot, PyObject *args)
{
	int fuse_fd;

	if (!PyArg_ParseTuple(args, "i", &fuse_fd))
		return NULL;
	gate_forget_fuse(&hot->gate, fuse_fd);
	stream_forget_fuse(&hot->stream, fuse_fd);
	flights_forget(fuse_fd);
	Py_RETURN_NONE;
}

static void lock_stripe(struct stripe *stripe)
{
	if (pthread_mutex_trylock(&stripe->lock)) {
		Py_BEGIN_ALLOW_THREADS;
		pthread_mutex_lock(&stripe->lock);
		Py_END_ALLOW_THREADS;
	}
}

static PyObject *hot_lock(HotPath *hot, PyObject *args)
{
	unsigned long long node;

	if (!PyArg_ParseTuple(args, "K", &node))
		return NULL;
	lock_stripe(stripe_of(hot, node));
	Py_RETURN_NONE;
}

static PyObject *hot_unlock(HotPath *hot, PyObject *args)
{
	unsigned long long node;

	if (!PyArg_ParseTuple(args, "K", &node))
		return NULL;
	pthread_mutex_unlock(&stripe_of(hot, node)->lock);
	Py_RETURN_NONE;
}

static PyObject *hot_set_fd(HotPath *hot, PyObject *args)
{
	unsigned long long node;
	int fd, old = -1;

	if (!PyArg_ParseTuple(args, "Ki", &node, &fd))
		return NULL;
	struct stripe *stripe = stripe_of(hot, node);
	lock_stripe(stripe);
	struct slot *slot = find_or_add(stripe, node);
	if (slot) {
		old = left_to_users(stripe, slot->fd) ? -1 : slot->fd;
		slot->fd = fd;
		slot->fsync_error = 0;
	}
	pthread_mutex_unlock(&stripe->lock);
	return slot ? PyLong_FromLong(old) : PyErr_NoMemory();
}

static PyObject *hot_fd(HotPath *hot, PyObject *args)
{
	unsigned long long node;

	if (!PyArg_ParseTuple(args, "K", &node))
		return NULL;
	struct stripe *stripe = stripe_of(hot, node);
	lock_stripe(stripe);
	struct slot *slot = find(stripe, node);
	int fd = slot ? slot->fd : -1;
	pthread_mutex_unlock(&stripe->lock);
	return PyLong_FromLong(fd);
}

static PyObject *hot_set_bound(HotPath *hot, PyObject *args)
{
	unsigned long long node, bound;

	if (!PyArg_ParseTuple(args, "KK", &node, &bound))
		return NULL;
	struct stripe *stripe = stripe_of(hot, node);
	lock_stripe(stripe);
	struct slot *slot = find_or_add(stripe, node);
	if (slot)
		slot->bound = bound;
	pthread_mutex_unlock(&stripe->lock);
	if (!slot)
		return PyErr_NoMemory();
	Py_RETURN_NONE;
}

/* These zones of a node are in the intent log; `all`: the whole node is. */
static PyObject *hot_note(HotPath *hot, PyObject *args)
{
	unsigned long long node, first, last;
	int all;
	bool noted = true;

	if (!PyArg_ParseTuple(args, "KKKp", &node, &first, &last, &all))
		return NULL;
	struct stripe *stripe = stripe_of(hot, node);
	lock_stripe(stripe);
	struct slot *slot = find_or_add(stripe, node);
	if (slot && slot->period != hot->period) {
		bits_clear(&slot->noted);
		slot->noted_all = false;
		slot->period = hot->period;
	}
	if (slot && all)
		slot->noted_all = true;
	for (unsigned long long zone = first; slot && !all && zone <= last && noted; zone++)
		noted = bits_set(&slot->noted, zone);
	pthread_mutex_unlock(&stripe->lock);
	if (!slot || !noted)
		return PyErr_NoMemory();
	Py_RETURN_NONE;
}

/* A node gets another name: what was noted for it held for the former one. A write that saw
   it is over when this returns. */
static PyObject *hot_forget_noted(HotPath *hot, PyObject *args)
{
	unsigned long long node;

	if (!PyArg_ParseTuple(args, "K", &node))
		return NULL;
	struct stripe *stripe = stripe_of(hot, node);
	lock_stripe(stripe);
	struct slot *slot = find(stripe, node);
	if (slot)
		slot->period = 0;
	pthread_mutex_unlock(&stripe->lock);
	Py_RETURN_NONE;
}

/* From here on every zone is to be noted again. No change may be in flight. */
static PyObject *hot_begin_period(HotPath *hot, PyObject *unused)
{
	(void)unused;
	hot->period++;
	Py_RETURN_NONE;
}

/* From here on blocks are remembered anew, or no more. No change may be in flight. */
static PyObject *hot_track(HotPath *hot, PyObject *args)
{
	static uint64_t last;
	int on;

	if (!PyArg_ParseTuple(args, "p", &on))
		return NULL;
	hot->tracking = on ? ++last : 0;
	Py_RETURN_NONE;
}

/* The blocks of a node that were written while the peer was away: bits; None: all. */
static PyObject *hot_changed(HotPath *hot, PyObject *args)
{
	unsigned long long node;
	PyObject *blocks = NULL;

	if (!PyArg_ParseTuple(args, "K", &node))
		return NULL;
	struct stripe *stripe = stripe_of(hot, node);
	lock_stripe(stripe);
	struct slot *slot = find(stripe, node);
	if (!slot || slot->tracking != hot->tracking)
		blocks = PyBytes_FromStringAndSize(NULL, 0);
	else if (!slot->changed_all)
		blocks = PyBytes_FromStringAndSize((const char *)slot->changed.bytes,
						   (Py_ssize_t)slot->changed.size);
	bool all = slot && slot->tracking == hot->tracking && slot->changed_all;
	pthread_mutex_unlock(&stripe->lock);
	if (all)
		Py_RETURN_NONE;
	return blocks;
}

static PyObject *hot_drop(HotPath *hot, PyObject *args)
{
	unsigned long long node;
	int fd = -1;

	if (!PyArg_ParseTuple(args, "K", &node))
		return NULL;
	struct stripe *stripe = stripe_of(hot, node);
	lock_stripe(stripe);
	for (struct slot **at = &stripe->slots; *at; at = &(*at)->next) {
		if ((*at)->node == node) {
			struct slot *slot = *at;

			*at = slot->next;
			fd = left_to_users(stripe, slot->fd) ? -1 : slot->fd;
			bits_clear(&slot->noted);
			bits_clear(&slot->changed);
			free(slot);
			break;
		}
	}
	pthread_mutex_unlock(&stripe->lock);
	return PyLong_FromLong(fd);
}

/* Before the first write of a directory: who tells the time of its changes. */
static PyObject *hot_set_kernel_times(HotPath *hot, PyObject *args)
{
	int directory, kernel;

	if (!PyArg_ParseTuple(args, "ip", &directory, &kernel))
		return NULL;
	if (directory < 0 || directory >= MOST_DIRECTORIES) {
		PyErr_SetString(PyExc_ValueError, "too many directories");
		return NULL;
	}
	hot->kernel_times[directory] = kernel;
	Py_RETURN_NONE;
}

static PyObject *hot_attach(HotPath *hot, PyObject *args)
{
	struct stream *s = &hot->stream;
	PyObject *channel;

	if (!PyArg_ParseTuple(args, "O!", &ChannelType, &channel))
		return NULL;
	pthread_mutex_lock(&s->lock);
	if (s->attached || s->ring_count || s->fsyncs || s->sending) {
		pthread_mutex_unlock(&s->lock);
		PyErr_SetString(PyExc_RuntimeError, "the former stream is not finished");
		return NULL;
	}
	s->channel = channel_of(channel);
	s->broken = false;
	s->attached = true;
	s->next_seq = 1;
	s->acked = 0;
	s->out.length = s->in.length = s->in_used = 0;
	uint64_t epoch = ++s->epoch;
	pthread_mutex_unlock(&s->lock);
	return PyLong_FromUnsignedLongLong(epoch);
}

static PyObject *hot_detach(HotPath *hot, PyObject *unused)
{
	(void)unused;
	Py_BEGIN_ALLOW_THREADS;
	stream_detach(&hot->stream);
	Py_END_ALLOW_THREADS;
	Py_RETURN_NONE;
}

static PyObject *hot_submit(HotPath *hot, PyObject *args)
{
	int type, directory, fuse_fd;
	unsigned long long node, unique, epoch = 0;
	Py_buffer payload, answer;

	if (!PyArg_ParseTuple(args, "iiKy*iKy*|K", &type, &directory, &node, &payload, &fuse_fd,
			      &unique, &answer, &epoch))
		return NULL;
	uint64_t seq = 0;
	bool fits = (size_t)payload.len <= MAX_FRAME - sizeof(struct frame);
	if (fits) {
		struct frame head = { .type = (uint16_t)type,
				      .directory = (uint16_t)directory,
				      .node = node };

		Py_BEGIN_ALLOW_THREADS;
		seq = stream_submit(&hot->stream, epoch, &head, sizeof(head), payload.buf,
				    (size_t)payload.len, fuse_fd, unique, answer.buf,
				    (size_t)answer.len);
		Py_END_ALLOW_THREADS;
	} else {
		PyErr_SetString(PyExc_ValueError, "frame too large");
	}
	PyBuffer_Release(&payload);
	PyBuffer_Release(&answer);
	return fits ? PyLong_FromUnsignedLongLong(seq) : NULL;
}

static PyObject *hot_submit_fsync(HotPath *hot, PyObject *args)
{
	int type, directory, fuse_fd, local_error;
	unsigned long long node, unique;
	Py_buffer payload;
	struct fsync_pending *entry = calloc(1, sizeof(*entry));
	uint64_t seq = 0;

	if (!entry)
		return PyErr_NoMemory();
	if (!PyArg_ParseTuple(args, "iiKy*iKi", &type, &directory, &node, &payload, &fuse_fd,
			      &unique, &local_error)) {
		free(entry);
		return NULL;
	}
	entry->fuse_fd = fuse_fd;
	entry->unique = unique;
	/* An fsync of something else than an open file: done here already. */
	entry->local_done = true;
	entry->result = local_error;
	if ((size_t)payload.len > MAX_FRAME - sizeof(struct frame)) {
		PyErr_SetString(PyExc_ValueError, "frame too large");
		PyBuffer_Release(&payload);
		free(entry);
		return NULL;
	}
	struct frame head = { .type = (uint16_t)type,
			      .directory = (uint16_t)directory,
			      .node = node };
	Py_BEGIN_ALLOW_THREADS;
	seq = stream_submit_fsync(&hot->stream, &head, payload.buf, (size_t)payload.len, entry);
	if (!seq) {
		fuse_answer(fuse_fd, unique, local_error, NULL, 0);
		free(entry);
	}
	Py_END_ALLOW_THREADS;
	PyBuffer_Release(&payload);
	return PyLong_FromUnsignedLongLong(seq);
}

/* An unsequenced frame: not acknowledged, may overtake nothing that was submitted. */
static PyObject *hot_post(HotPath *hot, PyObject *args)
{
	int type;
	struct stream *s = &hot->stream;

	if (!PyArg_ParseTuple(args, "i", &type))
		return NULL;
	struct frame head = { .type = (uint16_t)type };
	Py_BEGIN_ALLOW_THREADS;
	stream_post(s, &head);
	stream_flush(s);
	Py_END_ALLOW_THREADS;
	Py_RETURN_NONE;
}

static PyObject *hot_flush(HotPath *hot, PyObject *unused)
{
	(void)unused;
	Py_BEGIN_ALLOW_THREADS;
	stream_flush(&hot->stream);
	Py_END_ALLOW_THREADS;
	Py_RETURN_NONE;
}

static PyObject *hot_receive(HotPath *hot, PyObject *args)
{
	struct frame *frame = NULL;
	int timeout_ms, error;

	if (!PyArg_ParseTuple(args, "i", &timeout_ms))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	error = stream_receive(&hot->stream, timeout_ms, &frame);
	Py_END_ALLOW_THREADS;
	if (error) {
		errno = error;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	return frame_object(frame);
}

/* Wait until everything up to `seq` is at the peer. False: broken, or out of time. */
static PyObject *hot_wait_acked(HotPath *hot, PyObject *args)
{
	struct stream *s = &hot->stream;
	unsigned long long seq;
	int timeout_ms, error = 0;
	struct timespec until;

	if (!PyArg_ParseTuple(args, "Ki", &seq, &timeout_ms))
		return NULL;
	bool acked;
	Py_BEGIN_ALLOW_THREADS;
	deadline_in(&until, timeout_ms);
	pthread_mutex_lock(&s->lock);
	while (s->acked < seq && !s->broken && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&s->changed, &s->lock, &until);
	acked = s->attached && s->acked >= seq;
	pthread_mutex_unlock(&s->lock);
	Py_END_ALLOW_THREADS;
	return PyBool_FromLong(acked);
}

static PyObject *hot_wait_synced(HotPath *hot, PyObject *args)
{
	unsigned long long seq;
	int timeout_ms;
	bool synced;

	if (!PyArg_ParseTuple(args, "Ki", &seq, &timeout_ms))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	synced = stream_wait_synced(&hot->stream, seq, timeout_ms);
	Py_END_ALLOW_THREADS;
	return PyBool_FromLong(synced);
}

static PyObject *hot_release(HotPath *hot, PyObject *args)
{
	int error;

	if (!PyArg_ParseTuple(args, "i", &error))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	stream_release(&hot->stream, error);
	Py_END_ALLOW_THREADS;
	Py_RETURN_NONE;
}

static PyObject *hot_heard(HotPath *hot, PyObject *unused)
{
	(void)unused;
	return PyFloat_FromDouble(hot->stream.heard);
}

/* How many changes the peer acknowledged, and for how long they waited in all. */
static PyObject *hot_waits(HotPath *hot, PyObject *unused)
{
	struct stream *s = &hot->stream;

	(void)unused;
	pthread_mutex_lock(&s->lock);
	unsigned long long answered = s->answered;
	double waited = s->waited;
	pthread_mutex_unlock(&s->lock);
	return Py_BuildValue("(Kd)", answered, waited);
}

static PyObject *hot_state(HotPath *hot, PyObject *unused)
{
	struct stream *s = &hot->stream;

	(void)unused;
	pthread_mutex_lock(&s->lock);
	unsigned long long sent = s->next_seq - 1, acked = s->acked, bytes = s->bytes_sent;
	unsigned long long epoch = s->epoch;
	bool attached = s->attached, broken = s->broken;
	pthread_mutex_unlock(&s->lock);
	long in_flight, parked;
	enum gate mode = gate_mode(&hot->gate, &in_flight, &parked);
	return Py_BuildValue("{s:N,s:N,s:K,s:K,s:K,s:K,s:i,s:l,s:l,s:k}", "attached",
			     PyBool_FromLong(attached), "broken", PyBool_FromLong(broken), "epoch",
			     epoch, "sent", sent, "acked", acked, "bytes_sent", bytes, "gate",
			     (int)mode, "in_flight", in_flight, "parked", parked,
			     "unkept", flights_unkept());
}

static PyObject *hot_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	(void)args;
	(void)kwargs;
	HotPath *hot = (HotPath *)type->tp_alloc(type, 0);

	if (!hot)
		return NULL;
	hot->period = 1;
	/* recursive: Python holds the node lock while it registers a descriptor or a binding */
	pthread_mutexattr_t recursive;
	pthread_mutexattr_init(&recursive);
	pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
	for (int i = 0; i < STRIPES; i++)
		pthread_mutex_init(&hot->stripes[i].lock, &recursive);
	if (gate_init(&hot->gate) || stream_init(&hot->stream)) {
		PyErr_SetString(PyExc_RuntimeError, "no locks");
		return NULL;
	}
	return (PyObject *)hot;
}

#define METHOD(name, flags) { #name, (PyCFunction)(void (*)(void))hot_##name, flags, NULL }
static PyMethodDef hot_methods[] = {
	METHOD(keep_requests, METH_VARARGS), METHOD(adopt, METH_VARARGS),
	METHOD(next_left, METH_VARARGS),   METHOD(drop_left, METH_NOARGS),
	METHOD(over, METH_VARARGS),
	METHOD(serve, METH_VARARGS),	   METHOD(handle, METH_VARARGS),
	METHOD(answer, METH_VARARGS),	   METHOD(enter, METH_VARARGS),
	METHOD(leave, METH_NOARGS),	   METHOD(set_gate, METH_VARARGS),
	METHOD(quiesce, METH_VARARGS),	   METHOD(take_parked, METH_NOARGS),
	METHOD(forget_fuse, METH_VARARGS), METHOD(lock, METH_VARARGS),
	METHOD(unlock, METH_VARARGS),	   METHOD(set_fd, METH_VARARGS),
	METHOD(fd, METH_VARARGS),	   METHOD(set_bound, METH_VARARGS),
	METHOD(note, METH_VARARGS),	   METHOD(forget_noted, METH_VARARGS),
	METHOD(begin_period, METH_NOARGS),
	METHOD(track, METH_VARARGS),	   METHOD(changed, METH_VARARGS),
	METHOD(drop, METH_VARARGS),	   METHOD(attach, METH_VARARGS),
	METHOD(detach, METH_NOARGS),	   METHOD(submit, METH_VARARGS),
	METHOD(submit_fsync, METH_VARARGS), METHOD(post, METH_VARARGS),
	METHOD(flush, METH_NOARGS),	   METHOD(receive, METH_VARARGS),
	METHOD(wait_acked, METH_VARARGS),  METHOD(wait_synced, METH_VARARGS),
	METHOD(release, METH_VARARGS),	   METHOD(set_kernel_times, METH_VARARGS),
	METHOD(heard, METH_NOARGS),	   METHOD(waits, METH_NOARGS),
		   METHOD(state, METH_NOARGS),	   { NULL, NULL, 0, NULL },
};

static PyTypeObject HotPathType = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "haoperator.replica._hotpath.HotPath",
	.tp_basicsize = sizeof(HotPath),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_doc = "The data path of one replicator process.",
	.tp_methods = hot_methods,
	.tp_new = hot_new,
};

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "haoperator.replica._hotpath",
	.m_doc = "READ, WRITE and FSYNC without the GIL, and system calls that Python lacks.",
	.m_size = -1,
	.m_methods = syscall_methods,
};

PyMODINIT_FUNC PyInit__hotpath(void)
{
	PyObject *m;

	mallopt(M_ARENA_MAX, 2); /* many threads, little memory */
	if (PyType_Ready(&HotPathType) || PyType_Ready(&ApplierType) || PyType_Ready(&ChannelType))
		return NULL;
	m = PyModule_Create(&module);
	if (!m)
		return NULL;
	if (PyModule_AddObjectRef(m, "HotPath", (PyObject *)&HotPathType) ||
	    PyModule_AddObjectRef(m, "Applier", (PyObject *)&ApplierType) ||
	    PyModule_AddObjectRef(m, "Channel", (PyObject *)&ChannelType) ||
	    PyModule_AddIntConstant(m, "GATE_OPEN", GATE_OPEN) ||
	    PyModule_AddIntConstant(m, "GATE_PARK", GATE_PARK) ||
	    PyModule_AddIntConstant(m, "GATE_READ_ONLY", GATE_READ_ONLY) ||
	    PyModule_AddIntConstant(m, "MAX_FRAME", MAX_FRAME) ||
	    PyModule_AddObject(m, "TIME_NOW", PyLong_FromLongLong(TIME_NOW))) {
		Py_DECREF(m);
		return NULL;
	}
	return m;
}
