/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How TLS is spoken on the replication link: version 1.3 alone, no certificates, both
 * sides proved by an external pre-shared key (RFC 8446, section 2.2), with a fresh
 * Diffie-Hellman exchange each time (psk_dhe_ke), so that whoever learns the key later
 * cannot read what was recorded before. No tickets, no resumption, no early data, and
 * nothing of it depends on /etc/ssl/openssl.cnf.
 *
 * Both nodes hold the same key and both listen, so a connection could be led back to its
 * own sender (RFC 9257, section 4.1): the greeting inside says which node speaks, and a
 * node that hears itself hangs up (handshake.py).
 */
#include "channel.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

#define IDENTITY "haoperator"
#define CIPHER "TLS_AES_128_GCM_SHA256" /* an external key belongs to one hash: SHA-256 */
static const unsigned char CIPHER_NUMBER[] = { 0x13, 0x01 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static SSL_CTX *context;
static BIO_METHOD *method;

/* OpenSSL writes: kept for whoever sends. */
static int buffer_write(BIO *bio, const char *data, int length)
{
	struct channel *c = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (length < 0 || !bytes_reserve(&c->sealed, (size_t)length))
		return -1;
	memcpy(c->sealed.data + c->sealed.length, data, (size_t)length);
	c->sealed.length += (size_t)length;
	return length;
}

/* OpenSSL reads: what has arrived, or "try again". */
static int buffer_read(BIO *bio, char *data, int room)
{
	struct channel *c = BIO_get_data(bio);
	size_t length = c->arrived_length - c->arrived_at;

	BIO_clear_retry_flags(bio);
	if (!length) {
		BIO_set_retry_read(bio);
		return -1;
	}
	if (length > (size_t)room)
		length = (size_t)room;
	memcpy(data, c->arrived + c->arrived_at, length);
	c->arrived_at += length;
	return (int)length;
}

static long buffer_control(BIO *bio, int command, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH;
}

/* The key as OpenSSL wants it: a session that was never had. */
static SSL_SESSION *session_of(SSL *ssl)
{
	const struct channel *c = SSL_get_app_data(ssl);
	const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, CIPHER_NUMBER);
	SSL_SESSION *session = SSL_SESSION_new();

	if (session && cipher && SSL_SESSION_set1_master_key(session, c->psk, PSK_BYTES) &&
	    SSL_SESSION_set_cipher(session, cipher) &&
	    SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
		return session;
	SSL_SESSION_free(session);
	return NULL;
}

static int show_key(SSL *ssl, const EVP_MD *hash, const unsigned char **identity, size_t *length,
		    SSL_SESSION **session)
{
	*session = NULL;
	if (hash && !EVP_MD_is_a(hash, "SHA256"))
		return 1;
	*session = session_of(ssl);
	*identity = (const unsigned char *)IDENTITY;
	*length = strlen(IDENTITY);
	return *session != NULL;
}

/* Without a session, the handshake goes on without the key and fails: no certificates. */
static int find_key(SSL *ssl, const unsigned char *identity, size_t length, SSL_SESSION **session)
{
	*session = NULL;
	if (length != strlen(IDENTITY) || memcmp(identity, IDENTITY, length))
		return 1;
	*session = session_of(ssl);
	return *session != NULL;
}

static bool prepare_context(SSL_CTX *ctx)
{
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_psk_use_session_callback(ctx, show_key);
	SSL_CTX_set_psk_find_session_callback(ctx, find_key);
	return SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) &&
	       SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) &&
	       SSL_CTX_set_ciphersuites(ctx, CIPHER) && SSL_CTX_set_num_tickets(ctx, 0) &&
	       SSL_CTX_set_max_early_data(ctx, 0);
}

static void prepare(void)
{
	SSL_CTX *ctx = NULL;

	/* No cleaning up at the exit: threads may be in here until the very end. */
	if (OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL))
		ctx = SSL_CTX_new(TLS_method());
	method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "channel");
	if (!ctx || !method || !BIO_meth_set_write(method, buffer_write) ||
	    !BIO_meth_set_read(method, buffer_read) ||
	    !BIO_meth_set_ctrl(method, buffer_control) || !prepare_context(ctx)) {
		SSL_CTX_free(ctx);
		return;
	}
	context = ctx;
}

/* A fresh TLS connection for the channel, before its handshake. */
bool tls_begin(struct channel *c)
{
	BIO *bio;

	pthread_once(&once, prepare);
	if (!context || !(bio = BIO_new(method)))
		return false;
	BIO_set_data(bio, c);
	BIO_set_init(bio, 1);
	c->ssl = SSL_new(context);
	if (!c->ssl) {
		BIO_free(bio);
		return false;
	}
	SSL_set_bio(c->ssl, bio, bio);
	if (!SSL_set_app_data(c->ssl, c))
		return false;
	if (c->server) {
		SSL_set_accept_state(c->ssl);
	} else {
		SSL_set_connect_state(c->ssl);
		/* Nothing is trusted: a server that shows a certificate instead is refused. */
		SSL_set_verify(c->ssl, SSL_VERIFY_PEER, NULL);
	}
	return true;
}

/* The finished handshake rests on the key and on nothing else. */
bool tls_proved(const struct channel *c)
{
	return SSL_session_reused(c->ssl) && SSL_version(c->ssl) == TLS1_3_VERSION;
}

static bool tells_of_another_key(const struct channel *c, int reason)
{
	switch (reason) {
	case SSL_R_BINDER_DOES_NOT_VERIFY: /* a client with another key */
	case SSL_R_SSLV3_ALERT_ILLEGAL_PARAMETER: /* that, as the server tells the client */
	case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
	case SSL_R_TLSV1_ALERT_UNKNOWN_PSK_IDENTITY:
	case SSL_R_DIGEST_CHECK_FAILED:
		return true;
	/* A server that only pretends to have the key, or does without it. */
	case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		return !c->server;
	/* A client without any. */
	case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
	case SSL_R_NO_SHARED_CIPHER:
	case SSL_R_NO_CERTIFICATE_SET:
		return c->server;
	}
	return false;
}

/* Why OpenSSL refused, in this thread: an errno and words. */
int tls_failure(const struct channel *c, char *text, size_t room)
{
	unsigned long error = ERR_peek_error();
	const char *reason = ERR_reason_error_string(error);

	if (ERR_GET_LIB(error) == ERR_LIB_SSL && tells_of_another_key(c, ERR_GET_REASON(error))) {
		snprintf(text, room, "the peer does not hold our cluster.key");
		return EKEYREJECTED;
	}
	snprintf(text, room, "not a replicator: %s", reason ? reason : "no TLS 1.3");
	return EPROTO;
}
