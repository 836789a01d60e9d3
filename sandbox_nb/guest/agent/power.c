#include "power.h"

#include "log.h"
#include "process.h"
#include "reap.h"
#include "setup.h"
#include "text.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>

/* How long processes may take to end by themselves, and the kernel to end those that did not. */
#define GRACE (200 * NS_PER_MS)

static bool owns_machine;
static struct timer grace;
static enum { ON, ASKED, KILLED } state = ON;

void power_init(bool machine)
{
	owns_machine = machine;
}

static void signal_everybody(int signal)
{
	if (owns_machine)
		kill(-1, signal); /* all but the caller and the kernel's own */
	else
		process_signal_all(signal);
}

/* File systems with something behind them that would miss a write; those in memory end with it. */
static bool is_backed(const char *source, const char *type)
{
	return strncmp(source, "/dev/", 5) == 0 || strcmp(type, "9p") == 0 || strcmp(type, "virtiofs") == 0;
}

/* Last mounted, first unmounted: from the end of the list to its begin. */
static void unmount_all(char *mounts)
{
	char *fields[4], *line = strrchr(mounts, '\n');
	for (; line; line = strrchr(mounts, '\n')) {
		*line = 0;
		char *start = strrchr(mounts, '\n');
		if (text_split(start ? start + 1 : mounts, ' ', fields, 4) == 4 && is_backed(fields[0], fields[2]))
			if (umount2(fields[1], 0) < 0)
				mount(NULL, fields[1], NULL, MS_REMOUNT | MS_RDONLY, NULL);
		if (start)
			start[1] = 0;
	}
}

static _Noreturn void switch_off(void)
{
	if (!owns_machine)
		exit(0); /* not _exit: the leak check of a sanitizer build runs there */
	char *mounts = text_read("/proc/self/mounts");
	sync();
	if (mounts)
		unmount_all(mounts);
	rpc_end(); /* all is written: the host need not wait for the kernel to take its devices down */
	reboot(RB_POWER_OFF);
	die("power off");
}

static void grace_over(struct timer *timer)
{
	(void)timer;
	if (state == KILLED)
		switch_off();
	state = KILLED;
	signal_everybody(SIGKILL);
	timer_start(&grace, GRACE, grace_over);
}

void power_go(void)
{
	if (state != ON)
		return;
	state = ASKED;
	setup_leave();
	signal_everybody(SIGTERM);
	timer_start(&grace, GRACE, grace_over);
	reap_children(); /* there may be none already */
}

void power_off(struct call *call, struct bytes request)
{
	(void)request;
	call_reply(call, NULL);
	rpc_drain();
	power_go();
}

void power_no_children(void)
{
	if (state != ON)
		switch_off();
}
