/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stream's frames as the C parts see them. haoperator/replica/frames.py holds
 * the whole list with the meaning of each; a test compares the numbers of the two.
 *
 * All numbers are little-endian; the project builds for little-endian machines only,
 * so that a frame can be read in place.
 */
#ifndef HAOPERATOR_FRAMES_H
#define HAOPERATOR_FRAMES_H

#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "frames are read in place: little-endian machines only"
#endif

/* Everything larger is rubbish: the sender is cut off before it is read. */
#define MAX_FRAME (2u * 1024 * 1024)

struct frame {
	uint32_t length; /* header and payload */
	uint16_t type;
	uint16_t directory; /* place in the list that the handshake agreed on */
	uint64_t seq; /* consecutive from 1; 0 on frames that are not acknowledged */
	uint64_t node; /* the primary's node id, 0: none */
} __attribute__((packed));

/* WRITE and SYNCDATA; the bytes follow. */
struct write_frame {
	struct frame head;
	uint64_t offset;
	int64_t mtime_ns; /* resulting mtime on the primary; NO_TIME: leave it */
	uint32_t mode; /* resulting mode where set-id bits were cleared, 0: leave it */
	uint32_t reserved;
} __attribute__((packed));

struct fsync_body {
	uint32_t datasync;
	uint32_t reserved;
} __attribute__((packed));

#define NO_TIME INT64_MIN
#define TIME_NOW INT64_MAX /* for set_times: the present, by the clock of the file system */

enum frame_type {
	FRAME_PING = 1,
	FRAME_ACK = 2, /* seq: everything up to it has been applied */
	FRAME_SYNCED = 3, /* seq: this one FSYNC is on disk */
	FRAME_WRITE = 16,
	FRAME_SYNCDATA = 17,
	FRAME_FSYNC = 18,
};

#endif
