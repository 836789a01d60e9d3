#include "reap.h"

#include "cgroup.h"
#include "job.h"
#include "log.h"
#include "loop.h"
#include "power.h"
#include "process.h"
#include "uevent.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static struct watch signals;

void reap_children(void)
{
	int wait_status;
	pid_t pid;
	while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
		process_reaped(pid, wait_status);
		job_reaped(pid);
		uevent_reaped(pid);
	}
	cgroup_child_gone();
	if (pid < 0 && errno == ECHILD)
		power_no_children();
}

/* Each but SIGCHLD means the end: busybox's halt, poweroff and reboot send USR1, USR2 and TERM to process 1. */
static void signals_ready(struct watch *watch, uint32_t events)
{
	struct signalfd_siginfo info;
	(void)events;
	while (read(watch->fd, &info, sizeof info) == sizeof info)
		if (info.ssi_signo != SIGCHLD)
			power_go();
	reap_children();
}

void reap_init(void)
{
	sigset_t all, taken;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	sigemptyset(&taken);
	sigaddset(&taken, SIGCHLD);
	sigaddset(&taken, SIGTERM);
	sigaddset(&taken, SIGINT);
	sigaddset(&taken, SIGPWR);
	sigaddset(&taken, SIGUSR1);
	sigaddset(&taken, SIGUSR2);
	int fd = signalfd(-1, &taken, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0 || !watch_start(&signals, fd, EPOLLIN, signals_ready))
		die("signalfd");
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* where the agent is not process 1 */
}
