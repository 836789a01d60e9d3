#include "spawn.h"

#include "bytes.h"
#include "clone.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXIT_CANNOT_RUN 126
#define EXIT_NOT_FOUND 127
#define STACK_SIZE (64 * 1024)

static uint8_t child_stack[STACK_SIZE] __attribute__((aligned(16)));

static _Noreturn void give_up(const char *what, int error)
{
	const char *reason = error == ENOENT ? "command not found" : strerror(error);
	dprintf(STDERR_FILENO, "sandbox: %s: %s\n", what, reason);
	_exit(error == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN);
}

/* The agent blocks every signal and handles none, so the mask is all there is to restore. */
static void unblock_signals(void)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Each of the three may be the same fd, and any may be below 3 already: first out of the way, then in place. */
static bool set_stdio(const int stdio[3])
{
	int high[3];
	for (int i = 0; i < 3; i++) {
		high[i] = stdio[i] > 2 ? stdio[i] : fcntl(stdio[i], F_DUPFD_CLOEXEC, 3);
		if (high[i] < 0)
			return false;
	}
	for (int i = 0; i < 3; i++)
		if (dup2(high[i], i) < 0)
			return false;
	return true;
}

/* System calls without the C library, which would tell threads that are not there, in memory that is the parent's. */
static bool become(const struct user *user)
{
	if (user->uid == geteuid() && user->gid == getegid())
		return true;
	return syscall(SYS_setgroups, user->n_groups, user->groups) == 0 &&
	       syscall(SYS_setresgid, user->gid, user->gid, user->gid) == 0 &&
	       syscall(SYS_setresuid, user->uid, user->uid, user->uid) == 0;
}

static const char *value_of(char *const *environment, const char *key)
{
	size_t len = strlen(key);
	for (; *environment; environment++)
		if (strncmp(*environment, key, len) == 0 && (*environment)[len] == '=')
			return *environment + len + 1;
	return "";
}

/*
 * execvp tries every folder of PATH by an execve, of which the kernel does half before it sees that nothing is there. To
 * ask first saves a start the tenth part of its time.
 */
static void exec_in_path(const struct spawn *spawn)
{
	char file[PATH_MAX];
	int error = ENOENT;
	const char *path = value_of(spawn->environment, "PATH");
	for (; *path; path += strspn(path, ":")) {
		size_t len = strcspn(path, ":");
		int size = snprintf(file, sizeof file, "%.*s/%s", (int)len, path, spawn->argv[0]);
		path += len;
		if (size >= (int)sizeof file || access(file, F_OK) < 0)
			continue;
		execve(file, spawn->argv, spawn->environment);
		if (errno != ENOENT)
			error = errno;
		if (errno != ENOENT && errno != EACCES && errno != ENOTDIR)
			break;
	}
	errno = error;
}

static bool is_bare_name(const struct spawn *spawn)
{
	return !strchr(spawn->argv[0], '/');
}

/* Runs in memory that may be the parent's: it changes nothing there but its stack and errno. */
static void run_child(const void *context)
{
	const struct spawn *spawn = context;
	setsid();
	setpriority(PRIO_PROCESS, 0, 0); /* the agent's is higher */
	if (!set_stdio(spawn->stdio))
		_exit(EXIT_CANNOT_RUN);
	if (spawn->tty && ioctl(STDIN_FILENO, TIOCSCTTY, 0) < 0)
		give_up("the terminal", errno);
	if (!become(spawn->user))
		give_up("the user", errno);
	if (chdir(spawn->cwd) < 0)
		give_up(spawn->cwd, errno);
	unblock_signals();
	if (is_bare_name(spawn))
		exec_in_path(spawn);
	else
		execve(spawn->argv[0], spawn->argv, spawn->environment);
	give_up(spawn->argv[0], errno);
}

/*
 * As vfork: the child borrows the agent's memory, and the agent waits until it has executed its program. That takes a fifth
 * off a start. A program named by its path may lie on a share whose server hangs; the agent must not hang with it, so those
 * get memory of their own and are not waited for.
 */
pid_t spawn(const struct spawn *spawn)
{
	struct clone_args args = {.exit_signal = SIGCHLD};
	if (is_bare_name(spawn))
		args.flags |= CLONE_VM | CLONE_VFORK;
	/* Straight into its cgroup: to be moved there later takes the kernel milliseconds. */
	if (spawn->cgroup >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)spawn->cgroup;
	}
	pid_t pid = clone_and_run(&args, child_stack, sizeof child_stack, run_child, spawn);
	if (pid >= 0)
		return pid;
	errno = -pid;
	return -1;
}

pid_t spawn_worker(void (*work)(void *), void *context, int input, int output)
{
	pid_t pid = fork();
	if (pid != 0)
		return pid;
	if ((input >= 0 && dup2(input, STDIN_FILENO) < 0) || dup2(output, STDOUT_FILENO) < 0)
		_exit(EXIT_CANNOT_RUN);
	syscall(SYS_close_range, 3, ~0U, 0);
	unblock_signals();
	work(context);
	_exit(0);
}
