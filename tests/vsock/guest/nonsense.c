// A vsock driver that is not one: from user space, through the device's PCI registers, it sets up queues as a driver would
// and fills them with rubbish, some of it nearly right. After each round it resets the device, as virtio 1.2 (2.1, 4.1)
// lets any driver do, and in the end leaves it to the kernel.

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "peer.h"

enum {
  ROUNDS = 300,
  QUEUES = 2,
  SIZE = 128,
  PAGE = 4096,
  AVAIL = 2048,  // where the rings lie in their page
  USED = 2560,
  PAGES = 8,  // two for the queues, the rest for buffers
};

// Registers of the common configuration structure (4.1.4.3).
struct common {
  uint32_t device_feature_select, device_feature, driver_feature_select, driver_feature;
  uint16_t config_vector, num_queues;
  uint8_t status, generation;
  uint16_t queue_select, queue_size, queue_vector, queue_enable, queue_notify_off;
  uint32_t queue_desc[2], queue_driver[2], queue_device[2];
};

enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
enum { CAP_COMMON = 1, CAP_NOTIFY = 2 };

struct device {
  volatile struct common *common;
  volatile uint8_t *notify;
  uint32_t notify_multiplier;
  uint8_t *memory;
  uint64_t physical[PAGES];
};

static uint64_t random_state = 88172645463325252u;

static uint32_t draw(uint32_t below) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (uint32_t)(random_state >> 16) % below;
}

static unsigned long read_number(const char *device, const char *name) {
  char path[300], text[32] = "";
  snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/%s", device, name);
  int fd = open(path, O_RDONLY);
  if (fd < 0 || read(fd, text, sizeof text - 1) < 0) text[0] = 0;
  close(fd);
  return strtoul(text, NULL, 0);
}

static int find_device(char *name, size_t size) {
  DIR *folder = opendir("/sys/bus/pci/devices");
  struct dirent *entry;
  int found = 0;
  while (folder && !found && (entry = readdir(folder))) {
    found = read_number(entry->d_name, "vendor") == 0x1AF4 && read_number(entry->d_name, "device") == 0x1053;
    if (found) snprintf(name, size, "%s", entry->d_name);
  }
  if (folder) closedir(folder);
  return found;
}

static volatile uint8_t *map_bar(const char *name, int bar) {
  char path[300];
  snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/resource%d", name, bar);
  int fd = open(path, O_RDWR);
  void *place = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  return place == MAP_FAILED ? NULL : place;
}

static void enable_bus_mastering(const char *name, uint8_t *config) {
  char path[300];
  uint16_t command = 6;  // memory space, bus master
  snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/config", name);
  int fd = open(path, O_RDWR);
  pwrite(fd, &command, sizeof command, 4);
  pread(fd, config, 256, 0);
  close(fd);
}

static int map_registers(const char *name, struct device *device) {
  uint8_t config[256] = {0};
  enable_bus_mastering(name, config);
  for (int cap = config[0x34]; cap; cap = config[cap + 1]) {
    uint32_t offset, multiplier;
    if (config[cap] != 9 || (config[cap + 3] != CAP_COMMON && config[cap + 3] != CAP_NOTIFY)) continue;
    memcpy(&offset, config + cap + 8, 4);
    memcpy(&multiplier, config + cap + 16, 4);
    volatile uint8_t *bar = map_bar(name, config[cap + 4]);
    if (!bar) return -1;
    if (config[cap + 3] == CAP_COMMON) {
      device->common = (volatile struct common *)(bar + offset);
    } else {
      device->notify = bar + offset;
      device->notify_multiplier = multiplier;
    }
  }
  return device->common && device->notify ? 0 : -1;
}

// Memory whose physical addresses are known: locked, and looked up in the page map.
static int get_memory(struct device *device) {
  device->memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED | MAP_POPULATE, -1, 0);
  int fd = open("/proc/self/pagemap", O_RDONLY);
  for (int page = 0; page < PAGES; page++) {
    uint64_t entry = 0;
    device->memory[page * PAGE] = 1;
    pread(fd, &entry, sizeof entry, ((uintptr_t)device->memory / PAGE + page) * sizeof entry);
    device->physical[page] = (entry & ((1ull << 55) - 1)) * PAGE;
    if (!device->physical[page]) return -1;
  }
  close(fd);
  return 0;
}

