/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The primary's end of the stream: frames out, acknowledgements in.
 *
 * A caller appends its frame while it holds the lock that ordered its change (node lock
 * or namespace mutex), and with it the answer that FUSE gets when the peer has applied
 * the frame. Nobody waits in a thread: the receiving thread writes the answers. Sending
 * is combined: the first caller to come sends for all that come meanwhile.
 *
 * Lock order: namespace mutex, node lock, stream lock. No system call is made under the
 * stream lock, but for the shutdown of a socket.
 */
#include "hotpath.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KEEP_ROOM (256u * 1024) /* buffers above this are given back when they run empty */
#define RECEIVE_ROOM (64u * 1024)

int stream_init(struct stream *s)
{
	pthread_condattr_t monotonic;

	memset(s, 0, sizeof(*s));
	s->next_seq = 1;
	if (pthread_condattr_init(&monotonic) ||
	    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) ||
	    pthread_cond_init(&s->changed, &monotonic))
		return -1;
	return pthread_mutex_init(&s->lock, NULL);
}

void stream_destroy(struct stream *s)
{
	free(s->out.data);
	free(s->on_the_way.data);
	free(s->in.data);
	free(s->ring);
}

/* Room for `more` bytes behind what is there; false without memory. */
bool bytes_reserve(struct bytes_out *b, size_t more)
{
	size_t room = b->room ? b->room : 16 * 1024;
	char *data;

	if (b->length + more <= b->room)
		return true;
	while (room < b->length + more)
		room *= 2;
	data = realloc(b->data, room);
	if (!data)
		return false;
	b->data = data;
	b->room = room;
	return true;
}

/* The first `used` bytes are done with: what follows moves to the front. */
void bytes_consume(struct bytes_out *b, size_t used)
{
	if (used && used < b->length)
		memmove(b->data, b->data + used, b->length - used);
	b->length -= used;
}

/* An empty large buffer is not kept. */
void bytes_give_back(struct bytes_out *b)
{
	if (b->length == 0 && b->room > KEEP_ROOM) {
		free(b->data);
		memset(b, 0, sizeof(*b));
	}
}

static bool push_pending(struct stream *s, const struct pending *p)
{
	if (s->ring_count == s->ring_size) {
		size_t size = s->ring_size ? s->ring_size * 2 : 64;
		struct pending *ring = malloc(size * sizeof(*ring));

		if (!ring)
			return false;
		for (size_t i = 0; i < s->ring_count; i++)
			ring[i] = s->ring[(s->ring_head + i) % s->ring_size];
		free(s->ring);
		s->ring = ring;
		s->ring_size = size;
		s->ring_head = 0;
	}
	s->ring[(s->ring_head + s->ring_count++) % s->ring_size] = *p;
	return true;
}

static void answer_pending(struct pending *p, int error)
{
	if (p->fuse_fd >= 0) {
		if (error)
			fuse_answer(p->fuse_fd, p->unique, error, NULL, 0);
		else
			fuse_answer(p->fuse_fd, p->unique, 0, p->large ? p->large : p->small,
				    p->length);
	}
	free(p->large);
}

/* Lost for this stream: whoever waits is decided on by `stream_release`. */
static void break_locked(struct stream *s)
{
	s->broken = true;
	if (s->channel)
		channel_shut(s->channel);
	pthread_cond_broadcast(&s->changed);
}

static void append(struct stream *s, struct frame *head, size_t head_length, const void *data,
		   size_t data_length)
{
	head->length = (uint32_t)(head_length + data_length);
	if (s->broken)
		return;
	if (!bytes_reserve(&s->out, head_length + data_length)) {
		break_locked(s); /* without memory the peer cannot be kept up to date */
		return;
	}
	memcpy(s->out.data + s->out.length, head, head_length);
	if (data_length)
		memcpy(s->out.data + s->out.length + head_length, data, data_length);
	s->out.length += head_length + data_length;
}

/*
 * Append one frame, and the answer to give once the peer has it. Returns its seq, or 0
 * when there is no stream: then the answer has been given. An `epoch` other than 0 says
 * which stream the frame is meant for; another one does not get it.
 */
uint64_t stream_submit(struct stream *s, uint64_t epoch, struct frame *head, size_t head_length,
		       const void *data, size_t data_length, int fuse_fd, uint64_t unique,
		       const void *answer, size_t answer_length)
{
	struct pending p = { .unique = unique, .fuse_fd = fuse_fd, .since = monotonic_now() };
	uint64_t seq = 0;
	bool kept = true;
	int error = 0;

	if (fuse_fd >= 0)
		flight_done(fuse_fd, unique, 0, answer, answer_length);
	p.length = (uint32_t)answer_length;
	if (answer_length > sizeof(p.small)) {
		p.large = malloc(answer_length);
		kept = p.large != NULL;
		if (kept)
			memcpy(p.large, answer, answer_length);
	} else if (answer_length) {
		memcpy(p.small, answer, answer_length);
	}
	pthread_mutex_lock(&s->lock);
	if (s->attached && (!epoch || epoch == s->epoch)) {
		head->seq = s->next_seq++;
		append(s, head, head_length, data, data_length);
		seq = p.seq = head->seq;
		if (fuse_fd >= 0 && !(kept && push_pending(s, &p))) {
			break_locked(s);
			seq = 0;
			error = ENOMEM; /* nobody would tell when the peer has it */
		}
	}
	pthread_mutex_unlock(&s->lock);
	if (!seq && fuse_fd >= 0)
		fuse_answer(fuse_fd, unique, error, answer, error ? 0 : answer_length);
	if (!seq || fuse_fd < 0)
		free(p.large);
	return seq;
}

