/*
 * guard OWNER_PIDFD [--uid UID --gid GID] [--readonly FOLDER] [--cgroup FOLDER | --tasks FILE…] [--data BYTES]
 *       [--processor NUMBER…] -- COMMAND [ARGUMENT…]
 *
 * Runs COMMAND in a session of its own and ends it, with its whole process group, when the owner of the pidfd is gone,
 * however it went. Killing the guard ends COMMAND too. SIGTERM and SIGINT are passed on; the guard ends with COMMAND's exit
 * status, 128 + n when signal n ended it, 127 when there is no such command, 126 when it cannot be run.
 *
 * All fds but the pidfd are COMMAND's; the guard keeps only standard error, so that nobody waits for an end of file that
 * the guard holds back. --readonly has COMMAND see FOLDER and all below it read-only, for a program that cannot refuse writes
 * itself; it takes root. A crash of COMMAND leaves no core file: it would hold a guest's memory. The kernel's parent-death
 * signal is safe here, unlike in a notebook: it is sent when the *thread* that forked ends, and the guard has only one.
 *
 * COMMAND is held to what a machine may take: --cgroup starts it in a control group of version 2, --tasks in groups of
 * version 1 by their files of that name; --data is its RLIMIT_DATA, and --processor names those it may run on. The guard
 * itself is in none of them: it has to outlive what is ended for wanting too much.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_TASKS 8
#define EXIT_USAGE 125
#define EXIT_CANNOT_RUN 126
#define EXIT_NOT_FOUND 127

struct options {
	int owner;
	bool drop;
	uid_t uid;
	gid_t gid;
	const char *readonly;
	const char *cgroup;
	const char *tasks[MAX_TASKS];
	size_t tasks_count;
	rlim_t data;
	cpu_set_t processors;
	char **command;
};

static _Noreturn void usage(void)
{
	dprintf(STDERR_FILENO, "usage: guard OWNER_PIDFD [--uid UID --gid GID] [--readonly FOLDER] [--cgroup FOLDER | --tasks FILE…]\n"
			       "             [--data BYTES] [--processor NUMBER…] -- COMMAND [ARGUMENT…]\n");
	_exit(EXIT_USAGE);
}

static _Noreturn void fail(const char *what, int status)
{
	dprintf(STDERR_FILENO, "guard: %s: %s\n", what, strerror(errno));
	_exit(status);
}

/* A number below `limit`. */
static unsigned long number(const char *text, unsigned long limit)
{
	char *end;
	errno = 0;
	unsigned long value = text ? strtoul(text, &end, 10) : 0;
	if (!text || !*text || *end || errno || value >= limit)
		usage();
	return value;
}

/* What holds COMMAND to what it may take; false for another flag. */
static bool parse_cap(struct options *options, const char *flag, const char *value)
{
	if (strcmp(flag, "--cgroup") == 0)
		options->cgroup = value;
	else if (strcmp(flag, "--tasks") == 0 && options->tasks_count < MAX_TASKS)
		options->tasks[options->tasks_count++] = value;
	else if (strcmp(flag, "--data") == 0)
		options->data = number(value, ~0UL);
	else if (strcmp(flag, "--processor") == 0)
		CPU_SET(number(value, CPU_SETSIZE), &options->processors);
	else
		return false;
	return true;
}

static struct options parse(char **args)
{
	bool uid = false, gid = false;
	struct options options = {.data = RLIM_INFINITY};
	if (!*args)
		usage();
	options.owner = (int)number(*args++, INT_MAX);
	for (; *args && strcmp(*args, "--") != 0; args += 2) {
		if (!args[1])
			usage();
		if (strcmp(*args, "--uid") == 0 && (uid = true))
			options.uid = (uid_t)number(args[1], UINT_MAX);
		else if (strcmp(*args, "--gid") == 0 && (gid = true))
			options.gid = (gid_t)number(args[1], UINT_MAX);
		else if (strcmp(*args, "--readonly") == 0)
			options.readonly = args[1];
		else if (!parse_cap(&options, *args, args[1]))
			usage();
	}
	if (!*args || !args[1] || uid != gid)
		usage();
	options.drop = uid;
	options.command = args + 1;
	return options;
}

/* The guard may have died before the signal was set, and then it never comes. */
static void die_with(pid_t guard)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != guard)
		_exit(EXIT_CANNOT_RUN);
}

