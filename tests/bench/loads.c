// SPDX-License-Identifier: Apache-2.0
// One load on one directory: `loads LOAD DIRECTORY [PEER]` prints what it did per second.
// With PEER it is the bare limit: a pair of processes that keeps a copy there.
//
// A run ends after a fixed amount of work or LIMIT seconds, whichever comes first. Opening
// what is needed, removing it and dropping caches are not part of the time. Every fork
// comes before the first file is opened.
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SMALL = 4096, LARGE = 1 << 20, MEGABYTES = 128, WRITERS = 8, SHARE = MEGABYTES / WRITERS };
enum { WRITES = 32768, SYNCED = 4096, FILES = 1000, READS = 1 << 18 };
static const double LIMIT = 1.2;

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

static off_t anywhere(int megabytes) {
    return random() % (megabytes * (LARGE / SMALL)) * (off_t)SMALL;
}

// What a writer works on: a fresh file, or one that was prepared for it.
struct work {
    int synced, alone, count, megabytes;
    char name[32];
};

static struct work work_of(int writer, int writers, int synced) {
    struct work w = {synced, writers == 1, (synced ? SYNCED : WRITES) / writers, MEGABYTES / writers, ""};
    if (synced && writers == 1)
        strcpy(w.name, "prepared");
    else
        snprintf(w.name, sizeof w.name, "%s%d", synced ? "prepared" : "fresh", writer);
    return w;
}

static int open_work(const struct work *w) {
    return enter(w->name, O_WRONLY | (w->synced ? 0 : O_CREAT | O_TRUNC));
}

static off_t place(const struct work *w, int n) {
    return w->synced ? anywhere(w->megabytes) : n * (off_t)SMALL;
}

// The peer of the bare limit: it writes what comes to its own copy, and says so.
struct frame {
    off_t offset;
    char data[SMALL];
};

static int loopback(struct sockaddr_in *at) {
    socklen_t length = sizeof *at;
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    check(!bind(sock, (struct sockaddr *)at, length) && !listen(sock, 1), "listen");
    check(!getsockname(sock, (struct sockaddr *)at, &length), "getsockname");
    return sock;
}

static void undelayed(int sock) {
    int one = 1;
    check(!setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), "TCP_NODELAY");
}

// Two servers have two CPUs: a pair that shares one is several times faster than they can be.
static void on_own_cpu(int peer) {
    cpu_set_t all, one;
    int cpu = peer ? CPU_SETSIZE - 1 : 0;
    check(!sched_getaffinity(0, sizeof all, &all), "sched_getaffinity");
    while (!CPU_ISSET(cpu, &all))
        cpu += peer ? -1 : 1;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    check(!sched_setaffinity(0, sizeof one, &one), "sched_setaffinity");
}

static void bare_peer(int listening, const char *directory, const struct work *w) {
    int sock = accept(listening, NULL, NULL);
    struct frame frame;
    char done = 1;
    check(sock >= 0, "accept");
    undelayed(sock);
    if (w->alone)
        on_own_cpu(1);
    check(!chdir(directory), directory);
    int fd = open_work(w);
    while (recv(sock, &frame, sizeof frame, MSG_WAITALL) == sizeof frame) {
        check(pwrite(fd, frame.data, SMALL, frame.offset) == SMALL, "pwrite");
        check(!w->synced || !fdatasync(fd), "fdatasync");
        check(send(sock, &done, 1, 0) == 1, "send");
    }
    close(fd);
    check(w->synced || !unlink(w->name), "unlink");
}

// Both sides sync at the same time, each its own copy.
static void bare_write(int sock, int fd, const struct work *w, struct frame *frame, int n) {
    char done;
    frame->offset = place(w, n);
    put(fd, SMALL, frame->offset);
    check(send(sock, frame, sizeof *frame, 0) == sizeof *frame, "send");
    check(!w->synced || !fdatasync(fd), "fdatasync");
    check(recv(sock, &done, 1, 0) == 1, "recv");
}

static void plain_write(int fd, const struct work *w, int n) {
    put(fd, SMALL, place(w, n));
    check(!w->synced || !fdatasync(fd), "fdatasync");
}