/* As stream_submit, for an fsync: answered when it is done here and there. */
uint64_t stream_submit_fsync(struct stream *s, struct frame *head, const void *data,
			     size_t data_length, struct fsync_pending *entry)
{
	uint64_t seq = 0;

	pthread_mutex_lock(&s->lock);
	if (s->attached) {
		head->seq = s->next_seq++;
		append(s, head, sizeof(*head), data, data_length);
		seq = entry->seq = head->seq;
		entry->next = s->fsyncs;
		s->fsyncs = entry;
	}
	pthread_mutex_unlock(&s->lock);
	return seq;
}

/* A frame without seq and answer: a sign of life. */
void stream_post(struct stream *s, struct frame *head)
{
	pthread_mutex_lock(&s->lock);
	if (s->attached)
		append(s, head, sizeof(*head), NULL, 0);
	pthread_mutex_unlock(&s->lock);
}

static void unlink_fsync(struct stream *s, struct fsync_pending *entry)
{
	struct fsync_pending **at = &s->fsyncs;

	while (*at && *at != entry)
		at = &(*at)->next;
	if (*at)
		*at = entry->next;
}

static void answer_fsync(struct fsync_pending *entry, int error)
{
	if (entry->fuse_fd >= 0)
		fuse_answer(entry->fuse_fd, entry->unique, error, NULL, 0);
	free(entry);
}

void stream_fsync_local_done(struct stream *s, struct fsync_pending *entry, int result)
{
	pthread_mutex_lock(&s->lock);
	entry->local_done = true;
	entry->result = result;
	/* A failed one is answered at once; the peer's acknowledgement then finds nobody. */
	bool done = entry->peer_done || result;
	if (done)
		unlink_fsync(s, entry);
	pthread_mutex_unlock(&s->lock);
	if (done)
		answer_fsync(entry, result ? result : entry->error);
}

