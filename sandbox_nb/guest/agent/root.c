#include "root.h"

#include "disk.h"
#include "log.h"
#include "text.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define POLL_EVERY (20 * NS_PER_MS)
#define WAIT_AT_MOST (10 * NS_PER_S)

/* In the initial file system, which nobody sees any more afterwards. */
#define DISK "/.root/disk"
#define MEMORY "/.root/memory"
#define MERGED "/.root/merged"

static struct root_disk wanted;
static struct timer poll_timer;
static uint64_t give_up_at;
static void (*tell)(enum status, const char *);

static bool known_type(const char *type)
{
	return strcmp(type, "erofs") == 0 || strcmp(type, "squashfs") == 0 || strcmp(type, "ext4") == 0;
}

static bool take_text(struct bytes text, char *out, size_t size)
{
	if (text.len == 0 || text.len >= size || !bytes_printable(text))
		return false;
	memcpy(out, text.at, text.len);
	out[text.len] = 0;
	return true;
}

bool root_disk_parse(struct bytes message, struct root_disk *disk)
{
	struct bytes serial = {0}, type = {0};
	struct pb_reader in = pb_read(message);
	for (struct pb_field field; pb_next(&in, &field);)
		switch (field.tag) {
		case PB_BYTES(1):
			serial = field.bytes;
			break;
		case PB_BYTES(2):
			type = field.bytes;
			break;
		}
	return !in.broken && take_text(serial, disk->serial, sizeof disk->serial) &&
	       take_text(type, disk->type, sizeof disk->type) && known_type(disk->type);
}

static bool make_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)
{
	if (mkdir(target, 0755) < 0 && errno != EEXIST)
		return false;
	return mount(source, target, type, flags, data) == 0;
}

static bool stack_layers(const char *device)
{
	mkdir("/.root", 0700);
	return make_mount(device, DISK, wanted.type, MS_RDONLY, NULL) &&
	       make_mount("tmpfs", MEMORY, "tmpfs", 0, "mode=755") && mkdir(MEMORY "/upper", 0755) == 0 &&
	       mkdir(MEMORY "/work", 0755) == 0 &&
	       make_mount("overlay", MERGED, "overlay", 0,
			  "lowerdir=" DISK ",upperdir=" MEMORY "/upper,workdir=" MEMORY "/work");
}

static void unstack_layers(void)
{
	umount2(MERGED, MNT_DETACH);
	umount2(MEMORY, MNT_DETACH);
	umount2(DISK, MNT_DETACH);
}

/*
 * The new root need not hold the kernel's modules, nor a modprobe for them: both are lent by the initial file system.
 * (busybox takes the name it is called by for the applet.)
 */
static void lend_modules(void)
{
	mkdir("/run/sandbox_nb", 0755);
	if (text_write("/run/sandbox_nb/modprobe", "") &&
	    mount("/bin/busybox", "/run/sandbox_nb/modprobe", NULL, MS_BIND, NULL) == 0)
		text_write("/proc/sys/kernel/modprobe", "/run/sandbox_nb/modprobe");
	mkdir(MERGED "/lib/modules", 0755);
	if (mount("/lib/modules", MERGED "/lib/modules", NULL, MS_BIND, NULL) < 0)
		say("the new root has no kernel modules: %s", strerror(errno));
}

static bool enter_new_root(void)
{
	static const char *const moved[] = {"/dev", "/proc", "/sys", "/run", "/tmp"};
	for (size_t i = 0; i < ARRAY_SIZE(moved); i++) {
		char target[64];
		snprintf(target, sizeof target, MERGED "%s", moved[i]);
		mkdir(target, 0755);
		if (mount(moved[i], target, NULL, MS_MOVE, NULL) < 0)
			say("%s stays behind: %s", moved[i], strerror(errno));
	}
	return chdir(MERGED) == 0 && mount(".", "/", NULL, MS_MOVE, NULL) == 0 && chroot(".") == 0 && chdir("/") == 0;
}

static void settle(enum status status, const char *problem)
{
	timer_stop(&poll_timer);
	give_up_at = 0;
	tell(status, problem);
}

static void switch_to(const char *device)
{
	char problem[PATH_MAX + 128];
	if (!stack_layers(device)) {
		snprintf(problem, sizeof problem, "%s cannot be mounted as %s beneath an overlay: %s", device, wanted.type,
			 strerror(errno));
		unstack_layers();
		settle(STATUS_FAILED_PRECONDITION, problem);
		return;
	}
	lend_modules();
	if (enter_new_root())
		settle(STATUS_OK, NULL);
	else
		settle(STATUS_INTERNAL, strerror(errno));
}

static void look(struct timer *timer)
{
	char id[DISK_ID_MAX], device[PATH_MAX], problem[128];
	(void)timer;
	disk_id(wanted.serial, id);
	if (disk_find(id, device)) {
		switch_to(device);
	} else if (monotonic_ns() < give_up_at) {
		timer_start(&poll_timer, POLL_EVERY, look);
	} else {
		snprintf(problem, sizeof problem, "no disk with the serial '%s' has come within 10 s", wanted.serial);
		settle(STATUS_NOT_FOUND, problem);
	}
}

void root_switch(const struct root_disk *disk, void (*settled)(enum status, const char *))
{
	wanted = *disk;
	tell = settled;
	give_up_at = monotonic_ns() + WAIT_AT_MOST;
	look(NULL);
}

void root_nudge(void)
{
	if (give_up_at)
		look(NULL);
}
