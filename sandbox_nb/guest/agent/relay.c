#include "relay.h"

#include "loop.h"
#include "transport.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

/* What one vsock packet carries, and what a pipe holds. */
#define PIECE_SIZE (64 * 1024)
/* More than all processes that may run have files. */
#ifndef MAX_RELAYS
#define MAX_RELAYS 2048
#endif

/*
 * Behind a piece smaller than this the process's next output may gather for so long. A program that writes line by line
 * would else wake the agent, which runs before it, for each line, and have it sent in a packet of its own.
 */
#define SMALL_PIECE 2048
#ifndef GATHER_NS
#define GATHER_NS (2 * NS_PER_MS)
#endif

/* Bytes read from one side that the other could not take yet. */
struct pending {
	uint8_t *data;
	size_t at, len;
};

/* A direction is open as long as its watch on the process's side is. */
struct relay {
	struct relay *next;
	struct watch socket;
	struct watch input;
	struct watch output;
	struct pending to_process;
	struct pending to_host;
	bool host_left; /* what it sent before is still read, whenever the process takes more */
	uint64_t gather_until;  /* what the process says before is not sent at once */
	struct timer gathering; /* runs when it has said something */
	struct relay **handle;
};

enum outcome { MOVED, BLOCKED, ENDED, BROKEN };

static uint8_t piece[PIECE_SIZE];
static struct relay *relays;
static unsigned n_relays, n_reserved;

static bool is_open(const struct watch *watch)
{
	return watch->ready != NULL;
}

static void update_interest(struct relay *relay)
{
	bool takes_input = is_open(&relay->input) && !relay->to_process.len;
	bool awaits_process = relay->to_process.len || relay->host_left;
	if (!relay->host_left)
		watch_set(&relay->socket, EPOLLHUP | (takes_input ? EPOLLIN : 0) | (relay->to_host.len ? EPOLLOUT : 0));
	watch_set(&relay->input, EPOLLERR | (awaits_process ? EPOLLOUT : 0));
	watch_set(&relay->output, relay->to_host.len ? 0 : relay->gathering.fire ? EPOLLHUP : EPOLLIN);
}

static void forget_pending(struct pending *pending)
{
	free(pending->data);
	*pending = (struct pending){0};
}

static void stop_gathering(struct relay *relay)
{
	relay->gather_until = 0;
	timer_stop(&relay->gathering);
}

static void relay_end(struct relay *relay)
{
	if (relay->handle)
		*relay->handle = NULL;
	stop_gathering(relay);
	watch_close(&relay->input);
	watch_close(&relay->output);
	watch_stop(&relay->socket);
	close(relay->socket.fd);
	forget_pending(&relay->to_process);
	forget_pending(&relay->to_host);
	for (struct relay **link = &relays; *link; link = &(*link)->next)
		if (*link == relay) {
			*link = relay->next;
			break;
		}
	n_relays--;
	free(relay);
}

/* Ends the relay when neither direction is open; else tells epoll what it waits for. */
static void relay_settle(struct relay *relay)
{
	if (is_open(&relay->input) || is_open(&relay->output) || relay->to_host.len)
		update_interest(relay);
	else
		relay_end(relay);
}

static ssize_t write_to(int fd, const uint8_t *data, size_t len)
{
	ssize_t n = write(fd, data, len);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return n;
}

static bool keep_rest(struct pending *pending, const uint8_t *data, size_t len)
{
	pending->data = malloc(len);
	if (!pending->data)
		return false;
	memcpy(pending->data, data, len);
	pending->at = 0;
	pending->len = len;
	return true;
}

/* One piece from `from` to `to`, of `len` bytes; what `to` does not take is kept. */
static enum outcome move(int from, int to, struct pending *pending, size_t *len)
{
	ssize_t n = read(from, piece, sizeof piece);
	*len = n > 0 ? (size_t)n : 0;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return BLOCKED;
	if (n <= 0) /* also EIO, a pty's way to say that its last slave is closed */
		return ENDED;
	ssize_t written = write_to(to, piece, (size_t)n);
	if (written < 0)
		return BROKEN;
	if (written < n && !keep_rest(pending, piece + written, (size_t)(n - written)))
		return BROKEN;
	return MOVED;
}

static enum outcome flush(int to, struct pending *pending)
{
	ssize_t n = write_to(to, pending->data + pending->at, pending->len);
	if (n < 0)
		return BROKEN;
	pending->at += (size_t)n;
	pending->len -= (size_t)n;
	if (pending->len > 0)
		return BLOCKED;
	forget_pending(pending);
	return MOVED;
}

/* Towards the process nothing more comes. A pty has no end of file, but a character that means it. */
static void close_input(struct relay *relay)
{
	struct termios termios;
	if (!is_open(&relay->input))
		return;
	if (is_open(&relay->output) && tcgetattr(relay->input.fd, &termios) == 0 && termios.c_lflag & ICANON)
		write_to(relay->input.fd, &termios.c_cc[VEOF], 1);
	/* A socket is not closed yet, the other direction has it too. */
	shutdown(relay->input.fd, SHUT_WR);
	watch_close(&relay->input);
	forget_pending(&relay->to_process);
}

/* The process takes no more: the host's next write fails. */
static void refuse_input(struct relay *relay)
{
	close_input(relay);
	if (is_open(&relay->output))
		shutdown(relay->socket.fd, SHUT_RD);
}

/* Nothing more comes from the process. If nothing goes to it either, closing the socket says so in one packet less. */
static void tell_host_of_end(struct relay *relay)
{
	if (is_open(&relay->input))
		shutdown(relay->socket.fd, SHUT_WR);
}

