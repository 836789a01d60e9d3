#include "uevent.h"

#include "disk.h"
#include "log.h"
#include "loop.h"
#include "spawn.h"
#include "text.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_PENDING 16
#define KERNEL_GROUP 1
#define VIRTIO_DEVICES "/sys/bus/virtio/devices"

/* A driver that is loaded already takes its device right after the event; only then it is known whether one is missing. */
#define SETTLE (20 * NS_PER_MS)

struct pending {
	char device[256]; /* beneath /sys */
	char alias[256];
};

static struct watch netlink;
static struct timer settle;
static void (*tell_others)(void);
static bool drivers_missing;

static struct pending pending[MAX_PENDING];
static size_t n_pending;
static pid_t modprobe;

static void run_modprobe(void *context)
{
	char *argv[MAX_PENDING + 5] = {"modprobe", "-b", "-q", "-a"};
	size_t n = 4;
	(void)context;
	for (size_t i = 0; i < n_pending; i++)
		argv[n++] = pending[i].alias;
	execv("/sbin/modprobe", argv);
}

static bool has_driver(const struct pending *device)
{
	char path[PATH_MAX];
	snprintf(path, sizeof path, "/sys%s/driver", device->device);
	return access(path, F_OK) == 0;
}

/* All that are missing in one go, and one modprobe at a time. */
static void load_missing(struct timer *timer)
{
	size_t missing = 0;
	(void)timer;
	if (modprobe)
		return;
	for (size_t i = 0; i < n_pending; i++)
		if (!has_driver(&pending[i]))
			pending[missing++] = pending[i];
	n_pending = missing;
	if (missing > 0)
		modprobe = spawn_worker(run_modprobe, NULL, -1, STDERR_FILENO);
	if (modprobe < 0)
		modprobe = 0;
	n_pending = 0;
}

void uevent_reaped(pid_t pid)
{
	if (pid != modprobe)
		return;
	modprobe = 0;
	if (n_pending > 0)
		load_missing(NULL);
}

static const char *value_of(const char *message, size_t len, const char *key)
{
	size_t key_len = strlen(key);
	for (size_t at = 0; at < len; at += strlen(message + at) + 1)
		if (strncmp(message + at, key, key_len) == 0 && message[at + key_len] == '=')
			return message + at + key_len + 1;
	return "";
}

static void handle_event(const char *message, size_t len)
{
	const char *action = value_of(message, len, "ACTION");
	const char *alias = value_of(message, len, "MODALIAS");
	const char *device = value_of(message, len, "DEVPATH");
	if (strcmp(value_of(message, len, "SUBSYSTEM"), "block") == 0)
		disk_event(action, value_of(message, len, "DEVNAME"));
	tell_others();
	if (!drivers_missing || !*alias || n_pending == MAX_PENDING || strcmp(action, "add") != 0)
		return;
	struct pending *entry = &pending[n_pending++];
	snprintf(entry->device, sizeof entry->device, "%s", device);
	snprintf(entry->alias, sizeof entry->alias, "%s", alias);
	timer_start(&settle, SETTLE, load_missing);
}

/* Only the kernel is believed: processes may write to this group too. */
static void netlink_ready(struct watch *watch, uint32_t events)
{
	char message[4096];
	struct sockaddr_nl from;
	socklen_t from_len = sizeof from;
	ssize_t n;
	(void)events;
	while ((n = recvfrom(watch->fd, message, sizeof message - 1, 0, (struct sockaddr *)&from, &from_len)) > 0) {
		message[n] = 0;
		if (from.nl_pid == 0)
			handle_event(message, (size_t)n);
	}
}

int uevent_open(void)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = KERNEL_GROUP};
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		say("the kernel's events are not to be heard: %s", strerror(errno));
	return fd;
}

void uevent_init(void (*tell)(void), bool missing)
{
	tell_others = tell;
	drivers_missing = missing;
	if (!watch_start(&netlink, uevent_open(), EPOLLIN, netlink_ready))
		say("devices that come will not be seen: %s", strerror(errno));
	disk_init();
}

bool uevent_wait(int fd, uint64_t until)
{
	struct pollfd poller = {.fd = fd, .events = POLLIN};
	char message[4096];
	uint64_t now = monotonic_ns();
	if (now >= until || poll(&poller, 1, (int)((until - now) / NS_PER_MS) + 1) <= 0)
		return false;
	while (recv(fd, message, sizeof message, 0) > 0)
		;
	return true;
}

void uevent_replay(void)
{
	DIR *devices = opendir(VIRTIO_DEVICES);
	for (struct dirent *entry; devices && (entry = readdir(devices));) {
		char path[PATH_MAX];
		snprintf(path, sizeof path, VIRTIO_DEVICES "/%s/uevent", entry->d_name);
		if (entry->d_name[0] != '.')
			text_write(path, "add");
	}
	if (devices)
		closedir(devices);
}