static void reset(struct device *device) {
  device->common->status = 0;
  while (device->common->status) usleep(100);
}

static void set_address(volatile uint32_t *place, uint64_t address) {
  place[0] = (uint32_t)address;
  place[1] = (uint32_t)(address >> 32);
}

static void start(struct device *device) {
  volatile struct common *common = device->common;
  common->status = ACKNOWLEDGE | DRIVER;
  common->driver_feature_select = 0;
  common->driver_feature = draw(2) ? 3u << 28 : 0;  // INDIRECT_DESC and EVENT_IDX, or neither
  common->driver_feature_select = 1;
  common->driver_feature = 1;  // VERSION_1
  common->status = ACKNOWLEDGE | DRIVER | FEATURES_OK;
  for (int queue = 0; queue < QUEUES; queue++) {
    common->queue_select = queue;
    common->queue_size = SIZE;
    set_address(common->queue_desc, device->physical[queue]);
    set_address(common->queue_driver, device->physical[queue] + AVAIL);
    set_address(common->queue_device, device->physical[queue] + USED);
    common->queue_enable = 1;
  }
  common->status = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
}

static void notify(struct device *device, int queue) {
  device->common->queue_select = queue;
  uint32_t offset = device->common->queue_notify_off * device->notify_multiplier;
  *(volatile uint16_t *)(device->notify + offset) = queue;
}

static void put(uint8_t *place, const void *value, size_t size) { memcpy(place, value, size); }

static void write_descriptor(struct device *device, uint8_t *place) {
  uint64_t address = device->physical[draw(PAGES)] + draw(PAGE);
  uint32_t length = (uint32_t[]){44, 44, 49, 4096, draw(65536), 0, 0xFFFFFFFF}[draw(7)];
  uint16_t flags = draw(8), follow = draw(SIZE + 2);
  if (!draw(20)) address = random_state;
  put(place, &address, 8);
  put(place + 8, &length, 4);
  put(place + 12, &flags, 2);
  put(place + 14, &follow, 2);
}

static void write_packet(uint8_t *place) {
  struct {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
  } header = {3, 2, draw(9), 5000 + draw(3), draw(100), 1, draw(10), draw(4), draw(1 << 20), draw(1 << 20)};
  put(place, &header, sizeof header);
}

static void write_rubbish(struct device *device) {
  int queue = draw(QUEUES);
  uint8_t *page = device->memory + queue * PAGE;
  for (int count = draw(20); count; count--) write_descriptor(device, page + 16 * draw(SIZE));
  for (int count = draw(6); count; count--) write_packet(device->memory + (2 + draw(PAGES - 2)) * PAGE + 16 * draw(100));
  for (int count = draw(20); count; count--) page[AVAIL + 4 + draw(2 * SIZE)] = draw(SIZE);
  uint16_t index;
  memcpy(&index, page + AVAIL + 2, 2);
  index += draw(10) ? draw(6) : draw(65536);
  put(page + AVAIL + 2, &index, 2);
  if (!draw(10)) page[draw(PAGE)] = draw(256);
  notify(device, queue);
}

void write_nonsense(void) {
  char name[256];
  struct device device = {0};
  while (!find_device(name, sizeof name)) usleep(10000);
  if (map_registers(name, &device) || get_memory(&device)) {
    puts("nonsense: failed");
    return;
  }
  for (int round = 0; round < ROUNDS; round++) {
    reset(&device);
    memset(device.memory, 0, PAGES * PAGE);
    start(&device);
    for (int count = 1 + draw(20); count; count--) {
      write_rubbish(&device);
      if (!draw(3)) usleep(draw(1000));
    }
    usleep(500);
  }
  reset(&device);
  puts("nonsense: done");
}
