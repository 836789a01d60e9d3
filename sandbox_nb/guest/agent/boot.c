#include "boot.h"

#include "bytes.h"
#include "log.h"
#include "text.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILES 65536
#define HIGHEST_PRIORITY (-20)
#define FAULT_AROUND "16384" /* bytes */
#define KEEP_RUNNING "4000000" /* nanoseconds: more than the 3 ms that a thread which has slept is let be ahead */

struct mount_point {
	const char *type, *target;
	unsigned long flags;
	const char *data;
};

static const struct mount_point mount_points[] = {
	{"proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
	{"sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
	{"devtmpfs", "/dev", MS_NOSUID, "mode=755"},
	{"devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
	{"tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"},
	{"tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755"},
	{"tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777"},
	{"cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
};

static const char *const links[][2] = {
	{"/proc/self/fd", "/dev/fd"},
	{"/proc/self/fd/0", "/dev/stdin"},
	{"/proc/self/fd/1", "/dev/stdout"},
	{"/proc/self/fd/2", "/dev/stderr"},
};

void boot_mounts(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(mount_points); i++) {
		const struct mount_point *point = &mount_points[i];
		mkdir(point->target, 0755);
		if (mount(point->type, point->target, point->type, point->flags, point->data) < 0 && errno != EBUSY)
			say("%s on %s: %s", point->type, point->target, strerror(errno));
	}
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
			say("%s: %s", links[i][1], strerror(errno));
}

/*
 * Cores are off until somebody raises their limit; then they are found in one place. The agent runs before everybody else: a
 * guest that a fork bomb keeps busy must still hear that it is to be ended.
 */
void boot_limits(void)
{
	struct rlimit files = {MAX_FILES, MAX_FILES};
	setrlimit(RLIMIT_NOFILE, &files);
	setpriority(PRIO_PROCESS, 0, HIGHEST_PRIORITY);
	text_write("/proc/sys/kernel/core_pattern", "/tmp/core.%e.%p");
}

/*
 * With one page of a file the kernel maps those around it, 64 KiB in all, and a program that ends unmaps them again. That
 * saves page faults, which are dear on a real processor. For an emulated one the pages are dearer: with 16 KiB a small program
 * is through in 7 % less time (a sixth fewer instructions).
 *
 * Each time a program writes to a terminal, a thread of the kernel wakes to carry that on, and where there is one processor
 * pushes the program aside (in Linux 6.1; later ones judge otherwise). Switching is so dear that a program writing lines takes
 * six times as long as when the thread waits for it to pause, or for the next tick. The price: a call that comes while a
 * program computes is answered with that tick, up to 4 ms later.
 *
 * The kernel has these knobs in a file system for debugging only, which must not stay mounted.
 */
void boot_emulated(void)
{
	const char *folder = "/sys/kernel/debug";
	if (mount("debugfs", folder, "debugfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0) {
		debug("the kernel maps what it likes: %s: %s", folder, strerror(errno));
		return;
	}
	text_write("/sys/kernel/debug/fault_around_bytes", FAULT_AROUND);
	text_write("/sys/kernel/debug/sched/wakeup_granularity_ns", KEEP_RUNNING);
	umount(folder);
}

/*
 * QEMU runs translations of the guest's code. When the kernel replaces an instruction, for the meantime by a breakpoint, a
 * processor that is just there may be left with the translation of the breakpoint and hit it for ever (QEMU 7.2: two starts in
 * 460 on a busy host). While it boots Linux replaces many, so it is told to boot with one processor, and the others come now.
 */
void boot_processors(void)
{
	char online[64];
	unsigned number = 1;
	do
		snprintf(online, sizeof online, "/sys/devices/system/cpu/cpu%u/online", number++);
	while (text_write(online, "1"));
	if (errno != ENOENT)
		say("a processor stays down: %s: %s", online, strerror(errno));
}

void boot_loopback(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		say("the loopback interface stays down: %s", strerror(errno));
	close(fd);
}
