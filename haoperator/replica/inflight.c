/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of requests in flight; inflight.h says what it is for.
 *
 * There is one in a process, as there is one descriptor store. An entry belongs to a request
 * until that is answered; a buffer belongs to the thread that reads into it, and stays with
 * the entry if the thread goes on to its next request before this one is answered or carried
 * out. An entry is not used again while its thread is still at it (`pinned`).
 *
 * Locks: a bucket's lock and the pool's are the innermost ones, and never held together.
 */
#include "inflight.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u
#define BUCKETS 256u
#define ENTRIES_AT PAGE
#define BUFFERS_AT (ENTRIES_AT + TABLE_ENTRIES * sizeof(struct entry))
#define TABLE_SIZE (BUFFERS_AT + (size_t)TABLE_BUFFERS * REQUEST_ROOM)
#define SMALL_BUFFER (64u * 1024) /* what a free buffer may always keep */
#define USUAL_REQUEST (132u * 1024) /* the memory for it is there from the start */
#define FOREIGN UINT32_MAX /* filled by a former process: not mapped here */
#define KEEP_FREE (24u * 1024 * 1024) /* what the others keep together */

_Static_assert(sizeof(struct entry) == 256, "part of the layout: change TABLE_VERSION");
_Static_assert(sizeof(struct table_head) <= PAGE, "one page");
_Static_assert(BUFFERS_AT % PAGE == 0 && REQUEST_ROOM % PAGE == 0, "buffers are whole pages");

/* What this process knows of an entry: that with the same number. */
struct flight {
	_Alignas(64) struct flight *next; /* in its bucket, the pool, or among those left behind */
	int fuse_fd;
	uint64_t unique; /* without RESENT */
	bool pinned; /* the thread that read it is at it */
	bool over; /* answered; together with `pinned` only */
};

struct bucket {
	pthread_mutex_t lock;
	struct flight *first;
};

static struct table_head *table; /* NULL: nothing is kept */
static struct entry *entries;
static char *buffers;
static struct flight flights[TABLE_ENTRIES];
static struct bucket buckets[BUCKETS];
static uint32_t touched[TABLE_BUFFERS]; /* bytes of each that are mapped here, or FOREIGN */

