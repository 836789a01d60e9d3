#include "forward.h"

#include "relay.h"
#include "setup.h"
#include "stream.h"
#include "transport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

union address {
	struct sockaddr any;
	struct sockaddr_in tcp;
	struct sockaddr_un local;
};

/* A connection on its way, and the stream that waits for it. */
struct dial {
	struct call *call;
	struct watch socket;
	int stream;
	char name[128]; /* the address, for messages */
};

/* Exactly one of both is given. Returns the address's length; 0 when there is none. */
static socklen_t make_address(struct dial *dial, uint64_t port, struct bytes path, union address *address)
{
	*address = (union address){0};
	if (path.len == 0 && port > 0 && port <= UINT16_MAX) {
		snprintf(dial->name, sizeof dial->name, "127.0.0.1:%u", (unsigned)port);
		address->tcp.sin_family = AF_INET;
		address->tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		address->tcp.sin_port = htons((uint16_t)port);
		return sizeof address->tcp;
	}
	if (port == 0 && path.len > 1 && path.len < sizeof address->local.sun_path && path.at[0] == '/') {
		snprintf(dial->name, sizeof dial->name, "%.*s", (int)path.len, (const char *)path.at);
		address->local.sun_family = AF_UNIX;
		memcpy(address->local.sun_path, path.at, path.len);
		return sizeof address->local;
	}
	return 0;
}

static void dial_end(struct dial *dial)
{
	watch_close(&dial->socket);
	if (dial->stream >= 0)
		close(dial->stream);
	free(dial);
}

static void dial_fail(struct dial *dial, int error)
{
	struct call *call = dial->call;
	if (error == ECONNREFUSED || error == ENOENT)
		call_fail(call, STATUS_NOT_FOUND, "nothing listens on %s in the guest", dial->name);
	else
		call_fail(call, STATUS_UNKNOWN, "%s in the guest: %s", dial->name, strerror(error));
	dial_end(dial);
}

static void dial_done(struct dial *dial)
{
	struct call *call = dial->call;
	int fd = dial->socket.fd, stream = dial->stream;
	watch_stop(&dial->socket);
	dial->stream = -1;
	dial_end(dial);
	/* Every write is all there is for now: not to be kept back until the last one was acknowledged. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	if (relay_join(stream, fd))
		call_reply(call, NULL);
	else
		call_fail(call, STATUS_RESOURCE_EXHAUSTED, NO_RELAY);
}

static void connected(struct watch *watch, uint32_t events)
{
	struct dial *dial = CONTAINER_OF(watch, struct dial, socket);
	(void)events;
	int error = transport_error(watch->fd);
	if (error)
		dial_fail(dial, error);
	else
		dial_done(dial);
}

static void dropped(struct call *call)
{
	dial_end(call->context);
}

static void begin(struct dial *dial, const union address *address, socklen_t len)
{
	int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		dial_fail(dial, errno);
		return;
	}
	bool begun = connect(fd, &address->any, len) == 0 || errno == EINPROGRESS;
	if (begun && watch_start(&dial->socket, fd, EPOLLOUT, connected)) {
		dial->call->context = dial;
		dial->call->dropped = dropped;
		return;
	}
	int error = errno;
	close(fd);
	dial_fail(dial, error);
}

/* {1 stream, 2 port, 3 path} */
void forward_dial(struct call *call, struct bytes request)
{
	struct bytes name = {0}, path = {0};
	uint64_t port = 0;
	const char *problem;
	union address address;
	struct pb_reader in = pb_read(request);
	for (struct pb_field field; pb_next(&in, &field);)
		switch (field.tag) {
		case PB_BYTES(1):
			name = field.bytes;
			break;
		case PB_VARINT(2):
			port = field.varint;
			break;
		case PB_BYTES(3):
			path = field.bytes;
			break;
		}
	if (!setup_done(call) || !call_decoded(call, &in))
		return;
	struct stream *stream = stream_find(name, &problem);
	struct dial *dial = stream ? calloc(1, sizeof *dial) : NULL;
	socklen_t len = dial ? make_address(dial, port, path, &address) : 0;
	if (!stream) {
		call_fail(call, STATUS_NOT_FOUND, problem, (int)MIN(name.len, 160), (const char *)name.at);
	} else if (len > 0) {
		dial->call = call;
		dial->stream = stream_claim(stream);
		begin(dial, &address, len);
	} else {
		free(dial);
		call_fail(call, STATUS_INVALID_ARGUMENT,
			  "either a port, 1 to 65535, or an absolute path of at most 107 bytes is needed");
	}
}
