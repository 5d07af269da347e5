/* SPDX-License-Identifier: Apache-2.0 */
/* A channel as Python sees it: `Channel` shakes hands when it is made. */
#include "channel.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* AES-GCM under one key is good for 2^24.5 records (RFC 8446, section 5.5). */
#define REKEY_AFTER (UINT64_C(1) << 22)

typedef struct {
	PyObject_HEAD
	struct channel *channel;
} Channel;

static PyObject *failed(int error, const char *text)
{
	if (error == EAGAIN)
		error = ETIMEDOUT;
	PyObject *args = Py_BuildValue("(is)", error, *text ? text : strerror(error));
	if (args) {
		PyErr_SetObject(PyExc_OSError, args);
		Py_DECREF(args);
	}
	return NULL;
}

static PyObject *channel_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	int sock, server, timeout_ms, error;
	unsigned long long rekey_after = REKEY_AFTER;
	Py_buffer psk;
	char text[128] = "";

	if (kwargs || !PyArg_ParseTuple(args, "iy*pi|K", &sock, &psk, &server, &timeout_ms,
					&rekey_after))
		return NULL;
	struct channel *c = NULL;
	if (psk.len != PSK_BYTES)
		close(sock);
	else
		c = channel_make(sock, psk.buf, server, rekey_after);
	bool fits = psk.len == PSK_BYTES;
	PyBuffer_Release(&psk);
	if (!fits) {
		PyErr_SetString(PyExc_ValueError, "a key has 32 bytes");
		return NULL;
	}
	if (!c)
		return PyErr_NoMemory();
	Py_BEGIN_ALLOW_THREADS;
	error = channel_shake_hands(c, timeout_ms, text, sizeof(text));
	if (error)
		channel_let_go(c);
	Py_END_ALLOW_THREADS;
	if (error)
		return failed(error, text);
	Channel *self = (Channel *)type->tp_alloc(type, 0);
	if (self)
		self->channel = c;
	else
		channel_let_go(c);
	return (PyObject *)self;
}

static void channel_dealloc(Channel *self)
{
	channel_let_go(self->channel);
	Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *channel_send_bytes(Channel *self, PyObject *args)
{
	Py_buffer data;
	int timeout_ms, error;

	if (!PyArg_ParseTuple(args, "y*i", &data, &timeout_ms))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	error = channel_send(self->channel, NULL, 0, data.buf, (size_t)data.len, timeout_ms);
	Py_END_ALLOW_THREADS;
	PyBuffer_Release(&data);
	if (error)
		return failed(error, "");
	Py_RETURN_NONE;
}

static PyObject *channel_receive_bytes(Channel *self, PyObject *args)
{
	Py_ssize_t size;
	int timeout_ms, error;

	if (!PyArg_ParseTuple(args, "ni", &size, &timeout_ms))
		return NULL;
	PyObject *data = PyBytes_FromStringAndSize(NULL, size);
	if (!data)
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	error = channel_receive_all(self->channel, PyBytes_AS_STRING(data), (size_t)size,
				    timeout_ms);
	Py_END_ALLOW_THREADS;
	if (!error)
		return data;
	Py_DECREF(data);
	return failed(error, "");
}

static PyObject *channel_shut_down(Channel *self, PyObject *unused)
{
	(void)unused;
	channel_shut(self->channel);
	Py_RETURN_NONE;
}

static PyObject *channel_close_now(Channel *self, PyObject *unused)
{
	(void)unused;
	Py_BEGIN_ALLOW_THREADS;
	channel_close(self->channel);
	Py_END_ALLOW_THREADS;
	Py_RETURN_NONE;
}

/* The channel in a Python Channel, held for the caller until channel_let_go. */
struct channel *channel_of(PyObject *object)
{
	return channel_hold(((Channel *)object)->channel);
}

static PyMethodDef channel_methods[] = {
	{ "send", (PyCFunction)(void (*)(void))channel_send_bytes, METH_VARARGS, NULL },
	{ "receive", (PyCFunction)(void (*)(void))channel_receive_bytes, METH_VARARGS, NULL },
	{ "shut", (PyCFunction)(void (*)(void))channel_shut_down, METH_NOARGS, NULL },
	{ "close", (PyCFunction)(void (*)(void))channel_close_now, METH_NOARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

PyTypeObject ChannelType = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "haoperator.replica._hotpath.Channel",
	.tp_basicsize = sizeof(Channel),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_doc = "The encrypted connection between the two replicators.",
	.tp_methods = channel_methods,
	.tp_new = channel_new,
	.tp_dealloc = (destructor)channel_dealloc,
};
