#include "job.h"

#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_JOBS 64
#define MAX_RESULT (64 * 1024)

/* The child's result is one byte of status, and behind it the payload or the message. */
struct job {
	struct job *next;
	struct watch pipe;
	struct buffer result;
	struct call *call; /* NULL once it was dropped */
	pid_t pid;         /* 0 once reaped */
	void (*ended)(void *context, bool done);
	void *context;
};

static struct job *jobs;
static unsigned n_jobs;

static void finish_call(struct call *call, const struct buffer *result)
{
	struct buffer payload = {result->at + 1, result->len - 1, 0, result->failed};
	if (result->len == 0)
		call_fail(call, STATUS_INTERNAL, "the agent's worker for %s ended without a result", call->method->name);
	else if (result->at[0] == STATUS_OK)
		call_reply(call, &payload);
	else
		call_fail(call, result->at[0], "%.*s", (int)payload.len, (const char *)payload.at);
}

static void job_end(struct job *job)
{
	for (struct job **link = &jobs; *link; link = &(*link)->next)
		if (*link == job) {
			*link = job->next;
			break;
		}
	watch_close(&job->pipe);
	if (job->ended)
		job->ended(job->context, job->result.len > 0 && job->result.at[0] == STATUS_OK);
	if (job->call)
		finish_call(job->call, &job->result);
	buffer_free(&job->result);
	free(job);
	n_jobs--;
}

static void pipe_ready(struct watch *watch, uint32_t events)
{
	struct job *job = CONTAINER_OF(watch, struct job, pipe);
	uint8_t piece[4096];
	(void)events;
	ssize_t n = read(watch->fd, piece, sizeof piece);
	if (n > 0 && job->result.len < MAX_RESULT)
		buffer_append(&job->result, piece, (size_t)n);
	else if (n <= 0 && errno != EINTR)
		job_end(job);
}

static void job_dropped(struct call *call)
{
	struct job *job = call->context;
	job->call = NULL;
	if (job->pid)
		kill(job->pid, SIGTERM);
}

static bool job_fork(struct job *job, int stream, void (*work)(void *), void *context)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0)
		return false;
	job->pid = spawn_worker(work, context, stream, fds[1]);
	close(fds[1]);
	if (job->pid > 0 && watch_start(&job->pipe, fds[0], EPOLLIN, pipe_ready))
		return true;
	close(fds[0]);
	return false;
}

static void begin(struct call *call, int stream, void (*work)(void *), void *context, void (*ended)(void *, bool))
{
	struct job *job = n_jobs < MAX_JOBS ? calloc(1, sizeof *job) : NULL;
	if (job && job_fork(job, stream, work, context)) {
		job->ended = ended;
		job->context = context;
		job->call = call;
		job->next = jobs;
		jobs = job;
		n_jobs++;
		call->context = job;
		call->dropped = job_dropped;
	} else {
		free(job);
		if (ended)
			ended(context, false);
		call_fail(call, STATUS_RESOURCE_EXHAUSTED,
			  "64 files, mounts and interfaces are being worked on already, or the guest is out of memory");
	}
	if (stream >= 0)
		close(stream);
}

void job_start(struct call *call, int stream, void (*work)(void *), void *context)
{
	begin(call, stream, work, context, NULL);
}

void job_start_told(struct call *call, void (*work)(void *), void *context, void (*ended)(void *, bool))
{
	begin(call, -1, work, context, ended);
}

void job_reaped(pid_t pid)
{
	for (struct job *job = jobs; job; job = job->next)
		if (job->pid == pid)
			job->pid = 0;
}

static void write_result(uint8_t status, const void *data, size_t len)
{
	struct buffer result = {0};
	buffer_append(&result, &status, 1);
	buffer_append(&result, data, len);
	if (write(STDOUT_FILENO, result.at, result.len) < 0)
		_exit(1);
	buffer_free(&result);
}

void job_reply(const struct buffer *payload)
{
	write_result(STATUS_OK, payload->at, payload->len);
}

void job_fail(enum status status, const char *format, ...)
{
	char message[512];
	va_list args;
	va_start(args, format);
	vsnprintf(message, sizeof message, format, args);
	va_end(args);
	write_result((uint8_t)status, message, strlen(message));
	_exit(0);
}
