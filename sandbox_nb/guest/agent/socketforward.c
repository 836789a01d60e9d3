#include "socketforward.h"

#include "failure.h"
#include "relay.h"
#include "setup.h"
#include "stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_ID 64
#define MAX_FORWARDS 64
#define MAX_PENDING 256
#define BACKLOG 128
#define PATIENCE (30 * NS_PER_S)

/* A socket that listens. */
struct forward {
	struct forward *next;
	struct watch listener;
	struct sockaddr_un address;
	char id[MAX_ID + 1];
};

/* A connection the host was told of, until its stream is there. */
struct pending {
	struct pending *next;
	struct timer expiry;
	int fd;
	bool confirmed; /* the host has connected on its side: the stream is on its way */
	char stream[48];
};

static struct forward *forwards;
static struct pending *pendings;
static unsigned n_forwards, n_pending;
static struct call *acceptor;

/* ---- connections ---- */

static int pending_release(struct pending *pending)
{
	int fd = pending->fd;
	for (struct pending **link = &pendings; *link; link = &(*link)->next)
		if (*link == pending) {
			*link = pending->next;
			break;
		}
	timer_stop(&pending->expiry);
	free(pending);
	n_pending--;
	return fd;
}

static void pending_expired(struct timer *timer)
{
	close(pending_release(CONTAINER_OF(timer, struct pending, expiry)));
}

static struct pending *pending_find(struct bytes stream)
{
	for (struct pending *pending = pendings; pending; pending = pending->next)
		if (bytes_equal(stream, pending->stream))
			return pending;
	return NULL;
}

static bool announce(const struct forward *forward, const struct pending *pending)
{
	struct buffer message = {0};
	if (!call_room())
		return false;
	pb_put_string(&message, 1, pending->stream);
	pb_put_string(&message, 2, forward->id);
	call_send(acceptor, &message);
	buffer_free(&message);
	return true;
}

static void connection_came(const struct forward *forward, int fd)
{
	static uint64_t counter;
	struct pending *pending = n_pending < MAX_PENDING ? calloc(1, sizeof *pending) : NULL;
	if (!pending) {
		close(fd);
		return;
	}
	pending->fd = fd;
	snprintf(pending->stream, sizeof pending->stream, "socketforward-%llu", (unsigned long long)++counter);
	pending->next = pendings;
	pendings = pending;
	n_pending++;
	timer_start(&pending->expiry, PATIENCE, pending_expired);
	if (!announce(forward, pending))
		close(pending_release(pending));
}

static void listener_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	int fd = accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0)
		connection_came(CONTAINER_OF(watch, struct forward, listener), fd);
}

/* The host may open the stream before it confirms the connection, or after. */
static bool stream_opened(struct stream *stream, struct bytes id)
{
	struct pending *pending = pending_find(id);
	if (!pending || !pending->confirmed)
		return false;
	relay_join(stream_claim(stream), pending_release(pending));
	return true;
}

static void confirm(struct pending *pending)
{
	char name[64];
	const char *problem;
	snprintf(name, sizeof name, "stream://%s", pending->stream);
	struct stream *stream = stream_find(bytes_of_text(name), &problem);
	pending->confirmed = true;
	if (stream)
		relay_join(stream_claim(stream), pending_release(pending));
}

/* ---- Accept ---- */

static void listen_for(uint32_t events)
{
	for (struct forward *forward = forwards; forward; forward = forward->next)
		watch_set(&forward->listener, events);
}

static void accept_over(struct call *call)
{
	(void)call;
	acceptor = NULL;
	listen_for(0);
	while (pendings)
		close(pending_release(pendings));
}

static void accept_finished(struct call *call)
{
	accept_over(call);
	call_reply(call, NULL);
}

/* ConnectResult: {1 stream_id, 2 error} */
static void accept_message(struct call *call, struct bytes message)
{
	struct bytes stream = {0}, error = {0};
	struct pb_reader in = pb_read(message);
	(void)call;
	for (struct pb_field field; pb_next(&in, &field);)
		if (field.tag == PB_BYTES(1))
			stream = field.bytes;
		else if (field.tag == PB_BYTES(2))
			error = field.bytes;
	struct pending *pending = pending_find(stream);
	if (!pending)
		return; /* it has waited too long, or is none of ours */
	if (error.len > 0 || in.broken)
		close(pending_release(pending));
	else
		confirm(pending);
}

void socketforward_accept(struct call *call, struct bytes request)
{
	(void)request;
	if (!setup_done(call))
		return;
	if (acceptor) {
		call_fail(call, STATUS_FAILED_PRECONDITION, "connections are taken by another call of Accept");
		return;
	}
	acceptor = call;
	call->dropped = accept_over;
	call->message = accept_message;
	call->finished = accept_finished;
	streams_tell(stream_opened);
	listen_for(EPOLLIN);
}