static void end_output(struct relay *relay)
{
	watch_close(&relay->output);
	if (!relay->to_host.len)
		tell_host_of_end(relay);
}

/* The host takes no more: the process's next write fails. */
static void refuse_output(struct relay *relay)
{
	stop_gathering(relay);
	forget_pending(&relay->to_host);
	watch_close(&relay->output);
}

/* The host has closed both directions: what the process says is for nobody. */
static void host_left(struct relay *relay)
{
	if (relay->host_left)
		return;
	relay->host_left = true;
	watch_stop(&relay->socket);
	refuse_output(relay);
}

/* The host has said something to a process and may wait for what that answers, in whichever stream. */
static void answer_at_once(void)
{
	for (struct relay *relay = relays; relay; relay = relay->next)
		if (relay->gather_until) {
			stop_gathering(relay);
			update_interest(relay);
		}
}

static void host_to_process(struct relay *relay)
{
	size_t len;
	switch (move(relay->socket.fd, relay->input.fd, &relay->to_process, &len)) {
	case MOVED:
		answer_at_once();
		break;
	case ENDED:
		close_input(relay);
		if (transport_peer_left(relay->socket.fd))
			host_left(relay);
		break;
	case BROKEN:
		refuse_input(relay);
		break;
	default:
		break;
	}
}

static void process_to_host(struct relay *relay)
{
	size_t len;
	stop_gathering(relay);
	switch (move(relay->output.fd, relay->socket.fd, &relay->to_host, &len)) {
	case MOVED:
		if (len < SMALL_PIECE)
			relay->gather_until = monotonic_ns() + GATHER_NS;
		break;
	case ENDED:
		end_output(relay);
		break;
	case BROKEN:
		refuse_output(relay);
		break;
	default:
		break;
	}
}

static void flush_to_host(struct relay *relay)
{
	enum outcome outcome = flush(relay->socket.fd, &relay->to_host);
	if (outcome == BROKEN)
		refuse_output(relay);
	else if (outcome == MOVED && !is_open(&relay->output))
		tell_host_of_end(relay);
}

/* Input first: an interrupt key must get through while output floods. */
static void socket_ready(struct watch *watch, uint32_t events)
{
	struct relay *relay = CONTAINER_OF(watch, struct relay, socket);
	if (events & EPOLLIN && is_open(&relay->input) && !relay->to_process.len)
		host_to_process(relay);
	if (events & EPOLLOUT && relay->to_host.len)
		flush_to_host(relay);
	if (events & (EPOLLHUP | EPOLLERR))
		host_left(relay);
	relay_settle(relay);
}

static void input_ready(struct watch *watch, uint32_t events)
{
	struct relay *relay = CONTAINER_OF(watch, struct relay, input);
	if (events & (EPOLLERR | EPOLLHUP))
		refuse_input(relay);
	else if (!relay->to_process.len)
		host_to_process(relay);
	else if (flush(watch->fd, &relay->to_process) == BROKEN)
		refuse_input(relay);
	relay_settle(relay);
}

static void gathered(struct timer *timer)
{
	struct relay *relay = CONTAINER_OF(timer, struct relay, gathering);
	process_to_host(relay);
	relay_settle(relay);
}

/* With EPOLLHUP the process has said its last. */
static void output_ready(struct watch *watch, uint32_t events)
{
	struct relay *relay = CONTAINER_OF(watch, struct relay, output);
	uint64_t now = relay->gather_until ? monotonic_ns() : 0;
	if (now < relay->gather_until && !(events & EPOLLHUP))
		timer_start(&relay->gathering, relay->gather_until - now, gathered);
	else
		process_to_host(relay);
	relay_settle(relay);
}

static bool start_watches(struct relay *relay, int socket, int input, int output)
{
	return watch_start(&relay->socket, socket, EPOLLHUP | (input >= 0 ? EPOLLIN : 0), socket_ready) &&
	       (input < 0 || watch_start(&relay->input, input, EPOLLERR, input_ready)) &&
	       (output < 0 || watch_start(&relay->output, output, EPOLLIN, output_ready));
}

static void close_all(int socket, int input, int output)
{
	close(socket);
	if (input >= 0)
		close(input);
	if (output >= 0)
		close(output);
}

static bool has_room(void)
{
	return n_relays + n_reserved < MAX_RELAYS;
}

bool relay_reserve(void)
{
	bool room = has_room();
	n_reserved += room;
	return room;
}

void relay_unreserve(void)
{
	n_reserved--;
}

bool relay_start(int socket, int input, int output, struct relay **handle)
{
	struct relay *relay = has_room() ? calloc(1, sizeof *relay) : NULL;
	if (!relay || !start_watches(relay, socket, input, output)) {
		if (relay) {
			watch_stop(&relay->socket);
			watch_stop(&relay->input);
			free(relay);
		}
		close_all(socket, input, output);
		return false;
	}
	relay->next = relays;
	relays = relay;
	n_relays++;
	relay->handle = handle;
	if (handle)
		*handle = relay;
	return true;
}

bool relay_join(int socket, int other)
{
	int output = fcntl(other, F_DUPFD_CLOEXEC, 0);
	if (output >= 0)
		return relay_start(socket, other, output, NULL);
	close_all(socket, other, -1);
	return false;
}

void relay_detach(struct relay **handle)
{
	if (*handle)
		(*handle)->handle = NULL;
	*handle = NULL;
}

void relay_close_input(struct relay *relay)
{
	refuse_input(relay);
	relay_settle(relay);
}

int relay_output(const struct relay *relay)
{
	return is_open(&relay->output) ? relay->output.fd : -1;
}
