#include "rpc.h"

#include "log.h"
#include "transport.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CALLS 1024
#define MAX_MESSAGE 512
#define READ_SIZE (64 * 1024)
#define DRAIN_MS 200

/* Unsent answers from which on no more requests are read, and from which on a stream that adds to them is cut. */
#define OUT_HIGH (256 * 1024)
#define OUT_MAX (512 * 1024)

#define FIRST_RETRY (10 * NS_PER_MS)
#define LAST_RETRY NS_PER_S

static uint32_t port;
static struct watch connection;
static bool connected;
static struct timer redial; /* runs whenever there is no connection, and to end one that broke */
static uint64_t redial_after = FIRST_RETRY;

static struct frame_reader reader;
static struct buffer out;
static struct call *calls;
static unsigned n_calls;
static uint32_t last_stream;

static void redial_due(struct timer *);

static void call_free(struct call *call)
{
	for (struct call **link = &calls; *link; link = &(*link)->next)
		if (*link == call) {
			*link = call->next;
			break;
		}
	timer_stop(&call->deadline);
	free(call);
	n_calls--;
}

static void update_interest(void)
{
	watch_set(&connection, (out.len < OUT_HIGH ? EPOLLIN : EPOLLHUP) | (out.len > 0 ? EPOLLOUT : 0));
}

static void drop_all_calls(void)
{
	while (calls) {
		if (calls->dropped)
			calls->dropped(calls);
		call_free(calls);
	}
}

static void hang_up(void)
{
	watch_close(&connection);
	connected = false;
	drop_all_calls();
	frame_reader_free(&reader);
	buffer_free(&out);
	last_stream = 0;
	timer_start(&redial, redial_after, redial_due);
	redial_after = MIN(redial_after * 2, LAST_RETRY);
}

/*
 * Sends what it can. A connection that breaks here is ended from the loop, not now: a handler may be in the middle of
 * other calls of it.
 */
static void flush(void)
{
	if (!connected)
		return;
	ssize_t n = out.failed ? -1 : write(connection.fd, out.at, out.len);
	if (n > 0)
		buffer_drop(&out, (size_t)n);
	if (out.failed || (n < 0 && errno != EAGAIN && errno != EINTR))
		timer_start(&redial, 0, redial_due);
	else
		update_interest();
}

static void respond(uint32_t stream, enum status status, const char *message, struct bytes payload)
{
	frame_put_response(&out, stream, status, message, payload);
	flush();
}

/* A stream ends with a last, empty data message, a unary call with its response. */
void call_reply(struct call *call, const struct buffer *payload)
{
	static const struct buffer nothing;
	if (!payload)
		payload = &nothing;
	if (payload->failed || payload->len > FRAME_MAX_PAYLOAD - 64) {
		call_fail(call, STATUS_RESOURCE_EXHAUSTED, "the answer does not fit in 4 MiB");
		return;
	}
	if (call->method->kind == UNARY) {
		respond(call->stream, STATUS_OK, NULL, bytes_of(payload));
	} else {
		frame_put_data(&out, call->stream, FLAG_REMOTE_CLOSED | FLAG_NO_DATA, (struct bytes){0});
		flush();
	}
	call_free(call);
}

void call_fail(struct call *call, enum status status, const char *format, ...)
{
	char message[MAX_MESSAGE];
	va_list args;
	va_start(args, format);
	vsnprintf(message, sizeof message, format, args);
	va_end(args);
	debug("%s/%s: status %d: %s", call->method->service, call->method->name, status, message);
	respond(call->stream, status, message, (struct bytes){0});
	call_free(call);
}

void call_send(struct call *call, const struct buffer *message)
{
	frame_put_data(&out, call->stream, 0, bytes_of(message));
	out.failed |= message->failed;
	flush();
}

bool call_room(void)
{
	return out.len < OUT_MAX;
}

bool call_decoded(struct call *call, const struct pb_reader *in)
{
	if (in->broken)
		call_fail(call, STATUS_INVALID_ARGUMENT, "the request of %s is not a protobuf message", call->method->name);
	return !in->broken;
}

static void deadline_passed(struct timer *timer)
{
	struct call *call = CONTAINER_OF(timer, struct call, deadline);
	if (call->dropped)
		call->dropped(call);
	call_fail(call, STATUS_DEADLINE_EXCEEDED, "%s was not done in the time given", call->method->name);
}

static struct call *call_find(uint32_t stream)
{
	for (struct call *call = calls; call; call = call->next)
		if (call->stream == stream)
			return call;
	return NULL;
}

/* The method a request asks for. NULL with the status and the reason when it cannot be called so. */
static const struct method *find_method(const struct frame *frame, const struct request *request, enum status *status,
					char reason[MAX_MESSAGE])
{
	bool known;
	const struct method *method = method_find(request->service, request->method, &known);
	struct bytes missing = known ? request->method : request->service;
	if (!method) {
		*status = STATUS_UNIMPLEMENTED;
		snprintf(reason, MAX_MESSAGE, "there is no %s %.*s", known ? "method" : "service",
			 (int)MIN(missing.len, 128), (const char *)missing.at);
		return NULL;
	}
	if ((method->kind == UNARY) != (frame->flags == 0)) {
		*status = STATUS_INVALID_ARGUMENT;
		snprintf(reason, MAX_MESSAGE, "%s/%s is %s", method->service, method->name,
			 method->kind == UNARY ? "unary" : "a stream");
		return NULL;
	}
	return method;
}

