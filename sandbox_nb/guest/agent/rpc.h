/*
 * The control connection: the agent dials, the host calls, and a call is answered now or whenever it is done.
 *
 * A connection that ends takes its calls with it and nothing else; the agent dials again.
 */
#ifndef RPC_H
#define RPC_H

#include "loop.h"
#include "pb.h"
#include "ttrpc.h"

struct call;

enum method_kind {
	UNARY,         /* one request, one answer */
	SERVER_STREAM, /* one request, messages from us, an answer that ends them */
	BIDI,          /* messages both ways until either side ends */
};

struct method {
	const char *service;
	const char *name;
	enum method_kind kind;
	/* Takes the call. `request` is valid until it returns; of BIDI it is empty. */
	void (*begin)(struct call *, struct bytes request);
};

struct call {
	struct call *next;
	uint32_t stream;
	const struct method *method;
	struct timer deadline;
	bool remote_closed;

	/* For the handler of a call it does not answer at once: its state, and a link to chain such calls with. */
	void *context;
	struct call *sibling;
	/* The call is over without an answer of the handler's: the connection is gone, or time is up. */
	void (*dropped)(struct call *);
	/* BIDI: a message of the host's; and that no more come. */
	void (*message)(struct call *, struct bytes);
	void (*finished)(struct call *);
};

/* Finds a method in services.c; `known` tells whether its service is there. NULL when it is not. */
const struct method *method_find(struct bytes service, struct bytes name, bool *known);

/* Answers and ends the call, which is no longer to be used then. `payload` NULL is an empty message. */
void call_reply(struct call *, const struct buffer *payload);
void call_fail(struct call *, enum status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* One message of a stream to the host. */
void call_send(struct call *, const struct buffer *message);

/* False when the host has left too much unread: a stream nobody listens to must end, not fill the memory. */
bool call_room(void);

/* After the last pb_next(): fails the call when the request is no protobuf message. */
bool call_decoded(struct call *, const struct pb_reader *);

/* Dials `port` now, and again whenever there is no connection. */
void rpc_start(uint32_t port);

/* Something has changed, a device may have come: dials at once unless a connection is there or on its way. */
void rpc_nudge(void);

/* Waits, at most a moment, until all answers are on their way. Only for the way out. */
void rpc_drain(void);

/*
 * Tells the host that nothing more comes, and waits, at most a moment, until it has hung up: so it has all that was said.
 * A kernel that powers off forgets what it has not sent yet. Only for the way out.
 */
void rpc_end(void);

#endif
