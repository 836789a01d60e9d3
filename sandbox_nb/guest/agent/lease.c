#include "lease.h"

#include "log.h"
#include "loop.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MARK "SANDBOX_NB_LEASE"

/* What of udhcpc's variables is handed over: lines NAME=VALUE on the standard output, which udhcpc leaves alone. */
static const char *const variables[] = {"ip", "mask", "router", "dns", "lease"};

/* The first is lent to a root that need not have one of its own; see root.c. */
static const char *const busyboxes[] = {"/run/sandbox_nb/modprobe", "/bin/busybox"};

bool lease_called(void)
{
	return getenv(MARK) != NULL;
}

void lease_hand_over(const char *event)
{
	if (strcmp(event, "bound") != 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(variables); i++)
		if (getenv(variables[i]))
			dprintf(STDOUT_FILENO, "%s=%s\n", variables[i], getenv(variables[i]));
}

/* The worker may be killed, and then nobody waits for the lease any more. */
static _Noreturn void run_udhcpc(const char *interface, const char *script, int output)
{
	char *argv[] = {
		"udhcpc", "-f", "-q", "-t", "0", "-T", "1", "-i", (char *)interface, "-s", (char *)script, NULL,
	};
	int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(nowhere, STDIN_FILENO);
	dup2(output, STDOUT_FILENO);
	if (!log_debug)
		dup2(nowhere, STDERR_FILENO);
	setenv(MARK, "", 1);
	for (size_t i = 0; i < ARRAY_SIZE(busyboxes); i++)
		execv(busyboxes[i], argv);
	_exit(127);
}

/* Reads to the end, which comes with udhcpc's. False when time is up before that. */
static bool read_until(int fd, uint64_t until, struct buffer *text)
{
	struct pollfd poller = {.fd = fd, .events = POLLIN};
	uint8_t piece[512];
	for (uint64_t now; (now = monotonic_ns()) < until;) {
		if (poll(&poller, 1, (int)((until - now) / NS_PER_MS) + 1) <= 0)
			continue;
		ssize_t n = read(fd, piece, sizeof piece);
		if (n <= 0)
			return true;
		buffer_append(text, piece, (size_t)n);
	}
	return false;
}

static struct bytes first_word(const char *text)
{
	return (struct bytes){(const uint8_t *)text, strcspn(text, " ")};
}

static void take_dns(struct lease *lease, const char *servers)
{
	for (; *servers && lease->n_dns < MAX_DNS; servers += strspn(servers, " ")) {
		struct bytes word = first_word(servers);
		if (address_parse(word, false, &lease->dns[lease->n_dns]))
			lease->n_dns++;
		servers += word.len;
	}
}

static void take_variable(struct lease *lease, const char *name, const char *value)
{
	uint64_t number;
	if (strcmp(name, "ip") == 0)
		address_parse(first_word(value), false, &lease->address);
	else if (strcmp(name, "mask") == 0 && text_number(value, 32, &number))
		lease->address.prefix = (unsigned)number; /* behind the address: see `variables` */
	else if (strcmp(name, "router") == 0)
		address_parse(first_word(value), false, &lease->gateway);
	else if (strcmp(name, "dns") == 0)
		take_dns(lease, value);
	else if (strcmp(name, "lease") == 0 && text_number(value, UINT32_MAX, &number))
		lease->seconds = (uint32_t)number;
}

static bool take_lease(struct lease *lease, struct buffer *text)
{
	char *fields[2];
	buffer_append(text, "", 1);
	*lease = (struct lease){0};
	if (text->failed)
		return false;
	char *cursor = (char *)text->at;
	for (char *line; (line = text_next_line(&cursor));)
		if (text_split(line, '=', fields, 2) == 2)
			take_variable(lease, fields[0], fields[1]);
	return lease->address.family != 0;
}

bool lease_ask(const char *interface, uint64_t until, struct lease *lease)
{
	char script[64];
	int fds[2];
	struct buffer text = {0};
	snprintf(script, sizeof script, "/proc/%d/exe", getppid());
	if (pipe2(fds, O_CLOEXEC) < 0)
		return false;
	pid_t pid = fork();
	if (pid == 0)
		run_udhcpc(interface, script, fds[1]);
	close(fds[1]);
	bool ended = pid > 0 && read_until(fds[0], until, &text);
	close(fds[0]);
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	bool found = ended && take_lease(lease, &text);
	buffer_free(&text);
	errno = ended ? ENOENT : ETIMEDOUT;
	return found;
}