static void begin_call(const struct frame *frame, const struct request *request)
{
	enum status status = STATUS_RESOURCE_EXHAUSTED;
	char reason[MAX_MESSAGE] = "1024 calls are in flight already; wait for some of them";
	const struct method *method = n_calls < MAX_CALLS ? find_method(frame, request, &status, reason) : NULL;
	struct call *call = method ? calloc(1, sizeof *call) : NULL;
	if (!call) {
		respond(frame->stream, status, reason, (struct bytes){0});
		return;
	}
	call->stream = frame->stream;
	call->method = method;
	call->remote_closed = !(frame->flags & FLAG_REMOTE_OPEN);
	call->next = calls;
	calls = call;
	n_calls++;
	if (request->timeout_ns > 0)
		timer_start(&call->deadline, (uint64_t)request->timeout_ns, deadline_passed);
	method->begin(call, request->payload);
}

/* PROTOCOL.md: streams of the client's have odd ids, which grow. */
static void handle_request(const struct frame *frame)
{
	struct request request;
	const char *problem = NULL;
	if (frame->stream % 2 != 1)
		problem = "a client's stream id is odd";
	else if (frame->stream <= last_stream)
		problem = "a stream id is used once, and greater than those before";
	else if (!request_parse(frame->payload, &request))
		problem = "the request is not a protobuf message";
	if (frame->stream > last_stream)
		last_stream = frame->stream;
	if (problem)
		respond(frame->stream, STATUS_INVALID_ARGUMENT, problem, (struct bytes){0});
	else
		begin_call(frame, &request);
}

static void handle_data(const struct frame *frame)
{
	struct call *call = call_find(frame->stream);
	if (!call) {
		/* What crossed the end of its stream on the way is no error; what never began is. */
		if (frame->stream > last_stream)
			respond(frame->stream, STATUS_INVALID_ARGUMENT, "there is no such stream", (struct bytes){0});
		return;
	}
	if (call->remote_closed) {
		if (call->dropped)
			call->dropped(call);
		call_fail(call, STATUS_INVALID_ARGUMENT, "data after the end of the stream");
		return;
	}
	bool last = frame->flags & FLAG_REMOTE_CLOSED;
	call->remote_closed = last;
	if (!(frame->flags & FLAG_NO_DATA) && call->message)
		call->message(call, frame->payload);
	if (last && (call = call_find(frame->stream)) && call->finished)
		call->finished(call);
}

static void handle_too_large(const struct frame *frame)
{
	struct call *call = call_find(frame->stream);
	if (frame->stream > last_stream)
		last_stream = frame->stream;
	if (call && call->dropped)
		call->dropped(call);
	if (call)
		call_free(call);
	respond(frame->stream, STATUS_RESOURCE_EXHAUSTED, "a message has at most 4 MiB", (struct bytes){0});
}

/* False when the connection is of no more use. Frames of a type not known are for versions to come, and skipped. */
static bool handle_frames(void)
{
	struct frame frame;
	for (;;)
		switch (frame_next(&reader, &frame)) {
		case FRAME_NONE:
			return true;
		case FRAME_BROKEN:
			say("the host sent what is no ttrpc frame; the connection is closed");
			return false;
		case FRAME_TOO_LARGE:
			handle_too_large(&frame);
			break;
		case FRAME_READY:
			if (frame.type == FRAME_REQUEST)
				handle_request(&frame);
			else if (frame.type == FRAME_DATA)
				handle_data(&frame);
			break;
		}
}

static void connection_ready(struct watch *watch, uint32_t events)
{
	static uint8_t in[READ_SIZE];
	if (events & EPOLLOUT)
		flush();
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	ssize_t n = read(watch->fd, in, sizeof in);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		hang_up();
		return;
	}
	redial_after = FIRST_RETRY;
	frame_feed(&reader, in, (size_t)n);
	if (!handle_frames())
		hang_up();
}

static void dialled(struct watch *watch, uint32_t events)
{
	(void)events;
	int error = transport_error(watch->fd);
	if (error) {
		debug("port %u of the host: %s", port, strerror(error));
		hang_up();
		return;
	}
	connected = true;
	watch->ready = connection_ready;
	update_interest();
}

static void dial(void)
{
	int fd = transport_dial(port);
	if (fd >= 0 && watch_start(&connection, fd, EPOLLOUT, dialled))
		return;
	if (fd >= 0)
		close(fd);
	timer_start(&redial, redial_after, redial_due);
	redial_after = MIN(redial_after * 2, LAST_RETRY);
}

static void redial_due(struct timer *timer)
{
	(void)timer;
	if (connected)
		hang_up();
	else
		dial();
}

void rpc_start(uint32_t host_port)
{
	port = host_port;
	dial();
}

void rpc_nudge(void)
{
	if (connection.ready)
		return;
	timer_stop(&redial);
	redial_after = FIRST_RETRY;
	dial();
}

void rpc_drain(void)
{
	struct pollfd poller = {.events = POLLOUT};
	while (connected && out.len > 0) {
		poller.fd = connection.fd;
		if (poll(&poller, 1, DRAIN_MS) <= 0)
			return;
		ssize_t n = write(connection.fd, out.at, out.len);
		if (n <= 0)
			return;
		buffer_drop(&out, (size_t)n);
	}
}

void rpc_end(void)
{
	struct pollfd poller = {.fd = connection.fd, .events = POLLIN};
	uint64_t until = monotonic_ns() + DRAIN_MS * NS_PER_MS;
	uint8_t rest[512];
	if (!connected || shutdown(connection.fd, SHUT_WR) < 0)
		return;
	while (monotonic_ns() < until && poll(&poller, 1, DRAIN_MS) > 0 && read(connection.fd, rest, sizeof rest) > 0)
		;
}
