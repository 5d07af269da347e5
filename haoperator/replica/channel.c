/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel: the encrypted connection between the two replicators, as streams use it.
 *
 * An SSL object is not for two threads at a time, and one thread sends while another
 * receives. So OpenSSL never touches the socket: it turns bytes into records and back,
 * in memory and under `lock`; the system calls are made outside of it, where neither
 * direction can hold up the other. A message is sealed in pieces, with `lock` released in
 * between. Whoever wants to end the connection shuts the socket down, which wakes
 * everybody; it is closed with the last reference, or by `close` when no thread receives.
 *
 * Lock order: stream lock, `sending`, `lock`; under the stream lock, only channel_shut.
 *
 * The end of the connection is not announced (close_notify): nothing that counts depends
 * on where the stream ends, only on what was acknowledged.
 */
#include "channel.h"

#include <errno.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECORD (16u * 1024) /* what TLS carries in one */
#define PIECE (64u * 1024) /* sealed and sent in one go */
#define AWAKE_SECONDS 100e-6
#define PROMPT_SECONDS 130e-6 /* the same for a thread that had to be woken */

/* A moment `timeout_ms` from now, for `left_ms`; a negative one never comes. */
static double moment_in(int timeout_ms)
{
	return timeout_ms < 0 ? -1.0 : monotonic_now() + timeout_ms / 1000.0;
}

static int left_ms(double until)
{
	double left = until < 0 ? -1.0 : (until - monotonic_now()) * 1000.0;

	if (until < 0)
		return -1;
	return left <= 0 ? 0 : left >= INT_MAX - 1 ? INT_MAX : (int)left + 1;
}

/* Wait for the socket. Returns 0, EAGAIN when it is too late, or another errno. */
static int await(int sock, short events, double until)
{
	for (;;) {
		struct pollfd wait = { .fd = sock, .events = events };
		int ready = poll(&wait, 1, left_ms(until));

		if (ready > 0)
			return 0;
		if (ready == 0)
			return EAGAIN;
		if (errno != EINTR)
			return errno;
	}
}

static int send_all(int sock, const char *data, size_t length, double until)
{
	while (length) {
		ssize_t n = send(sock, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0) {
			data += n;
			length -= (size_t)n;
		} else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			int error = await(sock, POLLOUT, until);

			if (error)
				return error == EAGAIN ? ETIMEDOUT : error;
		} else if (n == 0 || errno != EINTR) {
			return n ? errno : EPIPE;
		}
	}
	return 0;
}

/* Send the records that OpenSSL has made. `sending` is held, or nobody else is here. */
static int drain(struct channel *c, double until)
{
	pthread_mutex_lock(&c->lock);
	struct bytes_out swap = c->sealed;
	c->sealed = c->leaving;
	c->leaving = swap;
	pthread_mutex_unlock(&c->lock);
	int error = send_all(c->sock, c->leaving.data, c->leaving.length, until);
	c->leaving.length = 0;
	bytes_give_back(&c->leaving);
	return error;
}