/* ---- Bind, Unbind ---- */

static struct forward **forward_find(struct bytes id)
{
	struct forward **link = &forwards;
	while (*link && !bytes_equal(id, (*link)->id))
		link = &(*link)->next;
	return link;
}

static void forward_close(struct forward **link)
{
	struct forward *forward = *link;
	*link = forward->next;
	watch_close(&forward->listener);
	unlink(forward->address.sun_path);
	free(forward);
	n_forwards--;
}

/* A socket file that nobody listens on any more is in the way of nobody. */
static bool is_stale(const struct sockaddr_un *address)
{
	struct stat status;
	if (lstat(address->sun_path, &status) < 0 || !S_ISSOCK(status.st_mode))
		return false;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	bool refused = connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 && errno == ECONNREFUSED;
	close(fd);
	return refused;
}

/* Whoever may reach the file may connect: what the host has at the other end is for the whole guest. */
static int make_listener(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (is_stale(address))
		unlink(address->sun_path);
	if (bind(fd, (const struct sockaddr *)address, sizeof *address) == 0 &&
	    chmod(address->sun_path, 0666) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* Socket: {1 forward_id, 2 socket_path}. Fails the call and returns NULL when it cannot be. */
static struct forward *take_socket(struct call *call, struct bytes message)
{
	struct bytes id = {0}, path = {0};
	struct pb_reader in = pb_read(message);
	for (struct pb_field field; pb_next(&in, &field);)
		if (field.tag == PB_BYTES(1))
			id = field.bytes;
		else if (field.tag == PB_BYTES(2))
			path = field.bytes;
	struct forward *forward = n_forwards < MAX_FORWARDS ? calloc(1, sizeof *forward) : NULL;
	if (!forward)
		call_fail(call, STATUS_RESOURCE_EXHAUSTED, "64 sockets are forwarded already; close some first");
	else if (in.broken || id.len < 1 || id.len > MAX_ID || !bytes_printable(id))
		call_fail(call, STATUS_INVALID_ARGUMENT, "a forward_id has 1 to 64 printable ASCII characters");
	else if (path.len >= sizeof forward->address.sun_path || path.len < 2 || path.at[0] != '/' ||
		 memchr(path.at, 0, path.len))
		call_fail(call, STATUS_INVALID_ARGUMENT, "socket_path '%.*s' is not an absolute path of at most 107 bytes",
			  (int)MIN(path.len, 256), (const char *)path.at);
	else if (*forward_find(id))
		call_fail(call, STATUS_ALREADY_EXISTS, "'%.*s' is forwarded already", (int)id.len, (const char *)id.at);
	else {
		memcpy(forward->id, id.at, id.len);
		forward->address.sun_family = AF_UNIX;
		memcpy(forward->address.sun_path, path.at, path.len);
		return forward;
	}
	free(forward);
	return NULL;
}

static bool add_socket(struct call *call, struct bytes message)
{
	struct forward *forward = take_socket(call, message);
	if (!forward)
		return false;
	int fd = make_listener(&forward->address);
	if (fd >= 0 && watch_start(&forward->listener, fd, acceptor ? EPOLLIN : 0, listener_ready)) {
		forward->next = forwards;
		forwards = forward;
		n_forwards++;
		return true;
	}
	call_fail(call, status_of_errno(errno), "%s: %s", forward->address.sun_path, strerror(errno));
	if (fd >= 0)
		close(fd);
	free(forward);
	return false;
}

/* {1 repeated Socket}: all of them, or none. */
void socketforward_bind(struct call *call, struct bytes request)
{
	unsigned before = n_forwards;
	struct pb_reader in = pb_read(request);
	if (!setup_done(call))
		return;
	for (struct pb_field field; pb_next(&in, &field);) {
		if (field.tag != PB_BYTES(1) || add_socket(call, field.bytes))
			continue;
		while (n_forwards > before)
			forward_close(&forwards);
		return;
	}
	if (call_decoded(call, &in))
		call_reply(call, NULL);
}

/* {1 forward_id} */
void socketforward_unbind(struct call *call, struct bytes request)
{
	struct bytes id = {0};
	struct pb_reader in = pb_read(request);
	for (struct pb_field field; pb_next(&in, &field);)
		if (field.tag == PB_BYTES(1))
			id = field.bytes;
	if (!call_decoded(call, &in))
		return;
	struct forward **link = forward_find(id);
	if (*link) {
		forward_close(link);
		call_reply(call, NULL);
	} else {
		call_fail(call, STATUS_NOT_FOUND, "'%.*s' is not forwarded", (int)MIN(id.len, MAX_ID), (const char *)id.at);
	}
}
