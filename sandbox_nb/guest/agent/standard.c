#include "standard.h"

#include "handshake.h"
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

enum { IN, OUT, ERR };

/* The agent's ends of what goes with each stream. */
struct ends {
	struct stream *streams[3];
	struct bytes late[3]; /* ids of streams that may come later */
	int pipes[3]; /* -1: none, or that of another number */
};

static int own(struct stdio *stdio, int fd)
{
	stdio->owned[stdio->n_owned++] = fd;
	return fd;
}

void stdio_close(struct stdio *stdio)
{
	for (size_t i = 0; i < stdio->n_owned; i++)
		close(stdio->owned[i]);
	stdio->n_owned = 0;
}

bool stdio_ready(const struct stdio_request *request)
{
	for (int i = 0; i < 3; i++)
		if (stream_missing(request->streams[i]))
			return false;
	return true;
}

/* False when the call was failed. */
static bool find_stream(struct call *call, struct ends *ends, int number, struct bytes name)
{
	const char *problem;
	struct bytes late = number == IN ? (struct bytes){0} : late_id(name);
	if (late.len > STREAM_ID_MAX) {
		call_fail(call, STATUS_INVALID_ARGUMENT, "the id of a stream has at most %d bytes", STREAM_ID_MAX);
		return false;
	}
	if (late.len) {
		ends->streams[number] = stream_waiting(late);
		if (!ends->streams[number])
			ends->late[number] = late;
		return true;
	}
	ends->streams[number] = name.len ? stream_find(name, &problem) : NULL;
	if (!name.len || ends->streams[number])
		return true;
	call_fail(call, STATUS_NOT_FOUND, problem, (int)MIN(name.len, 160), (const char *)name.at);
	return false;
}

static bool find_streams(struct call *call, const struct stdio_request *request, struct ends *ends)
{
	struct stream **streams = ends->streams;
	for (int i = 0; i < 3; i++)
		if (!find_stream(call, ends, i, request->streams[i]))
			return false;
	if (request->tty && (!streams[IN] || streams[IN] != streams[OUT] || streams[ERR] || ends->late[ERR].len)) {
		call_fail(call, STATUS_INVALID_ARGUMENT,
			  "with a tty, stdin and stdout name the same stream and stderr none");
		return false;
	}
	return true;
}

/* The agent's end of an input may not block it; an output is read only when there is something. */
static bool open_pipe(struct stdio *stdio, struct ends *ends, int number)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0)
		return false;
	int theirs = fds[number == IN ? 0 : 1], ours = fds[number == IN ? 1 : 0];
	ends->pipes[number] = ours;
	stdio->child[number] = own(stdio, theirs);
	return number != IN || fcntl(ours, F_SETFL, O_NONBLOCK) == 0;
}

static bool errors_go_with_output(const struct ends *ends)
{
	struct bytes out = ends->late[OUT], err = ends->late[ERR];
	if (out.len || err.len)
		return out.len == err.len && memcmp(out.at, err.at, out.len) == 0;
	return ends->streams[OUT] == ends->streams[ERR];
}

static bool open_pipes(struct stdio *stdio, struct ends *ends)
{
	for (int i = 0; i < 3; i++) {
		if (!ends->streams[i] && !ends->late[i].len)
			continue;
		if (i == ERR && errors_go_with_output(ends))
			stdio->child[ERR] = stdio->child[OUT];
		else if (!open_pipe(stdio, ends, i))
			return false;
	}
	return true;
}

/* Erasing in a line works by characters only if the terminal is told that they are UTF-8. */
static bool open_terminal(struct stdio *stdio, struct ends *ends, const struct winsize *size, uid_t owner)
{
	struct termios termios;
	int unlocked = 0;
	int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (master < 0)
		return false;
	ends->pipes[OUT] = master;
	ends->pipes[IN] = fcntl(master, F_DUPFD_CLOEXEC, 0);
	if (ends->pipes[IN] < 0 || ioctl(master, TIOCSPTLCK, &unlocked) < 0)
		return false;
	int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return false;
	for (int i = 0; i < 3; i++)
		stdio->child[i] = slave;
	own(stdio, slave);
	ioctl(slave, TIOCSWINSZ, size);
	if (tcgetattr(slave, &termios) == 0) {
		termios.c_iflag |= IUTF8;
		tcsetattr(slave, TCSANOW, &termios);
	}
	return owner == geteuid() || fchown(slave, owner, (gid_t)-1) == 0;
}

static void close_pipes(struct ends *ends)
{
	for (int i = 0; i < 3; i++)
		if (ends->pipes[i] >= 0)
			close(ends->pipes[i]);
}

static int take(int *fd)
{
	int taken = *fd;
	*fd = -1;
	return taken;
}

/* One relay for each stream, whatever it stands for. */
static bool start_relays(struct ends *ends, struct relay **handle)
{
	for (int i = 0; i < 3; i++) {
		struct stream *stream = ends->streams[i];
		if (!stream)
			continue;
		int input = i == IN ? take(&ends->pipes[IN]) : -1;
		int output = -1;
		for (int j = i; j < 3; j++)
			if (ends->streams[j] == stream) {
				ends->streams[j] = NULL;
				if (output < 0 && j != IN)
					output = take(&ends->pipes[j]);
			}
		if (!relay_start(stream_claim(stream), input, output, i == IN ? handle : NULL))
			return false;
	}
	return true;
}

static bool start_lates(struct ends *ends, struct lates *lates)
{
	for (int i = OUT; i <= ERR; i++)
		if (ends->late[i].len && ends->pipes[i] >= 0 &&
		    !late_start(lates, i - OUT, ends->late[i], take(&ends->pipes[i])))
			return false;
	return true;
}

static int null_device(void)
{
	static int fd = -1;
	if (fd < 0)
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	return fd;
}

bool stdio_open(struct stdio *stdio, struct call *call, const struct stdio_request *request, const struct user *user,
		struct relay **handle, struct lates *lates)
{
	int null = null_device();
	struct ends ends = {.pipes = {-1, -1, -1}};
	*stdio = (struct stdio){.child = {null, null, null}};
	if (!find_streams(call, request, &ends))
		return false;
	bool opened = request->tty ? open_terminal(stdio, &ends, &request->size, user->uid) : open_pipes(stdio, &ends);
	if (opened && start_relays(&ends, handle) && start_lates(&ends, lates))
		return true;
	call_fail(call, STATUS_RESOURCE_EXHAUSTED, "%s cannot be opened: %s", request->tty ? "a terminal" : "pipes",
		  opened ? NO_RELAY : strerror(errno));
	close_pipes(&ends);
	stdio_close(stdio);
	return false;
}

bool window_size_parse(struct bytes message, struct winsize *size)
{
	uint64_t rows = 0, columns = 0;
	struct pb_reader in = pb_read(message);
	for (struct pb_field field; pb_next(&in, &field);)
		switch (field.tag) {
		case PB_VARINT(1):
			rows = field.varint;
			break;
		case PB_VARINT(2):
			columns = field.varint;
			break;
		}
	*size = (struct winsize){.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
	return !in.broken && rows <= UINT16_MAX && columns <= UINT16_MAX;
}
