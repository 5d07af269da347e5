/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The standby's end of the stream: frames in, in order, acknowledgements out.
 *
 * One thread calls `next`. WRITE and SYNCDATA are applied here, FSYNC is queued for the
 * threads in `fsync_work`, so that a slow disk holds up nobody else's frames, and every
 * other frame goes to Python, which has applied it when it calls `next` again. One
 * acknowledgement covers all that came in one piece.
 *
 * Data for a file that is guarded goes to Python first, which keeps the former content aside
 * and then calls `write_released`.
 */
#include "hotpath.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUCKETS 1024
#define RECEIVE_ROOM (256u * 1024)
#define SETTLE_MS 10

struct bound {
	struct bound *next;
	uint64_t node;
	int fd; /* -1: the path was not there (only during a resync) */
	uint64_t binding; /* never the same for two descriptors */
	struct bound *next_unsettled;
	int64_t mtime_ns; /* to be set when there is time, or before it matters */
	bool unsettled;
	bool guarded; /* its content is shared with a branch that is kept aside */
};

struct fsync_job {
	struct fsync_job *next;
	uint64_t seq, binding;
	int fd; /* own duplicate: the node may be unbound meanwhile */
	bool datasync;
};

typedef struct {
	PyObject_HEAD
	struct channel *channel;
	bool tolerant; /* resync: the walker comes by later and makes good what fails */
	int lacking; /* ENOSPC or EDQUOT that was passed over meanwhile, 0: none */
	uint64_t received, applied, acked;
	struct bytes_out in;
	size_t used;
	struct bound *table[BUCKETS];
	struct bound *unsettled;
	const struct frame *handed; /* to Python, until `next` is called again */
	uint64_t bindings;
	_Atomic uint64_t copied;
	_Atomic double heard; /* CLOCK_MONOTONIC seconds of the last bytes from the primary */
	pthread_mutex_t jobs_lock;
	pthread_cond_t jobs_changed;
	struct fsync_job *jobs, **last_job;
	bool closed;
} Applier;

static struct bound **place_of(Applier *a, uint64_t node)
{
	struct bound **at = &a->table[node % BUCKETS];

	while (*at && (*at)->node != node)
		at = &(*at)->next;
	return at;
}

/* Give the files the times that they have on the primary. */
static void settle(Applier *a)
{
	while (a->unsettled) {
		struct bound *b = a->unsettled;
		struct timespec times[2] = { { 0, UTIME_OMIT },
					     { b->mtime_ns / 1000000000,
					       b->mtime_ns % 1000000000 } };

		if (times[1].tv_nsec < 0) {
			times[1].tv_sec--;
			times[1].tv_nsec += 1000000000;
		}
		a->unsettled = b->next_unsettled;
		b->unsettled = false;
		if (b->fd >= 0)
			futimens(b->fd, times);
	}
}

static int post(Applier *a, uint16_t type, uint64_t seq, uint64_t node, const void *data,
		size_t length)
{
	struct frame head = { .length = (uint32_t)(sizeof(head) + length),
			      .type = type,
			      .seq = seq,
			      .node = node };

	return channel_send(a->channel, &head, sizeof(head), data, length, -1) ? EPIPE : 0;
}

static int acknowledge(Applier *a)
{
	if (a->acked == a->applied)
		return 0;
	a->acked = a->applied;
	return post(a, FRAME_ACK, a->applied, 0, NULL, 0);
}

