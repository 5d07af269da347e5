// SPDX-License-Identifier: Apache-2.0
// One load on one directory: `loads LOAD DIRECTORY [PEER]` prints what it did per second.
//
// The amount of work is fixed, so that every place is asked for the same. Opening what is
// needed, removing it and dropping caches are not part of the time. Every fork comes before
// the first file is opened.
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SMALL = 4096, LARGE = 1 << 20, WRITES = 16384, SHARED = 4096, SYNCED = 800, FILES = 500 };
enum { MEGABYTES = 128 };

static char block[LARGE];

// What fails takes all processes of the load with it: nobody waits for one that is gone.
static void check(int good, const char *what) {
    if (!good) {
        perror(what);
        kill(0, SIGKILL);
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int enter(const char *name, int flags) {
    int fd = open(name, flags | O_CLOEXEC, 0600);
    check(fd >= 0, name);
    return fd;
}

static void put(int fd, size_t size, off_t offset) {
    check(pwrite(fd, block, size, offset) == (ssize_t)size, "pwrite");
}

static off_t anywhere(void) {
    return random() % (MEGABYTES * (LARGE / SMALL)) * (off_t)SMALL;
}

// A fresh file a writer; all begin at once, and the time ends when the last one has written.
static double sequential(int writers, int each) {
    int told[2], go[2];
    char byte = 0, name[32];
    check(!pipe(told) && !pipe(go), "pipe");
    for (int w = 0; w < writers; w++) {
        pid_t pid = fork();
        check(pid >= 0, "fork");
        if (pid)
            continue;
        close(go[1]);
        close(told[0]);
        snprintf(name, sizeof name, "sequential%d", w);
        int fd = enter(name, O_CREAT | O_TRUNC | O_WRONLY);
        check(write(told[1], &byte, 1) == 1 && read(go[0], &byte, 1) == 0, "pipe");
        for (int n = 0; n < each; n++)
            put(fd, SMALL, n * (off_t)SMALL);
        check(write(told[1], &byte, 1) == 1, "pipe");
        close(fd);
        check(!unlink(name), "unlink");
        _exit(0);
    }
    close(told[1]);
    for (int w = 0; w < writers; w++)
        check(read(told[0], &byte, 1) == 1, "a writer");
    double start = now();
    close(go[1]);
    for (int w = 0; w < writers; w++)
        check(read(told[0], &byte, 1) == 1, "a writer");
    double seconds = now() - start;
    while (wait(NULL) > 0)
        ;
    return writers * each / seconds;
}

static double random_synced(void) {
    int fd = enter("prepared", O_WRONLY);
    double start = now();
    for (int n = 0; n < SYNCED; n++) {
        put(fd, SMALL, anywhere());
        check(!fdatasync(fd), "fdatasync");
    }
    return SYNCED / (now() - start);
}

static double large_write(const char *name) {
    int fd = enter(name, O_CREAT | O_TRUNC | O_WRONLY);
    double start = now();
    for (int n = 0; n < MEGABYTES; n++)
        put(fd, LARGE, n * (off_t)LARGE);
    check(!fsync(fd), "fsync");
    return MEGABYTES * 1.048576 / (now() - start);
}

// DONTNEED drops this mount's pages. `warm` reads what ext4 has in memory.
static double large_read(int warm) {
    int fd = enter("prepared", O_RDONLY);
    if (warm)
        while (read(fd, block, LARGE) > 0)
            ;
    else
        check(!posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), "fadvise");
    double start = now();
    for (int n = 0; n < MEGABYTES; n++)
        check(pread(fd, block, LARGE, n * (off_t)LARGE) == LARGE, "pread");
    return MEGABYTES * 1.048576 / (now() - start);
}

static double small_files(void) {
    char name[32];
    double start = now();
    for (int n = 0; n < FILES; n++) {
        snprintf(name, sizeof name, "small%d", n);
        int fd = enter(name, O_CREAT | O_EXCL | O_WRONLY);
        put(fd, SMALL, 0);
        check(!fsync(fd), "fsync");
        close(fd);
    }
    double seconds = now() - start;
    for (int n = 0; n < FILES; n++) {
        snprintf(name, sizeof name, "small%d", n);
        check(!unlink(name), "unlink");
    }
    return FILES / seconds;
}

// The least that any synchronous copy over TCP must do: write, send, the peer writes, answers.
// Synced, both sides sync at the same time, each its own copy.
static double bare(const char *peer, int synced) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof at;
    int listening = socket(AF_INET, SOCK_STREAM, 0), one = 1, count = synced ? SYNCED : WRITES;
    check(!bind(listening, (struct sockaddr *)&at, length) && !listen(listening, 1), "listen");
    check(!getsockname(listening, (struct sockaddr *)&at, &length), "getsockname");
    int flags = O_WRONLY | (synced ? 0 : O_CREAT | O_TRUNC);
    const char *name = synced ? "prepared" : "bare";
    struct { off_t offset; char data[SMALL]; } frame = {0};
    pid_t pid = fork();
    check(pid >= 0, "fork");
    int sock = pid ? socket(AF_INET, SOCK_STREAM, 0) : accept(listening, NULL, NULL);
    check(!pid || !connect(sock, (struct sockaddr *)&at, length), "connect");
    check(!setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), "TCP_NODELAY");
    check(pid || !chdir(peer), peer);
    int fd = enter(name, flags);
    double start = now();
    for (int n = 0; n < count; n++) {
        if (pid) {
            frame.offset = synced ? anywhere() : n * (off_t)SMALL;
            put(fd, SMALL, frame.offset);
            check(send(sock, &frame, sizeof frame, 0) == sizeof frame, "send");
        } else {
            check(recv(sock, &frame, sizeof frame, MSG_WAITALL) == sizeof frame, "recv");
            put(fd, SMALL, frame.offset);
        }
        check(!synced || !fdatasync(fd), "fdatasync");
        if (pid)
            check(recv(sock, &one, 1, 0) == 1, "recv");
        else
            check(send(sock, &one, 1, 0) == 1, "send");
    }
    double rate = count / (now() - start);
    close(fd);
    check(synced || !unlink(name), "unlink");
    if (!pid)
        _exit(0);
    wait(NULL);
    return rate;
}

int main(int argc, char **argv) {
    setpgid(0, 0);
    check(argc >= 3 && !chdir(argv[2]), "loads LOAD DIRECTORY [PEER]");
    const char *load = argv[1], *peer = argc > 3 ? argv[3] : NULL;
    double rate = 0;
    memset(block, 'h', sizeof block);
    srandom(getpid());
    if (!strcmp(load, "prepare"))
        rate = large_write("prepared");
    else if (!strcmp(load, "write") && peer)
        rate = bare(peer, 0);
    else if (!strcmp(load, "write"))
        rate = sequential(1, WRITES);
    else if (!strcmp(load, "write8"))
        rate = sequential(8, SHARED);
    else if (!strcmp(load, "synced") && peer)
        rate = bare(peer, 1);
    else if (!strcmp(load, "synced"))
        rate = random_synced();
    else if (!strcmp(load, "large")) {
        rate = large_write("large");
        check(!unlink("large"), "unlink");
    } else if (!strcmp(load, "read"))
        rate = large_read(0);
    else if (!strcmp(load, "read-warm"))
        rate = large_read(1);
    else if (!strcmp(load, "files"))
        rate = small_files();
    else
        check(0, "no such load");
    printf("%.3f\n", rate);
}