// All writers begin at once; the time ends when the last one has written.
static double writers(int count, int synced, const char *peer) {
    int told[2], go[2];
    char byte = 0;
    int *wrote = mmap(NULL, SMALL, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(wrote != MAP_FAILED && !pipe(told) && !pipe(go), "pipe");
    for (int each = 0; each < count; each++) {
        struct work w = work_of(each, count, synced);
        struct sockaddr_in at;
        int listening = peer ? loopback(&at) : -1, sock = -1, n = 0;
        if (peer && fork() == 0) {
            close(go[0]), close(go[1]), close(told[0]), close(told[1]);
            bare_peer(listening, peer, &w);
            _exit(0);
        }
        pid_t pid = fork();
        check(pid >= 0, "fork");
        if (pid) {
            close(listening);
            continue;
        }
        close(go[1]);
        close(told[0]);
        if (peer) {
            sock = socket(AF_INET, SOCK_STREAM, 0);
            check(!connect(sock, (struct sockaddr *)&at, sizeof at), "connect");
            undelayed(sock);
            if (w.alone)
                on_own_cpu(0);
        }
        srandom(getpid());
        struct frame frame = {0};
        int fd = open_work(&w);
        check(write(told[1], &byte, 1) == 1 && read(go[0], &byte, 1) == 0, "pipe");
        double until = now() + LIMIT;
        for (; n < w.count && now() < until; n++)
            if (peer)
                bare_write(sock, fd, &w, &frame, n);
            else
                plain_write(fd, &w, n);
        wrote[each] = n;
        check(write(told[1], &byte, 1) == 1, "pipe");
        close(fd);
        check(synced || !unlink(w.name), "unlink");
        _exit(0);
    }
    close(told[1]);
    for (int each = 0; each < count; each++)
        check(read(told[0], &byte, 1) == 1, "a writer");
    double start = now();
    close(go[1]);
    for (int each = 0; each < count; each++)
        check(read(told[0], &byte, 1) == 1, "a writer");
    double seconds = now() - start;
    while (wait(NULL) > 0)
        ;
    int total = 0;
    for (int each = 0; each < count; each++)
        total += wrote[each];
    return total / seconds;
}

static double large_write(const char *name, int megabytes) {
    int fd = enter(name, O_CREAT | O_TRUNC | O_WRONLY);
    double start = now();
    for (int n = 0; n < megabytes; n++)
        put(fd, LARGE, n * (off_t)LARGE);
    check(!fsync(fd), "fsync");
    return megabytes * 1.048576 / (now() - start);
}

static void prepare(void) {
    char name[32];
    large_write("prepared", MEGABYTES);
    for (int n = 0; n < WRITERS; n++) {
        snprintf(name, sizeof name, "prepared%d", n);
        large_write(name, SHARE);
    }
}

// DONTNEED drops the pages of this file system, not those of what lies below a mount.
static int open_dropped(void) {
    int fd = enter("prepared", O_RDONLY);
    check(!posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), "fadvise");
    return fd;
}

static double large_read(void) {
    int fd = open_dropped();
    double start = now();
    for (int n = 0; n < MEGABYTES; n++)
        check(pread(fd, block, LARGE, n * (off_t)LARGE) == LARGE, "pread");
    return MEGABYTES * 1.048576 / (now() - start);
}

// No read-ahead, so that every block that is not in memory is asked for by itself.
static double random_read(int cached) {
    int fd = open_dropped(), n = 0;
    if (cached)
        while (read(fd, block, LARGE) > 0)
            ;
    check(!posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), "fadvise");
    double start = now(), until = start + LIMIT;
    int count = cached ? READS : MEGABYTES * (LARGE / SMALL) / 4;
    for (; n < count && now() < until; n++)
        check(pread(fd, block, SMALL, anywhere(MEGABYTES)) == SMALL, "pread");
    return n / (now() - start);
}

static double small_files(void) {
    char name[32];
    int n = 0;
    double start = now(), until = start + LIMIT;
    for (; n < FILES && now() < until; n++) {
        snprintf(name, sizeof name, "small%d", n);
        int fd = enter(name, O_CREAT | O_EXCL | O_WRONLY);
        put(fd, SMALL, 0);
        check(!fsync(fd), "fsync");
        close(fd);
    }
    double seconds = now() - start;
    for (int left = 0; left < n; left++) {
        snprintf(name, sizeof name, "small%d", left);
        check(!unlink(name), "unlink");
    }
    return n / seconds;
}

int main(int argc, char **argv) {
    setpgid(0, 0);
    check(argc >= 3 && !chdir(argv[2]), "loads LOAD DIRECTORY [PEER]");
    const char *load = argv[1], *peer = argc > 3 ? argv[3] : NULL;
    double rate = 0;
    memset(block, 'h', sizeof block);
    srandom(getpid());
    if (!strcmp(load, "prepare"))
        prepare();
    else if (!strcmp(load, "write"))
        rate = writers(1, 0, peer);
    else if (!strcmp(load, "write8"))
        rate = writers(WRITERS, 0, peer);
    else if (!strcmp(load, "synced"))
        rate = writers(1, 1, peer);
    else if (!strcmp(load, "synced8"))
        rate = writers(WRITERS, 1, peer);
    else if (!strcmp(load, "large")) {
        rate = large_write("large", MEGABYTES);
        check(!unlink("large"), "unlink");
    } else if (!strcmp(load, "read"))
        rate = large_read();
    else if (!strcmp(load, "cached"))
        rate = random_read(1);
    else if (!strcmp(load, "uncached"))
        rate = random_read(0);
    else if (!strcmp(load, "files"))
        rate = small_files();
    else
        check(0, "no such load");
    printf("%.3f\n", rate);
}