static int apply_write(Applier *a, const struct write_frame *w)
{
	const char *data = (const char *)(w + 1);

	if (w->head.length < sizeof(*w))
		return EPROTO;
	size_t left = w->head.length - sizeof(*w);
	uint64_t offset = w->offset;
	if (offset > INT64_MAX - left)
		return EPROTO;
	struct bound *b = *place_of(a, w->head.node);
	if (!b || b->fd < 0)
		return a->tolerant ? 0 : ENOENT;
	while (left) {
		ssize_t n = pwrite(b->fd, data, left, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? errno : EIO;
		data += n;
		offset += (uint64_t)n;
		left -= (size_t)n;
	}
	if (w->mode && fchmod(b->fd, w->mode & 07777))
		return errno;
	if (w->head.type == FRAME_SYNCDATA)
		a->copied += w->head.length - sizeof(*w);
	if (w->mtime_ns != NO_TIME) {
		b->mtime_ns = w->mtime_ns;
		if (!b->unsettled) {
			b->unsettled = true;
			b->next_unsettled = a->unsettled;
			a->unsettled = b;
		}
	}
	return 0;
}

static int write_or_lack(Applier *a, const struct write_frame *w)
{
	int error = apply_write(a, w);

	/* What the walk has yet to remove may be what takes the room. */
	if (a->tolerant && (error == ENOSPC || error == EDQUOT)) {
		a->lacking = error;
		error = 0;
	}
	return error;
}

static int queue_fsync(Applier *a, const struct frame *f)
{
	const struct fsync_body *body = (const void *)(f + 1);
	struct bound *b = *place_of(a, f->node);
	struct fsync_job *job;

	if (f->length < sizeof(*f) + sizeof(*body))
		return EPROTO;
	if (!b || b->fd < 0)
		return a->tolerant ? post(a, FRAME_SYNCED, f->seq, f->node, NULL, 0) : ENOENT;
	job = calloc(1, sizeof(*job));
	if (!job)
		return ENOMEM;
	job->seq = f->seq;
	job->binding = b->binding;
	job->datasync = body->datasync;
	job->fd = dup(b->fd);
	if (job->fd < 0) {
		free(job);
		return errno;
	}
	settle(a);
	pthread_mutex_lock(&a->jobs_lock);
	*a->last_job = job;
	a->last_job = &job->next;
	pthread_cond_signal(&a->jobs_changed);
	pthread_mutex_unlock(&a->jobs_lock);
	return 0;
}

/* One frame of the data path. *mine becomes false for all others. */
static int apply(Applier *a, struct frame *f, bool *mine)
{
	if (f->seq) {
		if (f->seq != a->received + 1)
			return EPROTO;
		a->received = f->seq;
	} else if (f->type != FRAME_PING) {
		return EPROTO; /* a change that nobody could acknowledge */
	}
	*mine = true;
	switch (f->type) {
	case FRAME_PING:
		return 0;
	case FRAME_WRITE:
	case FRAME_SYNCDATA: {
		const struct bound *b = *place_of(a, f->node);

		if (b && b->guarded) {
			*mine = false;
			return 0;
		}
		return write_or_lack(a, (const void *)f);
	}
	case FRAME_FSYNC:
		if (f->node)
			return queue_fsync(a, f);
		/* fall through */
	default:
		*mine = false;
		return 0;
	}
}

static int fill(Applier *a, int timeout_ms)
{
	struct bytes_out *in = &a->in;
	size_t need = RECEIVE_ROOM, n = 0;

	bytes_consume(in, a->used);
	a->used = 0;
	bytes_give_back(in);
	if (in->length >= sizeof(struct frame)) {
		struct frame *f = (struct frame *)in->data;

		if (f->length > RECEIVE_ROOM)
			need = f->length;
	}
	if (in->room < need && !bytes_reserve(in, need - in->length))
		return ENOMEM;
	for (int waited = 0;;) {
		int step = a->unsettled ? SETTLE_MS : timeout_ms - waited;
		int error = channel_receive(a->channel, in->data + in->length,
					    in->room - in->length, &n, step);

		if (!error)
			break;
		if (error != EAGAIN)
			return error;
		waited += step;
		settle(a);
		if (waited >= timeout_ms)
			return ETIMEDOUT;
	}
	in->length += n;
	a->heard = monotonic_now();
	return 0;
}

static int next_frame(Applier *a, int timeout_ms, struct frame **frame)
{
	bool mine;
	int error;

	a->handed = NULL;
	a->applied = a->received; /* what was handed to Python before is done */
	for (;;) {
		while (a->in.length - a->used >= sizeof(struct frame)) {
			struct frame *f = (struct frame *)(a->in.data + a->used);

			if (f->length < sizeof(*f) || f->length > MAX_FRAME)
				return EPROTO;
			if (a->in.length - a->used < f->length)
				break;
			a->used += f->length;
			error = apply(a, f, &mine);
			if (error)
				return error;
			if (!mine) {
				settle(a);
				*frame = f;
				return 0;
			}
			a->applied = a->received;
		}
		error = acknowledge(a);
		if (!error)
			error = fill(a, timeout_ms);
		if (error)
			return error;
	}
}

static PyObject *applier_next(Applier *a, PyObject *args)
{
	struct frame *frame = NULL;
	int timeout_ms, error;

	if (!PyArg_ParseTuple(args, "i", &timeout_ms))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	error = next_frame(a, timeout_ms, &frame);
	Py_END_ALLOW_THREADS;
	if (error) {
		errno = error;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	a->handed = frame;
	return frame_object(frame);
}

static PyObject *applier_bind(Applier *a, PyObject *args)
{
	unsigned long long node;
	int fd;

	if (!PyArg_ParseTuple(args, "Ki", &node, &fd))
		return NULL;
	settle(a);
	struct bound **at = place_of(a, node);
	if (!*at) {
		*at = calloc(1, sizeof(**at));
		if (!*at)
			return PyErr_NoMemory();
		(*at)->node = node;
	} else if ((*at)->fd >= 0) {
		close((*at)->fd);
	}
	(*at)->fd = fd;
	(*at)->guarded = false;
	(*at)->binding = ++a->bindings;
	Py_RETURN_NONE;
}

/* Data for this node comes to Python first. */
static PyObject *applier_guard(Applier *a, PyObject *args)
{
	unsigned long long node;

	if (!PyArg_ParseTuple(args, "K", &node))
		return NULL;
	struct bound *b = *place_of(a, node);
	if (b)
		b->guarded = true;
	Py_RETURN_NONE;
}

/* The data of the frame that `next` returned: its file is guarded no more. Raises OSError. */
static PyObject *applier_write_released(Applier *a, PyObject *unused)
{
	const struct frame *f = a->handed;
	int error = EINVAL;

	(void)unused;
	if (f && (f->type == FRAME_WRITE || f->type == FRAME_SYNCDATA)) {
		struct bound *b = *place_of(a, f->node);

		if (b)
			b->guarded = false;
		Py_BEGIN_ALLOW_THREADS;
		error = write_or_lack(a, (const void *)f);
		Py_END_ALLOW_THREADS;
	}
	if (error) {
		errno = error;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	Py_RETURN_NONE;
}

/* The branch that was kept aside is complete: from here on all is applied here. */
static PyObject *applier_release_all(Applier *a, PyObject *unused)
{
	(void)unused;
	for (int i = 0; i < BUCKETS; i++)
		for (struct bound *b = a->table[i]; b; b = b->next)
			b->guarded = false;
	Py_RETURN_NONE;
}

static PyObject *applier_unbind(Applier *a, PyObject *args)
{
	unsigned long long node;

	if (!PyArg_ParseTuple(args, "K", &node))
		return NULL;
	settle(a);
	struct bound **at = place_of(a, node), *b = *at;
	if (b) {
		*at = b->next;
		Py_BEGIN_ALLOW_THREADS; /* the last close of a large deleted file takes time */
		if (b->fd >= 0)
			close(b->fd);
		Py_END_ALLOW_THREADS;
		free(b);
	}
	Py_RETURN_NONE;
}

/* The descriptor of a node: -1 if its path was missing, None if it is not bound. */
static PyObject *applier_fd(Applier *a, PyObject *args)
{
	unsigned long long node;

	if (!PyArg_ParseTuple(args, "K", &node))
		return NULL;
	struct bound *b = *place_of(a, node);
	if (!b)
		Py_RETURN_NONE;
	return PyLong_FromLong(b->fd);
}

static PyObject *applier_set_tolerant(Applier *a, PyObject *args)
{
	int tolerant;

	if (!PyArg_ParseTuple(args, "p", &tolerant))
		return NULL;
	a->tolerant = tolerant;
	Py_RETURN_NONE;
}

static PyObject *applier_post(Applier *a, PyObject *args)
{
	int type, error;
	unsigned long long seq, node;
	Py_buffer payload;

	if (!PyArg_ParseTuple(args, "iKKy*", &type, &seq, &node, &payload))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	error = post(a, (uint16_t)type, seq, node, payload.buf, (size_t)payload.len);
	Py_END_ALLOW_THREADS;
	PyBuffer_Release(&payload);
	if (error) {
		errno = error;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	Py_RETURN_NONE;
}

static PyObject *applier_acknowledge(Applier *a, PyObject *unused)
{
	int error;

	(void)unused;
	Py_BEGIN_ALLOW_THREADS;
	a->applied = a->received;
	error = acknowledge(a);
	Py_END_ALLOW_THREADS;
	if (error) {
		errno = error;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	Py_RETURN_NONE;
}

/*
 * Move all queued jobs for the file of `first` behind it. Each was queued after the
 * writes that it is about were applied, so one fsync from now on serves all of them.
 */
static void share(Applier *a, struct fsync_job *first)
{
	struct fsync_job **at = &a->jobs, **last = &first->next;

	while (*at) {
		struct fsync_job *job = *at;

		if (job->binding != first->binding) {
			at = &job->next;
			continue;
		}
		*at = job->next;
		first->datasync = first->datasync && job->datasync;
		*last = job;
		last = &job->next;
	}
	*last = NULL;
	a->last_job = at;
}

/* The oldest job and those that one fsync serves with it; NULL: closed. */
static struct fsync_job *take_jobs(Applier *a)
{
	struct fsync_job *job;

	pthread_mutex_lock(&a->jobs_lock);
	while (!a->jobs && !a->closed)
		pthread_cond_wait(&a->jobs_changed, &a->jobs_lock);
	job = a->jobs;
	if (job) {
		a->jobs = job->next;
		share(a, job);
	}
	pthread_mutex_unlock(&a->jobs_lock);
	return job;
}

/* Work for one thread until `close`: raises OSError for an fsync that failed. */
static PyObject *applier_fsync_work(Applier *a, PyObject *unused)
{
	struct fsync_job *job, *next;
	int error = 0;

	(void)unused;
	Py_BEGIN_ALLOW_THREADS;
	while (!error && (job = take_jobs(a))) {
		error = (job->datasync ? fdatasync(job->fd) : fsync(job->fd)) ? errno : 0;
		for (; job; job = next) {
			next = job->next;
			if (!error)
				post(a, FRAME_SYNCED, job->seq, 0, NULL, 0);
			close(job->fd);
			free(job);
		}
	}
	Py_END_ALLOW_THREADS;
	if (error) {
		errno = error;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	Py_RETURN_NONE;
}

/* End the session: wake every thread in it. Harmless to repeat. */
static PyObject *applier_close(Applier *a, PyObject *unused)
{
	(void)unused;
	channel_shut(a->channel);
	pthread_mutex_lock(&a->jobs_lock);
	a->closed = true;
	pthread_cond_broadcast(&a->jobs_changed);
	pthread_mutex_unlock(&a->jobs_lock);
	Py_RETURN_NONE;
}

static PyObject *applier_settle(Applier *a, PyObject *unused)
{
	(void)unused;
	settle(a);
	Py_RETURN_NONE;
}

static PyObject *applier_lacking(Applier *a, PyObject *unused)
{
	(void)unused;
	return PyLong_FromLong(a->lacking);
}

static PyObject *applier_heard(Applier *a, PyObject *unused)
{
	(void)unused;
	return PyFloat_FromDouble(a->heard);
}

static PyObject *applier_copied(Applier *a, PyObject *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLongLong(a->copied);
}

static void unbind_all(Applier *a)
{
	for (int i = 0; i < BUCKETS; i++) {
		struct bound *b = a->table[i], *next;

		for (; b; b = next) {
			next = b->next;
			if (b->fd >= 0)
				close(b->fd);
			free(b);
		}
		a->table[i] = NULL;
	}
	a->unsettled = NULL;
}

/* The applying thread is through: no descriptor waits for the interpreter to clean up. */
static PyObject *applier_unbind_all(Applier *a, PyObject *unused)
{
	(void)unused;
	settle(a);
	Py_BEGIN_ALLOW_THREADS;
	unbind_all(a);
	Py_END_ALLOW_THREADS;
	Py_RETURN_NONE;
}

static PyObject *applier_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	PyObject *channel;

	if (kwargs || !PyArg_ParseTuple(args, "O!", &ChannelType, &channel))
		return NULL;
	Applier *a = (Applier *)type->tp_alloc(type, 0);
	if (!a)
		return NULL;
	a->channel = channel_of(channel);
	a->last_job = &a->jobs;
	pthread_mutex_init(&a->jobs_lock, NULL);
	pthread_cond_init(&a->jobs_changed, NULL);
	return (PyObject *)a;
}

static void applier_dealloc(Applier *a)
{
	struct fsync_job *job, *next_job;

	unbind_all(a);
	for (job = a->jobs; job; job = next_job) {
		next_job = job->next;
		close(job->fd);
		free(job);
	}
	free(a->in.data);
	channel_let_go(a->channel);
	Py_TYPE(a)->tp_free((PyObject *)a);
}

#define METHOD(name, flags) { #name, (PyCFunction)(void (*)(void))applier_##name, flags, NULL }
static PyMethodDef applier_methods[] = {
	METHOD(next, METH_VARARGS),	    METHOD(bind, METH_VARARGS),
	METHOD(unbind, METH_VARARGS),	    METHOD(fd, METH_VARARGS),
	METHOD(set_tolerant, METH_VARARGS), METHOD(post, METH_VARARGS),
	METHOD(acknowledge, METH_NOARGS),   METHOD(fsync_work, METH_NOARGS),
	METHOD(close, METH_NOARGS),	    METHOD(settle, METH_NOARGS),
	METHOD(unbind_all, METH_NOARGS),    METHOD(copied, METH_NOARGS),	    METHOD(heard, METH_NOARGS),
	METHOD(lacking, METH_NOARGS),	    METHOD(guard, METH_VARARGS),
	METHOD(write_released, METH_NOARGS), METHOD(release_all, METH_NOARGS),
	{ NULL, NULL, 0, NULL },
};

PyTypeObject ApplierType = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "haoperator.replica._hotpath.Applier",
	.tp_basicsize = sizeof(Applier),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_doc = "The standby's end of one stream.",
	.tp_methods = applier_methods,
	.tp_new = applier_new,
	.tp_dealloc = (destructor)applier_dealloc,
};