static void fsync_peer_done(struct stream *s, uint64_t seq)
{
	struct fsync_pending *entry;
	bool done = false;

	pthread_mutex_lock(&s->lock);
	for (entry = s->fsyncs; entry && entry->seq != seq; entry = entry->next)
		;
	if (entry) {
		entry->peer_done = true;
		done = entry->local_done;
		if (done)
			unlink_fsync(s, entry);
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
	if (done)
		answer_fsync(entry, entry->result);
}

static bool awaits_sync(const struct stream *s, uint64_t seq)
{
	for (const struct fsync_pending *entry = s->fsyncs; entry; entry = entry->next)
		if ((!seq || entry->seq == seq) && !entry->peer_done)
			return true;
	return false;
}

/* Wait until the peer has this FSYNC on disk, 0: all of them. False: broken, or too late. */
bool stream_wait_synced(struct stream *s, uint64_t seq, int timeout_ms)
{
	struct timespec until;
	int error = 0;

	deadline_in(&until, timeout_ms);
	pthread_mutex_lock(&s->lock);
	while (awaits_sync(s, seq) && !s->broken && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&s->changed, &s->lock, &until);
	bool synced = s->attached && !awaits_sync(s, seq);
	pthread_mutex_unlock(&s->lock);
	return synced;
}

/* Send what has been appended, unless another thread is at it: it takes ours along. */
void stream_flush(struct stream *s)
{
	pthread_mutex_lock(&s->lock);
	if (s->sending || !s->attached) {
		pthread_mutex_unlock(&s->lock);
		return;
	}
	s->sending = true;
	while (s->out.length && !s->broken) {
		struct bytes_out swap = s->out;
		struct channel *channel = s->channel;

		s->out = s->on_the_way;
		s->on_the_way = swap;
		pthread_mutex_unlock(&s->lock);
		bool sent = !channel_send(channel, s->on_the_way.data, s->on_the_way.length, NULL,
					  0, -1);
		pthread_mutex_lock(&s->lock);
		if (sent)
			s->bytes_sent += s->on_the_way.length;
		else
			break_locked(s);
		s->on_the_way.length = 0;
		bytes_give_back(&s->on_the_way);
	}
	s->sending = false;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

/* Everything up to `seq` is at the peer: answer those who waited for it, in order. */
static bool acknowledge(struct stream *s, uint64_t seq)
{
	struct pending done[32];
	double now = monotonic_now();

	pthread_mutex_lock(&s->lock);
	if (seq >= s->next_seq || seq < s->acked) {
		pthread_mutex_unlock(&s->lock);
		return false; /* acknowledges what was never sent */
	}
	for (;;) {
		size_t n = 0;

		while (s->ring_count && n < 32 && s->ring[s->ring_head].seq <= seq) {
			done[n++] = s->ring[s->ring_head];
			s->answered++;
			s->waited += now - s->ring[s->ring_head].since;
			s->ring_head = (s->ring_head + 1) % s->ring_size;
			s->ring_count--;
		}
		if (n < 32) {
			s->acked = seq;
			pthread_cond_broadcast(&s->changed);
		}
		pthread_mutex_unlock(&s->lock);
		for (size_t i = 0; i < n; i++)
			answer_pending(&done[i], 0);
		if (n < 32)
			return true;
		pthread_mutex_lock(&s->lock);
	}
}

static int receive(struct stream *s, struct channel *channel, int timeout_ms,
		   struct frame **frame)
{
	struct bytes_out *in = &s->in;
	size_t n;

	for (;;) {
		while (in->length - s->in_used >= sizeof(struct frame)) {
			struct frame *f = (struct frame *)(in->data + s->in_used);

			if (f->length < sizeof(*f) || f->length > MAX_FRAME)
				return EPROTO;
			if (in->length - s->in_used < f->length)
				break;
			s->in_used += f->length;
			switch (f->type) {
			case FRAME_PING:
				break;
			case FRAME_ACK:
				if (!acknowledge(s, f->seq))
					return EPROTO;
				break;
			case FRAME_SYNCED:
				fsync_peer_done(s, f->seq);
				break;
			default:
				*frame = f;
				return 0;
			}
		}
		bytes_consume(in, s->in_used);
		s->in_used = 0;
		bytes_give_back(in);
		if (!bytes_reserve(in, RECEIVE_ROOM))
			return ENOMEM;
		int error = channel_receive(channel, in->data + in->length,
					    in->room - in->length, &n, timeout_ms);
		if (error)
			return error == EAGAIN ? ETIMEDOUT : error;
		in->length += n;
		s->heard = monotonic_now();
	}
}

/*
 * Take the peer's frames until one is not for the data path: it is in *frame then, valid
 * until the next call. Returns 0, or an errno: ETIMEDOUT when nothing at all came for
 * `timeout_ms`, EPROTO for rubbish, EBADMSG for what was changed on the way, ECONNRESET
 * at the end.
 */
int stream_receive(struct stream *s, int timeout_ms, struct frame **frame)
{
	pthread_mutex_lock(&s->lock);
	if (!s->attached || s->broken) {
		pthread_mutex_unlock(&s->lock);
		return ECONNRESET;
	}
	struct channel *channel = s->channel;
	s->receiving = true;
	pthread_mutex_unlock(&s->lock);
	int error = receive(s, channel, timeout_ms, frame);
	pthread_mutex_lock(&s->lock);
	s->receiving = false;
	if (error)
		break_locked(s);
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return error;
}

/* End the stream; those who wait for the peer go on waiting. */
void stream_detach(struct stream *s)
{
	pthread_mutex_lock(&s->lock);
	break_locked(s);
	while (s->sending || s->receiving)
		pthread_cond_wait(&s->changed, &s->lock);
	s->attached = false;
	struct channel *channel = s->channel;
	s->channel = NULL;
	pthread_mutex_unlock(&s->lock);
	if (channel)
		channel_let_go(channel);
}

/* Give everyone who waits for the peer his answer, or `error` instead. */
void stream_release(struct stream *s, int error)
{
	struct fsync_pending *entry, *next, *answer = NULL;
	struct pending p;

	pthread_mutex_lock(&s->lock);
	while (s->ring_count) {
		p = s->ring[s->ring_head];
		s->ring_head = (s->ring_head + 1) % s->ring_size;
		s->ring_count--;
		pthread_mutex_unlock(&s->lock);
		answer_pending(&p, error);
		pthread_mutex_lock(&s->lock);
	}
	for (entry = s->fsyncs, s->fsyncs = NULL; entry; entry = next) {
		next = entry->next;
		entry->peer_done = true;
		entry->error = error;
		if (entry->local_done) {
			entry->next = answer;
			answer = entry;
		}
	}
	pthread_mutex_unlock(&s->lock);
	for (; answer; answer = next) {
		next = answer->next;
		answer_fsync(answer, error ? error : answer->result);
	}
}

/* The directory was unmounted: its answers would go to whoever has the number next. */
void stream_forget_fuse(struct stream *s, int fuse_fd)
{
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->ring_count; i++) {
		struct pending *p = &s->ring[(s->ring_head + i) % s->ring_size];

		if (p->fuse_fd == fuse_fd)
			p->fuse_fd = -1;
	}
	for (struct fsync_pending *entry = s->fsyncs; entry; entry = entry->next)
		if (entry->fuse_fd == fuse_fd)
			entry->fuse_fd = -1;
	pthread_mutex_unlock(&s->lock);
}