static struct {
	pthread_mutex_t lock;
	struct flight *flights;
	uint32_t buffers[TABLE_BUFFERS];
	uint32_t count;
	size_t touched; /* in all free buffers together */
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct flight *left_behind; /* by a former process, and not adopted yet */
static struct flight *to_replay;
static _Atomic unsigned long unkept;

/* What the calling thread reads into. */
static __thread struct flight *own_flight;
static __thread uint32_t own_buffer = NO_BUFFER;

static struct entry *entry_of(const struct flight *f)
{
	return &entries[f - flights];
}

static char *buffer_at(uint32_t number)
{
	return buffers + (size_t)number * REQUEST_ROOM;
}

static enum flight_state state_of(const struct flight *f)
{
	return (enum flight_state)atomic_load_explicit(&entry_of(f)->state, memory_order_acquire);
}

static void set_state(const struct flight *f, enum flight_state state)
{
	atomic_store_explicit(&entry_of(f)->state, (uint32_t)state, memory_order_release);
}

static struct bucket *bucket_of(uint64_t unique)
{
	return &buckets[(unique >> 1) % BUCKETS]; /* the kernel counts by two; RESENT is no matter */
}

/* Whether it is what the calling thread read last, and not answered yet. */
static bool is_own(int fuse_fd, uint64_t unique)
{
	const struct flight *f = own_flight;

	return f && f->unique == unique && f->fuse_fd == fuse_fd && state_of(f) > FLIGHT_READING;
}

static void give_flight(struct flight *f)
{
	pthread_mutex_lock(&pool.lock);
	f->next = pool.flights;
	pool.flights = f;
	pthread_mutex_unlock(&pool.lock);
}

static struct flight *take_flight(void)
{
	pthread_mutex_lock(&pool.lock);
	struct flight *f = pool.flights;
	if (f)
		pool.flights = f->next;
	pthread_mutex_unlock(&pool.lock);
	return f;
}

static void give_back_memory(uint32_t number)
{
	madvise(buffer_at(number), REQUEST_ROOM, MADV_REMOVE);
	touched[number] = 0;
}

static void give_buffer(uint32_t number)
{
	if (touched[number] > SMALL_BUFFER) {
		pthread_mutex_lock(&pool.lock);
		bool enough = pool.touched + (size_t)touched[number] > KEEP_FREE;
		pthread_mutex_unlock(&pool.lock);
		if (enough)
			give_back_memory(number);
	}
	pthread_mutex_lock(&pool.lock);
	pool.touched += touched[number];
	pool.buffers[pool.count++] = number;
	pthread_mutex_unlock(&pool.lock);
}

/* The one that was given last: its memory is there, and in the processor's cache. */
static uint32_t take_buffer(void)
{
	uint32_t number = NO_BUFFER;

	pthread_mutex_lock(&pool.lock);
	if (pool.count) {
		number = pool.buffers[--pool.count];
		pool.touched -= touched[number];
	}
	pthread_mutex_unlock(&pool.lock);
	return number;
}

/*
 * Have the memory before the kernel copies a request into it: a thread that is being killed
 * gets no page any more, the copy would fail, and the application with it.
 */
static void touch(uint32_t number)
{
	uint64_t largest = atomic_load_explicit(&table->largest, memory_order_relaxed);

	if (largest > REQUEST_ROOM)
		largest = REQUEST_ROOM;
	for (size_t at = touched[number] & ~(size_t)(PAGE - 1); at < largest; at += PAGE)
		*(volatile char *)(buffer_at(number) + at) = 0;
	if (touched[number] < largest)
		touched[number] = (uint32_t)largest;
}

/* The calling thread is through with what it read; who still waits for it keeps the buffer. */
static void settle(void)
{
	struct flight *f = own_flight;

	if (!f || state_of(f) == FLIGHT_READING)
		return;
	struct bucket *bucket = bucket_of(f->unique);
	pthread_mutex_lock(&bucket->lock);
	bool over = f->over;
	bool done = !over && state_of(f) == FLIGHT_DONE;
	f->pinned = f->over = false;
	if (done)
		entry_of(f)->buffer = NO_BUFFER;
	pthread_mutex_unlock(&bucket->lock);
	if (over)
		return; /* both are ours */
	own_flight = NULL;
	if (!done)
		own_buffer = NO_BUFFER;
}

/*
 * A buffer of REQUEST_ROOM bytes for the next request of `directory`, marked as the place
 * where it is. NULL when the table is full: what is read now does not outlive the process.
 */
char *flight_next(uint64_t directory, int fuse_fd)
{
	if (!table)
		return NULL;
	settle();
	if (own_buffer == NO_BUFFER)
		own_buffer = take_buffer();
	if (!own_flight && own_buffer != NO_BUFFER)
		own_flight = take_flight();
	if (!own_flight) {
		atomic_fetch_add_explicit(&unkept, 1, memory_order_relaxed);
		return NULL;
	}
	touch(own_buffer);
	struct fuse_in_header *head = (void *)buffer_at(own_buffer);
	head->len = 0; /* what was here before may be alive elsewhere */
	head->unique = 0;
	own_flight->fuse_fd = fuse_fd;
	own_flight->unique = 0;
	entry_of(own_flight)->buffer = own_buffer;
	entry_of(own_flight)->directory = directory;
	set_state(own_flight, FLIGHT_READING);
	return buffer_at(own_buffer);
}

static void enter_bucket(struct flight *f)
{
	struct bucket *bucket = bucket_of(f->unique);

	pthread_mutex_lock(&bucket->lock);
	f->next = bucket->first;
	bucket->first = f;
	pthread_mutex_unlock(&bucket->lock);
}

/* A request of `length` bytes is in the buffer that flight_next gave. */
void flight_arrived(size_t length)
{
	struct flight *f = own_flight;

	if (touched[own_buffer] < length)
		touched[own_buffer] = (uint32_t)length;
	if (length > atomic_load_explicit(&table->largest, memory_order_relaxed))
		atomic_store_explicit(&table->largest, length, memory_order_relaxed);
	memcpy(&entry_of(f)->head, buffer_at(own_buffer), sizeof(struct fuse_in_header));
	f->unique = entry_of(f)->head.unique;
	f->pinned = true;
	set_state(f, FLIGHT_TAKEN);
	enter_bucket(f);
}

/* The calling thread will read no more. */
void flight_leave(void)
{
	if (!table)
		return;
	settle();
	if (own_flight) {
		set_state(own_flight, FLIGHT_NONE);
		give_flight(own_flight);
	}
	if (own_buffer != NO_BUFFER)
		give_buffer(own_buffer);
	own_flight = NULL;
	own_buffer = NO_BUFFER;
}

/*
 * MAX_DATA bytes for the answer to what the calling thread read, behind the request, which a
 * restart needs; flight_filled says how many were used. NULL: it is not in the table.
 */
char *flight_scratch(int fuse_fd, uint64_t unique)
{
	return is_own(fuse_fd, unique & ~RESENT) ? buffer_at(own_buffer) + PAGE : NULL;
}

void flight_filled(size_t length)
{
	if (touched[own_buffer] < PAGE + length)
		touched[own_buffer] = (uint32_t)(PAGE + length);
}

static struct flight **place_of(struct bucket *bucket, int fuse_fd, uint64_t unique)
{
	struct flight **at = &bucket->first;

