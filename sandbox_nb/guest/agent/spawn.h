/* A new process, from fork to exec. */
#ifndef SPAWN_H
#define SPAWN_H

#include "user.h"

struct spawn {
	char **argv; /* argv[0] is looked up in PATH of `environment` */
	char **environment;
	const char *cwd;
	const struct user *user;
	int stdio[3];
	bool tty;   /* stdio is the terminal that is to control it */
	int cgroup; /* fd of the cgroup to begin in, or -1 */
};

/*
 * Starts it in a session of its own. Returns its pid; -1 with errno when there can be no more processes.
 *
 * What fails later is told by the child, as a shell would: on its standard error, with exit status 127 for a command that
 * is not there and 126 for one that cannot be run.
 */
pid_t spawn(const struct spawn *);

/* A child of the agent's own that runs `work` and ends. Of all fds it has these two, as 0 and 1, and standard error. */
pid_t spawn_worker(void (*work)(void *), void *context, int input, int output);

#endif
