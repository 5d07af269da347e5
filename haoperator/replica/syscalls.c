/* SPDX-License-Identifier: Apache-2.0 */
/* System calls that Python 3.11 has no function for. All raise OSError. */
#include "hotpath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static PyObject *result(long value)
{
	return value < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(value);
}

/* openat2(dirfd, path: bytes, flags, mode, resolve) -> fd, close-on-exec */
static PyObject *call_openat2(PyObject *self, PyObject *args)
{
	int dirfd;
	const char *path;
	unsigned long long flags, mode, resolve;
	long fd;

	(void)self;
	if (!PyArg_ParseTuple(args, "iyKKK", &dirfd, &path, &flags, &mode, &resolve))
		return NULL;
	struct open_how how = { .flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve };
	Py_BEGIN_ALLOW_THREADS;
	do /* a rename somewhere else may interrupt the safe walk */
		fd = syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
	while (fd < 0 && errno == EAGAIN);
	Py_END_ALLOW_THREADS;
	return result(fd);
}

/* renameat2(old_dirfd, old: bytes, new_dirfd, new: bytes, flags) */
static PyObject *call_renameat2(PyObject *self, PyObject *args)
{
	int old_dirfd, new_dirfd;
	unsigned int flags;
	const char *old, *new;
	long error;

	(void)self;
	if (!PyArg_ParseTuple(args, "iyiyI", &old_dirfd, &old, &new_dirfd, &new, &flags))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	error = renameat2(old_dirfd, old, new_dirfd, new, flags);
	Py_END_ALLOW_THREADS;
	return result(error);
}

/* fallocate(fd, mode, offset, length) */
static PyObject *call_fallocate(PyObject *self, PyObject *args)
{
	int fd, mode;
	long long offset, length;
	long error;

	(void)self;
	if (!PyArg_ParseTuple(args, "iiLL", &fd, &mode, &offset, &length))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	error = fallocate(fd, mode, offset, length);
	Py_END_ALLOW_THREADS;
	return result(error);
}

static struct timespec time_of(PyObject *ns, int *bad)
{
	struct timespec when = { 0, UTIME_OMIT };

	if (ns == Py_None)
		return when;
	long long value = PyLong_AsLongLong(ns);
	if (value == -1 && PyErr_Occurred()) {
		*bad = 1;
		return when;
	}
	if (value == TIME_NOW) {
		when.tv_nsec = UTIME_NOW;
		return when;
	}
	when.tv_sec = value / 1000000000;
	when.tv_nsec = value % 1000000000;
	if (when.tv_nsec < 0) {
		when.tv_sec--;
		when.tv_nsec += 1000000000;
	}
	return when;
}

/*
 * set_times(fd, atime_ns | None, mtime_ns | None): of what an O_PATH descriptor names.
 * TIME_NOW is the present by the file system's own clock, which is coarser than ours.
 */
static PyObject *call_set_times(PyObject *self, PyObject *args)
{
	int fd, bad = 0;
	PyObject *atime, *mtime;
	char path[32];
	long error;

	(void)self;
	if (!PyArg_ParseTuple(args, "iOO", &fd, &atime, &mtime))
		return NULL;
	struct timespec times[2] = { time_of(atime, &bad), time_of(mtime, &bad) };
	if (bad)
		return NULL;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	Py_BEGIN_ALLOW_THREADS;
	error = utimensat(AT_FDCWD, path, times, 0);
	Py_END_ALLOW_THREADS;
	return result(error);
}

/* mount(source, target, type, flags, data), all bytes */
static PyObject *call_mount(PyObject *self, PyObject *args)
{
	const char *source, *target, *type, *data;
	unsigned long flags;
	long error;

	(void)self;
	if (!PyArg_ParseTuple(args, "yyyky", &source, &target, &type, &flags, &data))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	error = mount(source, target, type, flags, data);
	Py_END_ALLOW_THREADS;
	return result(error);
}

/* umount2(target: bytes, flags) */
static PyObject *call_umount2(PyObject *self, PyObject *args)
{
	const char *target;
	int flags;
	long error;

	(void)self;
	if (!PyArg_ParseTuple(args, "yi", &target, &flags))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	error = umount2(target, flags);
	Py_END_ALLOW_THREADS;
	return result(error);
}

/* syncfs(fd) */
static PyObject *call_syncfs(PyObject *self, PyObject *args)
{
	int fd;
	long error;

	(void)self;
	if (!PyArg_ParseTuple(args, "i", &fd))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	error = syncfs(fd);
	Py_END_ALLOW_THREADS;
	return result(error);
}

/* io_flusher(): this process serves writes; let it not be throttled by whom it serves */
static PyObject *call_io_flusher(PyObject *self, PyObject *args)
{
	(void)self;
	(void)args;
	return result(prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0));
}

/* own_umask(): give the calling thread a umask of its own */
static PyObject *call_own_umask(PyObject *self, PyObject *args)
{
	(void)self;
	(void)args;
	return result(unshare(CLONE_FS));
}

#define CALL(name) { #name, call_##name, METH_VARARGS, NULL }
PyMethodDef syscall_methods[] = {
	CALL(openat2), CALL(renameat2), CALL(fallocate), CALL(set_times),
	CALL(mount),   CALL(umount2),	CALL(syncfs),	 CALL(own_umask),
	CALL(io_flusher),
	{ NULL, NULL, 0, NULL },
};