/* In a mount namespace of COMMAND's own. What is mounted there later, on the host, does not come through. */
static void make_readonly(const char *folder)
{
	struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
	if (unshare(CLONE_NEWNS) < 0 || syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE,
		    &(struct mount_attr){.propagation = MS_PRIVATE}, sizeof attributes) < 0)
		fail("a mount namespace", EXIT_CANNOT_RUN);
	int tree = (int)syscall(SYS_open_tree, AT_FDCWD, folder, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	if (tree < 0 || syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes,
			       sizeof attributes) < 0 ||
	    syscall(SYS_move_mount, tree, "", AT_FDCWD, folder, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		fail(folder, EXIT_CANNOT_RUN);
}

static void drop_privileges(const struct options *options)
{
	if (setgroups(0, NULL) < 0 || setresgid(options->gid, options->gid, options->gid) < 0 ||
	    setresuid(options->uid, options->uid, options->uid) < 0)
		fail("dropping privileges", EXIT_CANNOT_RUN);
}

/* Moves this process, which has one thread, into the group of a file: cgroup.procs, or tasks in version 1. */
static void enter(int folder, const char *file)
{
	int fd = openat(folder, file, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		fail(file, EXIT_CANNOT_RUN);
	close(fd);
}

static void hold_to_caps(const struct options *options)
{
	for (size_t i = 0; i < options->tasks_count; i++)
		enter(AT_FDCWD, options->tasks[i]);
	if (options->data != RLIM_INFINITY && setrlimit(RLIMIT_DATA, &(struct rlimit){options->data, options->data}) < 0)
		fail("--data", EXIT_CANNOT_RUN);
	if (CPU_COUNT(&options->processors) && sched_setaffinity(0, sizeof options->processors, &options->processors) < 0)
		fail("--processor", EXIT_CANNOT_RUN);
}

/*
 * Forks, the child in its group from its first moment. To move a process costs the whole host a wait for all its
 * processors; a kernel or a filter of calls that knows no clone3 leaves nothing else. Version 1 has a cheap way, for a thread.
 */
static pid_t fork_into_group(const char *cgroup)
{
	if (!cgroup)
		return fork();
	int folder = open(cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		fail(cgroup, EXIT_CANNOT_RUN);
	struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (unsigned)folder};
	pid_t child = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (child < 0 && (errno == ENOSYS || errno == EPERM || errno == E2BIG || errno == EINVAL)) {
		child = fork();
		if (child == 0)
			enter(folder, "cgroup.procs");
	}
	close(folder);
	return child;
}

static _Noreturn void run(const struct options *options, pid_t guard, const sigset_t *signals)
{
	setsid();
	die_with(guard);
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	hold_to_caps(options);
	if (options->readonly)
		make_readonly(options->readonly);
	if (options->drop) {
		drop_privileges(options);
		die_with(guard); /* new credentials have cleared it */
	}
	sigprocmask(SIG_SETMASK, signals, NULL);
	execvp(options->command[0], options->command);
	fail(options->command[0], errno == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN);
}

/* Moves the two fds watched to 0 and 1 and closes all others but standard error. */
static void keep_only(int *owner, int *signals)
{
	int high_signals = fcntl(*signals, F_DUPFD_CLOEXEC, 3);
	if (high_signals < 0 || dup2(*owner, 0) < 0 || dup2(high_signals, 1) < 0)
		fail("fds", EXIT_CANNOT_RUN);
	syscall(SYS_close_range, 3, ~0U, 0);
	*owner = 0;
	*signals = 1;
}

/* What COMMAND has started and left behind goes with it. */
static void kill_group(pid_t child)
{
	kill(-child, SIGKILL);
	kill(child, SIGKILL); /* it may not have its own group yet */
}

static void pass_on(int signals, pid_t child)
{
	struct signalfd_siginfo info;
	while (read(signals, &info, sizeof info) == sizeof info)
		if (info.ssi_signo != SIGCHLD)
			kill(child, (int)info.ssi_signo);
}

static int watch(int owner, int signals, pid_t child)
{
	struct pollfd fds[] = {{.fd = owner, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
	int status;
	while (waitpid(child, &status, WNOHANG) == 0) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[0].revents) {
			kill_group(child);
			fds[0].fd = -1;
		}
		pass_on(signals, child);
	}
	kill(-child, SIGKILL);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
	struct options options = parse(argv + (argc > 0));
	pid_t guard = getpid();
	sigset_t taken, before;
	/* A terminal's interrupt key is for the owner, who decides what it ends. */
	setsid();
	sigemptyset(&taken);
	sigaddset(&taken, SIGTERM);
	sigaddset(&taken, SIGINT);
	sigaddset(&taken, SIGCHLD);
	sigprocmask(SIG_BLOCK, &taken, &before);
	int signals = signalfd(-1, &taken, SFD_NONBLOCK | SFD_CLOEXEC);
	if (signals < 0 || fcntl(options.owner, F_SETFD, FD_CLOEXEC) < 0)
		fail("OWNER_PIDFD", EXIT_USAGE);
	pid_t child = fork_into_group(options.cgroup);
	if (child < 0)
		fail("fork", EXIT_CANNOT_RUN);
	if (child == 0)
		run(&options, guard, &before);
	keep_only(&options.owner, &signals);
	return watch(options.owner, signals, child);
}