/* Bytes → records. Under `lock`. */
static int seal(struct channel *c, const char *data, size_t length)
{
	if (c->broken)
		return EPIPE;
	while (length) {
		size_t size = length < RECORD ? length : RECORD, written;

		if (c->records++ >= c->rekey_after) {
			c->records = 1;
			c->broken = !SSL_key_update(c->ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
		}
		/* Its output goes to memory: it never has to wait. */
		if (c->broken || !SSL_write_ex(c->ssl, data, size, &written) || written != size) {
			c->broken = true;
			return EPIPE;
		}
		data += size;
		length -= size;
	}
	return 0;
}

static int put(struct channel *c, const char *data, size_t length, double until)
{
	int error = 0;

	while (length && !error) {
		size_t size = length < PIECE ? length : PIECE;

		pthread_mutex_lock(&c->lock);
		error = seal(c, data, size);
		bool full = c->sealed.length >= PIECE;
		pthread_mutex_unlock(&c->lock);
		if (!error && full)
			error = drain(c, until);
		data += size;
		length -= size;
	}
	return error;
}

/*
 * Send one message of two parts; concurrent ones follow each other. Returns 0 or an
 * errno; after one, the connection is of no use any more. A negative timeout: none but
 * the socket's own.
 */
int channel_send(struct channel *c, const void *head, size_t head_length, const void *data,
		 size_t data_length, int timeout_ms)
{
	double until = moment_in(timeout_ms);

	pthread_mutex_lock(&c->sending);
	int error = put(c, head, head_length, until);
	if (!error)
		error = put(c, data, data_length, until);
	if (!error)
		error = drain(c, until);
	pthread_mutex_unlock(&c->sending);
	return error;
}

/*
 * Take in what the socket has. OpenSSL must have taken all that was there.
 *
 * To sleep until the next bytes and to be woken costs several times what their way costs.
 * So while they come in quick succession the thread stays awake for the next ones, and gives
 * its processor to whoever else wants it; once they are late, it sleeps again.
 */
static int take_in(struct channel *c, double until)
{
	double since = monotonic_now();
	bool awake = c->prompt;
	int error = 0;

	while (!error) {
		/* What is there has been taken: nobody looks at the buffer now. */
		ssize_t n = recv(c->sock, c->arrived, ARRIVED_ROOM, MSG_DONTWAIT);

		if (n > 0) {
			c->prompt = monotonic_now() - since <
				    (awake ? AWAKE_SECONDS : PROMPT_SECONDS);
			pthread_mutex_lock(&c->lock);
			c->arrived_at = 0;
			c->arrived_length = (size_t)n;
			pthread_mutex_unlock(&c->lock);
			return 0;
		}
		if (n == 0)
			return ECONNRESET;
		if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
			return errno;
		if (awake && monotonic_now() - since < AWAKE_SECONDS)
			sched_yield();
		else
			error = await(c->sock, POLLIN, until);
	}
	return error;
}

/* Something that OpenSSL was not asked about yet. Under `lock`. */
static bool has_more(const struct channel *c)
{
	return c->arrived_at < c->arrived_length || SSL_pending(c->ssl) > 0;
}

/* Records → bytes, as many as are whole. Under `lock`. *got 0: more must come first. */
static int unseal(struct channel *c, char *data, size_t room, size_t *got)
{
	size_t n;

	*got = 0;
	if (c->broken)
		return EPIPE;
	ERR_clear_error();
	while (*got < room && has_more(c)) {
		if (SSL_read_ex(c->ssl, data + *got, room - *got, &n)) {
			*got += n;
			continue;
		}
		switch (SSL_get_error(c->ssl, 0)) {
		case SSL_ERROR_WANT_READ:
			return 0;
		case SSL_ERROR_ZERO_RETURN:
			return *got ? 0 : ECONNRESET;
		default: /* not what the peer sent */
			c->broken = true;
			return EBADMSG;
		}
	}
	return 0;
}

/*
 * Receive at least one byte; one thread at a time. Returns 0, EAGAIN when nothing of the
 * peer's came for `timeout_ms`, ECONNRESET at the end, EBADMSG for what was changed on
 * the way, or another errno.
 */
int channel_receive(struct channel *c, void *data, size_t room, size_t *got, int timeout_ms)
{
	double until = moment_in(timeout_ms);

	for (;;) {
		pthread_mutex_lock(&c->lock);
		int error = unseal(c, data, room, got);
		pthread_mutex_unlock(&c->lock);
		if (error || *got)
			return error;
		error = take_in(c, until);
		if (error)
			return error;
	}
}

/* Receive exactly so much, within `timeout_ms` altogether. Otherwise as channel_receive. */
int channel_receive_all(struct channel *c, char *data, size_t size, int timeout_ms)
{
	double until = moment_in(timeout_ms);
	size_t got = 0;
	int error = 0;

	for (; size && !error; data += got, size -= got)
		error = channel_receive(c, data, size, &got, left_ms(until));
	return error;
}

/* End the connection: whoever waits for it wakes. Harmless to repeat. */
void channel_shut(struct channel *c)
{
	pthread_mutex_lock(&c->lock);
	if (c->sock >= 0)
		shutdown(c->sock, SHUT_RDWR);
	pthread_mutex_unlock(&c->lock);
}

/* As channel_shut, and give the socket back. Nobody may be receiving any more. */
void channel_close(struct channel *c)
{
	channel_shut(c);
	pthread_mutex_lock(&c->sending);
	pthread_mutex_lock(&c->lock);
	if (c->sock >= 0)
		close(c->sock);
	c->sock = -1;
	c->broken = true;
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_unlock(&c->sending);
}

struct channel *channel_hold(struct channel *c)
{
	__atomic_add_fetch(&c->references, 1, __ATOMIC_RELAXED);
	return c;
}

void channel_let_go(struct channel *c)
{
	if (__atomic_sub_fetch(&c->references, 1, __ATOMIC_ACQ_REL))
		return;
	if (c->sock >= 0)
		close(c->sock);
	SSL_free(c->ssl);
	OPENSSL_cleanse(c->psk, sizeof(c->psk));
	free(c->arrived);
	free(c->sealed.data);
	free(c->leaving.data);
	pthread_mutex_destroy(&c->sending);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/*
 * A channel before its handshake. Takes the socket over: NULL without memory, and the
 * socket is closed then.
 */
struct channel *channel_make(int sock, const void *psk, bool server, uint64_t rekey_after)
{
	struct channel *c = calloc(1, sizeof(*c));

	if (!c) {
		close(sock);
		return NULL;
	}
	c->references = 1;
	c->sock = sock;
	c->server = server;
	c->rekey_after = rekey_after;
	memcpy(c->psk, psk, PSK_BYTES);
	pthread_mutex_init(&c->sending, NULL);
	pthread_mutex_init(&c->lock, NULL);
	c->arrived = malloc(ARRIVED_ROOM);
	if (!c->arrived || !tls_begin(c)) {
		channel_let_go(c);
		return NULL;
	}
	return c;
}

/* The handshake. Returns 0, or an errno and words. Nobody else knows the channel yet. */
int channel_shake_hands(struct channel *c, int timeout_ms, char *text, size_t room)
{
	double until = moment_in(timeout_ms);
	int error = 0, done;

	do {
		ERR_clear_error();
		done = SSL_do_handshake(c->ssl);
		bool goes_on = done > 0 || SSL_get_error(c->ssl, done) == SSL_ERROR_WANT_READ;
		if (!goes_on)
			error = tls_failure(c, text, room);
		int unsent = drain(c, until); /* the reason of a failure too */
		if (!error)
			error = unsent;
		if (!error && done <= 0)
			error = take_in(c, until);
	} while (!error && done <= 0);
	if (!error && !tls_proved(c)) {
		error = EKEYREJECTED;
		snprintf(text, room, "the peer does not hold our cluster.key");
	}
	OPENSSL_cleanse(c->psk, sizeof(c->psk));
	ERR_clear_error();
	return error;
}
