#include "process.h"

#include "await.h"
#include "cgroup.h"
#include "events.h"
#include "oom.h"
#include "standard.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_RUNNING 512
#define MAX_EXITED 1024
#define MAX_SIGNAL 64

/* The latest started or ended first. */
static struct process *processes;
static unsigned n_running, n_exited;

struct process *process_find(struct bytes id)
{
	for (struct process *process = processes; process; process = process->next)
		if (bytes_equal(id, process->id))
			return process;
	return NULL;
}

bool process_room(void)
{
	return n_running < MAX_RUNNING;
}

static void speaks(struct lates *);

struct process *process_new(struct bytes id)
{
	struct process *process = calloc(1, sizeof *process);
	if (!process)
		return NULL;
	memcpy(process->id, id.at, MIN(id.len, PROCESS_ID_MAX));
	process->lates.speaks = speaks;
	return process;
}

void process_free(struct process *process)
{
	relay_detach(&process->input);
	lates_leave(&process->lates);
	cgroup_release(process->cgroup);
	free(process);
}

static void link_first(struct process *process)
{
	process->next = processes;
	processes = process;
}

static void unlink_from_list(struct process *process)
{
	for (struct process **link = &processes; *link; link = &(*link)->next)
		if (*link == process) {
			*link = process->next;
			return;
		}
}

/* `pid` is the process itself or one that it, or what it started, has started. */
static void killed_for_memory(pid_t pid)
{
	unsigned cgroup = cgroup_of(pid);
	for (struct process *process = processes; process; process = process->next)
		if ((process->running && process->pid == pid) || (cgroup != NO_CGROUP && process->cgroup == cgroup)) {
			process->out_of_memory = true;
			events_out_of_memory(process->id);
			return;
		}
}

void process_add(struct process *process)
{
	process->running = true;
	n_running++;
	oom_watch(killed_for_memory);
	link_first(process);
	events_started(process->id, process->pid);
}

static void forget_exited(struct process *process)
{
	unlink_from_list(process);
	n_exited--;
	process_free(process);
}

/* A host that never waits must not fill the memory. */
static void evict_oldest_exited(void)
{
	struct process *oldest = NULL;
	for (struct process *process = processes; process; process = process->next)
		if (!process->running)
			oldest = process;
	if (n_exited > MAX_EXITED)
		forget_exited(oldest);
}

/* NULL when the call was failed. */
static struct process *find_or_fail(struct call *call, struct bytes id)
{
	struct process *process = process_find(id);
	if (!process)
		call_fail(call, STATUS_NOT_FOUND, "there is no process '%.*s'; it is forgotten once it was waited for",
			  (int)MIN(id.len, PROCESS_ID_MAX), (const char *)id.at);
	return process;
}

/* For the requests that hold an id and nothing else; false when the call was failed. */
static bool read_id(struct call *call, struct bytes request, struct bytes *id)
{
	struct pb_reader in = pb_read(request);
	for (struct pb_field field; pb_next(&in, &field);)
		if (field.tag == PB_BYTES(1))
			*id = field.bytes;
	return call_decoded(call, &in);
}

static struct process *read_process(struct call *call, struct bytes request)
{
	struct bytes id = {0};
	return read_id(call, request, &id) ? find_or_fail(call, id) : NULL;
}

static int exit_code(int wait_status)
{
	return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 0;
}

static int end_signal(int wait_status)
{
	return WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;
}

static void put_end(struct buffer *response, const struct process *process)
{
	int status = process->wait_status;
	pb_put_varint(response, 1, (uint64_t)exit_code(status));
	pb_put_varint(response, 2, (uint64_t)end_signal(status));
	pb_put_varint(response, 3, WIFSIGNALED(status) && WCOREDUMP(status));
	pb_put_varint(response, 4, process->out_of_memory);
}

/* All in the list hear the same. */
static void reply_to(struct call **calls, const struct buffer *response)
{
	for (struct call *call; (call = *calls);) {
		*calls = call->sibling;
		call_reply(call, response);
	}
}

static void reply_running(struct process *process)
{
	struct buffer response = {0};
	pb_put_varint(&response, 5, true);
	lates_tell(&process->lates, &response);
	reply_to(&process->listeners, &response);
	buffer_free(&response);
}

static void reply_end(struct process *process)
{
	struct buffer response = {0};
	put_end(&response, process);
	lates_finish(&process->lates, &response);
	reply_to(&process->waiters, &response);
	reply_to(&process->listeners, &response);
	buffer_free(&response);
	forget_exited(process);
}

static void speaks(struct lates *lates)
{
	struct process *process = CONTAINER_OF(lates, struct process, lates);
	if (process->listeners)
		reply_running(process);
}

static bool drop_from(struct call **calls, struct call *call)
{
	for (struct call **link = calls; *link; link = &(*link)->sibling)
		if (*link == call) {
			*link = call->sibling;
			return true;
		}
	return false;
}

static void wait_dropped(struct call *call)
{
	struct process *process = call->context;
	if (!drop_from(&process->waiters, call))
		drop_from(&process->listeners, call);
}

