#include "spawn.h"

#include "bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXIT_CANNOT_RUN 126
#define EXIT_NOT_FOUND 127

extern char **environ;

/* Straight into its cgroup: to be moved there later takes the kernel milliseconds. */
static pid_t fork_into(int cgroup)
{
	struct clone_args args = {
		.flags = CLONE_INTO_CGROUP,
		.exit_signal = SIGCHLD,
		.cgroup = (uint64_t)cgroup,
	};
	if (cgroup < 0)
		return fork();
	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

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

static bool become(const struct user *user)
{
	if (user->uid == geteuid() && user->gid == getegid())
		return true;
	return setgroups(user->n_groups, user->groups) == 0 && setresgid(user->gid, user->gid, user->gid) == 0 &&
	       setresuid(user->uid, user->uid, user->uid) == 0;
}

/* stdio[2] tells what fails; all other fds of the agent are closed by the exec. */
static _Noreturn void run_child(const struct spawn *spawn)
{
	setsid();
	if (!set_stdio(spawn->stdio))
		_exit(EXIT_CANNOT_RUN);
	if (spawn->tty && ioctl(STDIN_FILENO, TIOCSCTTY, 0) < 0)
		give_up("the terminal", errno);
	if (!become(spawn->user))
		give_up("the user", errno);
	if (chdir(spawn->cwd) < 0)
		give_up(spawn->cwd, errno);
	unblock_signals();
	environ = spawn->environment;
	execvp(spawn->argv[0], spawn->argv);
	give_up(spawn->argv[0], errno);
}

pid_t spawn(const struct spawn *spawn)
{
	pid_t pid = fork_into(spawn->cgroup);
	if (pid == 0)
		run_child(spawn);
	return pid;
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