	while (*at && ((*at)->unique != unique || (*at)->fuse_fd != fuse_fd))
		at = &(*at)->next;
	return at;
}

/*
 * Find a request, and keep what is found from being ended until `leave`. NULL: it is
 * not in the table; nothing is locked then.
 */
static struct flight *enter(int fuse_fd, uint64_t unique)
{
	if (!table)
		return NULL;
	struct bucket *bucket = bucket_of(unique);
	pthread_mutex_lock(&bucket->lock);
	struct flight *f = *place_of(bucket, fuse_fd, unique & ~RESENT);
	if (!f)
		pthread_mutex_unlock(&bucket->lock);
	return f;
}

static void leave(const struct flight *f)
{
	pthread_mutex_unlock(&bucket_of(f->unique)->lock);
}

/* The whole request; of one that was carried out, its header. */
static const struct fuse_in_header *request_of(const struct flight *f)
{
	const struct entry *entry = entry_of(f);

	return entry->buffer == NO_BUFFER ? &entry->head : (const void *)buffer_at(entry->buffer);
}

/* Copy a request of this length. False: nobody waits for it any more. */
bool flight_copy(int fuse_fd, uint64_t unique, void *request, size_t length)
{
	struct flight *f = enter(fuse_fd, unique);

	if (!f)
		return false;
	bool whole = entry_of(f)->head.len == length;
	if (whole)
		memcpy(request, request_of(f), length);
	leave(f);
	return whole;
}

bool flight_is_kept(int fuse_fd, uint64_t unique)
{
	struct flight *f = enter(fuse_fd, unique);

	if (f)
		leave(f);
	return f != NULL;
}

/* From here on it may have been carried out when the process dies. */
void flight_begun(int fuse_fd, uint64_t unique)
{
	bool own = is_own(fuse_fd, unique & ~RESENT); /* then nobody else can end it */
	struct flight *f = own ? own_flight : enter(fuse_fd, unique);

	if (f && state_of(f) == FLIGHT_TAKEN)
		set_state(f, FLIGHT_BEGUN);
	if (f && !own)
		leave(f);
}

/*
 * It was carried out. Called under the lock that orders changes of the same thing: what
 * comes later finds it marked, so that a restart does not carry it out over that.
 */
void flight_done(int fuse_fd, uint64_t unique, int error, const void *answer, size_t length)
{
	bool own = is_own(fuse_fd, unique & ~RESENT);
	struct flight *f = own ? own_flight : enter(fuse_fd, unique);
	uint32_t buffer = NO_BUFFER;

	if (!f)
		return;
	struct entry *entry = entry_of(f);
	/* a file without a name is gone with the process: made again */
	if (state_of(f) == FLIGHT_BEGUN && length <= ANSWER_ROOM &&
	    entry->head.opcode != FUSE_TMPFILE) {
		entry->error = error;
		entry->answer_length = (uint32_t)length;
		if (length)
			memcpy(entry->answer, answer, length);
		set_state(f, FLIGHT_DONE);
		if (!own && !f->pinned) {
			buffer = entry->buffer;
			entry->buffer = NO_BUFFER;
		}
	}
	if (!own)
		leave(f);
	if (buffer != NO_BUFFER)
		give_buffer(buffer);
}

/* Whether a former process carried it out; `answer` is what it owed. */
bool flight_owes(int fuse_fd, uint64_t unique, struct entry *answer)
{
	struct flight *f = unique & RESENT ? enter(fuse_fd, unique) : NULL;

	if (!f)
		return false;
	bool done = state_of(f) == FLIGHT_DONE;
	if (done)
		memcpy(answer, (const void *)entry_of(f), sizeof(*answer));
	leave(f);
	return done;
}

static void end(struct flight *f)
{
	uint32_t buffer = entry_of(f)->buffer;

	set_state(f, FLIGHT_NONE);
	if (buffer != NO_BUFFER)
		give_buffer(buffer);
	give_flight(f);
}

/* Nobody waits for it any more. */
void flight_over(int fuse_fd, uint64_t unique)
{
	if (!table)
		return;
	struct bucket *bucket = bucket_of(unique);
	pthread_mutex_lock(&bucket->lock);
	struct flight **at = place_of(bucket, fuse_fd, unique & ~RESENT), *f = *at;
	if (f)
		*at = f->next;
	bool pinned = f && f->pinned;
	if (pinned) {
		f->over = true;
		set_state(f, FLIGHT_NONE);
	}
	pthread_mutex_unlock(&bucket->lock);
	if (f && !pinned)
		end(f);
}

/* The directory was unmounted; its threads have left. */
void flights_forget(int fuse_fd)
{
	struct flight *gone = NULL, *next;

	for (unsigned i = 0; table && i < BUCKETS; i++) {
		pthread_mutex_lock(&buckets[i].lock);
		for (struct flight **at = &buckets[i].first; *at;) {
			struct flight *f = *at;

			if (f->fuse_fd != fuse_fd) {
				at = &f->next;
				continue;
			}
			*at = f->next;
			f->next = gone;
			gone = f;
		}
		pthread_mutex_unlock(&buckets[i].lock);
	}
	for (; gone; gone = next) {
		next = gone->next;
		end(gone);
	}
}

/* How many requests did not find room in the table. */
unsigned long flights_unkept(void)
{
	return atomic_load_explicit(&unkept, memory_order_relaxed);
}

static bool is_ours(const struct table_head *head)
{
	return !memcmp(head->magic, TABLE_MAGIC, sizeof(head->magic)) &&
	       head->version == TABLE_VERSION && head->entry_size == sizeof(struct entry) &&
	       head->entries == TABLE_ENTRIES && head->buffers == TABLE_BUFFERS &&
	       head->entries_at == ENTRIES_AT && head->buffers_at == BUFFERS_AT &&
	       head->buffer_room == REQUEST_ROOM;
}

/* Entries and buffers that are in use belong to what is left behind, the others are free. */
static void take_up(bool used)
{
	static bool taken[TABLE_BUFFERS];

	for (uint32_t i = TABLE_ENTRIES; i-- > 0;) {
		struct flight *f = &flights[i];
		bool left = used && state_of(f) != FLIGHT_NONE;
		uint32_t *buffer = &entries[i].buffer;

		if (left && state_of(f) != FLIGHT_DONE && *buffer < TABLE_BUFFERS &&
		    !taken[*buffer]) {
			taken[*buffer] = true;
			touched[*buffer] = FOREIGN;
		} else if (left) {
			*buffer = NO_BUFFER;
		}
		struct flight **list = left ? &left_behind : &pool.flights;
		f->next = *list;
		*list = f;
	}
	for (uint32_t i = TABLE_BUFFERS; i-- > 0;) {
		if (taken[i])
			continue;
		if (used)
			give_back_memory(i);
		pool.buffers[pool.count++] = i;
	}
}

/*
 * Use this memfd, an empty one or that of a former process. False: it is neither, or there
 * is no memory. Called once, before anything is served.
 */
bool flights_open(int memfd)
{
	struct stat st;

	if (table || fstat(memfd, &st))
		return false;
	bool used = st.st_size != 0;
	if (used ? (size_t)st.st_size != TABLE_SIZE : ftruncate(memfd, (off_t)TABLE_SIZE) != 0)
		return false;
	char *mapped = mmap(NULL, TABLE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (mapped == MAP_FAILED)
		return false;
	struct table_head *head = (void *)mapped;
	if (used && !is_ours(head)) {
		munmap(mapped, TABLE_SIZE);
		return false;
	}
	*head = (struct table_head){ .magic = TABLE_MAGIC,
				     .version = TABLE_VERSION,
				     .entry_size = sizeof(struct entry),
				     .entries = TABLE_ENTRIES,
				     .buffers = TABLE_BUFFERS,
				     .entries_at = ENTRIES_AT,
				     .buffers_at = BUFFERS_AT,
				     .buffer_room = REQUEST_ROOM,
				     .largest = used ? head->largest : USUAL_REQUEST };
	entries = (void *)(mapped + ENTRIES_AT);
	buffers = mapped + BUFFERS_AT;
	for (unsigned i = 0; i < BUCKETS; i++)
		pthread_mutex_init(&buckets[i].lock, NULL);
	table = head;
	take_up(used);
	return true;
}

/*
 * Whether the kernel waits for an answer with this `unique`: it takes the acknowledgement of
 * an interrupt (the lowest bit) for those only, and does nothing else with it.
 */
static bool is_awaited(int fuse_fd, uint64_t unique)
{
	struct fuse_out_header probe = { .len = sizeof(probe), .unique = unique | 1 };
	ssize_t n;

	do
		n = write(fuse_fd, &probe, sizeof(probe));
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(probe);
}

/* Bring an entry of a former process into a state to go on from; false if it is void. */
static bool revive(struct flight *f, int fuse_fd)
{
	struct entry *entry = entry_of(f);
	enum flight_state state = state_of(f);
	struct fuse_in_header *whole =
		entry->buffer == NO_BUFFER ? NULL : (void *)buffer_at(entry->buffer);

	if (state != FLIGHT_DONE) {
		if (!whole || whole->len < sizeof(*whole) || whole->len > REQUEST_ROOM)
			return false;
		entry->head = *whole;
	}
	bool forgets = entry->head.opcode == FUSE_FORGET ||
		       entry->head.opcode == FUSE_BATCH_FORGET;
	f->unique = entry->head.unique & ~RESENT;
	f->fuse_fd = fuse_fd;
	if (forgets ? state == FLIGHT_READING : !is_awaited(fuse_fd, f->unique))
		return false;
	if (state == FLIGHT_DONE) {
		entry->head.len = sizeof(entry->head);
		if (entry->answer_length > ANSWER_ROOM)
			return false;
	}
	if (state >= FLIGHT_BEGUN)
		entry->head.unique |= RESENT;
	if (whole)
		whole->unique = entry->head.unique;
	if (state == FLIGHT_READING)
		set_state(f, FLIGHT_TAKEN);
	return true;
}

/* In which turn it is served again: what is forgotten first, interrupts last. */
static int turn(const struct flight *f)
{
	switch (entry_of(f)->head.opcode) {
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		return 0;
	case FUSE_INTERRUPT:
		return 2;
	default:
		return 1;
	}
}

/*
 * Take up what a former process left of this directory. Returns how many requests wait to
 * be served again. Nobody may serve the directory yet; one thread does this for all.
 */
size_t flights_adopt(uint64_t directory, int fuse_fd)
{
	struct flight *rest = NULL, *turns[3] = { NULL, NULL, NULL }, *next;
	size_t count = 0;

	for (struct flight *f = left_behind; f; f = next) {
		next = f->next;
		if (entry_of(f)->directory != directory) {
			f->next = rest;
			rest = f;
		} else if (!revive(f, fuse_fd)) {
			end(f);
		} else {
			f->next = turns[turn(f)];
			turns[turn(f)] = f;
			count++;
		}
	}
	left_behind = rest;
	for (int i = 2; i >= 0; i--)
		for (struct flight *f = turns[i]; f; f = next) {
			next = f->next;
			f->next = to_replay;
			to_replay = f;
		}
	return count;
}

/* The next one of those to be served, NULL: there are no more. Valid until it is served. */
const struct fuse_in_header *flights_next_left(int fuse_fd)
{
	struct flight **at = &to_replay;

	while (*at && (*at)->fuse_fd != fuse_fd)
		at = &(*at)->next;
	struct flight *f = *at;
	if (!f)
		return NULL;
	*at = f->next;
	enter_bucket(f);
	return request_of(f);
}

/* Whatever is left now belongs to directories that are not mounted any more. */
void flights_drop_left(void)
{
	while (left_behind) {
		struct flight *f = left_behind;

		left_behind = f->next;
		end(f);
	}
}