void process_wait(struct call *call, struct bytes request)
{
	struct bytes id = {0};
	uint64_t or_output = 0;
	struct pb_reader in = pb_read(request);
	for (struct pb_field field; pb_next(&in, &field);)
		switch (field.tag) {
		case PB_BYTES(1):
			id = field.bytes;
			break;
		case PB_VARINT(2):
			or_output = field.varint;
			break;
		}
	if (!call_decoded(call, &in) || (!process_find(id) && await_process(call, request)))
		return;
	struct process *process = find_or_fail(call, id);
	if (!process)
		return;
	struct call **calls = or_output ? &process->listeners : &process->waiters;
	call->context = process;
	call->dropped = wait_dropped;
	call->sibling = *calls;
	*calls = call;
	if (!process->running)
		reply_end(process);
	else if (or_output && lates_wait(&process->lates))
		reply_running(process);
}

/* Killed is also a shell whose last command was: it tells so by 128 + 9. */
static bool was_killed(int wait_status)
{
	return end_signal(wait_status) == SIGKILL || exit_code(wait_status) == 128 + SIGKILL;
}

void process_reaped(pid_t pid, int wait_status)
{
	struct process *process = processes;
	while (process && !(process->running && process->pid == pid))
		process = process->next;
	if (!process)
		return;
	if (was_killed(wait_status))
		oom_catch_up();
	else
		process->out_of_memory = false; /* one it started was ended, and it coped */
	unlink_from_list(process);
	link_first(process);
	process->running = false;
	process->wait_status = wait_status;
	n_running--;
	n_exited++;
	events_exited(process->id, process->pid, exit_code(wait_status), end_signal(wait_status));
	if (process->waiters || process->listeners)
		reply_end(process);
	else
		evict_oldest_exited();
	cgroup_prepare(); /* while the host reads the answer */
}

/* Without a cgroup its process group has to do, which a process leaves as it likes. */
static bool signal_everything(const struct process *process, int signal)
{
	if (process->cgroup != NO_CGROUP)
		return cgroup_signal(process->cgroup, signal);
	return kill(-process->pid, signal) == 0;
}

void process_kill(struct call *call, struct bytes request)
{
	struct bytes id = {0};
	uint64_t signal = 0, all = 0;
	struct pb_reader in = pb_read(request);
	for (struct pb_field field; pb_next(&in, &field);)
		switch (field.tag) {
		case PB_BYTES(1):
			id = field.bytes;
			break;
		case PB_VARINT(2):
			signal = field.varint;
			break;
		case PB_VARINT(3):
			all = field.varint;
			break;
		}
	struct process *process = call_decoded(call, &in) ? find_or_fail(call, id) : NULL;
	if (!process)
		return;
	if (signal < 1 || signal > MAX_SIGNAL) {
		call_fail(call, STATUS_INVALID_ARGUMENT, "signal %llu: 1 to 64 is needed", (unsigned long long)signal);
		return;
	}
	bool sent = all ? signal_everything(process, (int)signal)
			: process->running && kill(process->pid, (int)signal) == 0;
	if (sent)
		call_reply(call, NULL);
	else
		call_fail(call, STATUS_NOT_FOUND, "process '%s' has ended already", process->id);
}

void process_resize_pty(struct call *call, struct bytes request)
{
	struct bytes id = {0}, size_message = {0};
	struct winsize size;
	struct pb_reader in = pb_read(request);
	for (struct pb_field field; pb_next(&in, &field);)
		switch (field.tag) {
		case PB_BYTES(1):
			id = field.bytes;
			break;
		case PB_BYTES(2):
			size_message = field.bytes;
			break;
		}
	struct process *process = call_decoded(call, &in) ? find_or_fail(call, id) : NULL;
	if (!process)
		return;
	if (!window_size_parse(size_message, &size))
		call_fail(call, STATUS_INVALID_ARGUMENT, "a terminal has at most 65535 rows and columns");
	else if (!process->input || ioctl(relay_output(process->input), TIOCSWINSZ, &size) < 0)
		call_fail(call, STATUS_FAILED_PRECONDITION, "process '%s' has no terminal, or not any more", process->id);
	else
		call_reply(call, NULL);
}

void process_close_io(struct call *call, struct bytes request)
{
	struct process *process = read_process(call, request);
	if (!process)
		return;
	if (process->input)
		relay_close_input(process->input);
	call_reply(call, NULL);
}

static void put_pid(pid_t pid, void *context)
{
	pb_put_packed(context, (uint64_t)pid);
}

void process_pids(struct call *call, struct bytes request)
{
	struct process *process = read_process(call, request);
	if (!process)
		return;
	struct buffer pids = {0}, response = {0};
	if (process->cgroup != NO_CGROUP)
		cgroup_each(process->cgroup, put_pid, &pids);
	else if (process->running)
		put_pid(process->pid, &pids);
	pb_put_bytes(&response, 1, pids.at, pids.len);
	response.failed |= pids.failed;
	call_reply(call, &response);
	buffer_free(&pids);
	buffer_free(&response);
}

void process_signal_all(int signal)
{
	for (struct process *process = processes; process; process = process->next)
		if (process->running || process->cgroup != NO_CGROUP)
			signal_everything(process, signal);
}
