/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One TLS connection between the two replicators; see channel.c for the rules.
 */
#ifndef HAOPERATOR_CHANNEL_H
#define HAOPERATOR_CHANNEL_H

#include "hotpath.h"

#include <openssl/ssl.h>

#define PSK_BYTES 32u
#define ARRIVED_ROOM (64u * 1024)

struct channel {
	int references; /* atomic: whoever uses it without the GIL holds one */
	bool server;
	pthread_mutex_t sending; /* one message at a time; taken before `lock` */
	pthread_mutex_t lock; /* all that follows; under it, nothing that waits */
	int sock; /* -1: closed */
	SSL *ssl;
	bool broken; /* closed, or OpenSSL failed once: its state is not to be used again */
	uint64_t records, rekey_after; /* sealed with the present key; how many may be */
	struct bytes_out sealed; /* records for the socket, made by OpenSSL */
	bool prompt; /* the last bytes came soon; belongs to the receiving thread */
	char *arrived; /* what the socket brought and OpenSSL has not taken yet */
	size_t arrived_at, arrived_length;
	struct bytes_out leaving; /* on its way to the socket; belongs to `sending` */
	unsigned char psk[PSK_BYTES]; /* wiped after the handshake */
};

/* channel.c, beside what hotpath.h says */
struct channel *channel_make(int sock, const void *psk, bool server, uint64_t rekey_after);
int channel_shake_hands(struct channel *c, int timeout_ms, char *text, size_t room);
int channel_receive_all(struct channel *c, char *data, size_t size, int timeout_ms);
struct channel *channel_hold(struct channel *c);
void channel_close(struct channel *c);

/* tls.c */
bool tls_begin(struct channel *c);
bool tls_proved(const struct channel *c);
int tls_failure(const struct channel *c, char *text, size_t room);

#endif
