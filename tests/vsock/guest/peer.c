// The guest's end of the tests and benchmarks: an /init that loads modules, then serves requests on vsock port 5000, TCP
// port 5000 and, where there is one, a virtio-serial port. The same code moves the bytes whatever the transport.
//
// A request is 24 bytes, little-endian: verb (u32), block (u32), count (u64), argument (u64). Verbs:
//   'E' echo until the end of input, then close.
//   'S' sink: read `count` bytes (or to the end of input when it is ~0), answer their CRC-32 as u64.
//   'G' generate: send `count` bytes in blocks of random size up to `block`, then their CRC-32 as u64.
//   'B' like 'S' and 'G' without a checksum, for benchmarks: argument 0 reads `count` bytes in reads of `block` and
//       answers one u64, argument 1 writes `count` bytes in writes of `block`.
//   'P' ping: echo single bytes, `count` of them.
//   'D' dial host port `argument`, `count` times one after the other, and serve requests on each; answers nothing.
//   'H' hold: read nothing for `count` milliseconds, then as 'S' with ~0.
//   'R' reboot the machine, 'O' power it off.
// With argument bit 8 of 'S' and 'G' set, there are random pauses. After 'S', 'G', 'B', 'P' the next request is read.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "peer.h"

enum { PORT = 5000, BLOCK_MAX = 1 << 20, PAUSES = 1 << 8 };

struct request {
  uint32_t verb;
  uint32_t block;
  uint64_t count;
  uint64_t argument;
};

static uint32_t crc_table[8][256];

static void make_crc_table(void) {
  for (uint32_t n = 0; n < 256; n++) {
    uint32_t c = n;
    for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
    crc_table[0][n] = c;
  }
  for (uint32_t n = 0; n < 256; n++)
    for (int k = 1; k < 8; k++)
      crc_table[k][n] = crc_table[0][crc_table[k - 1][n] & 0xFF] ^ (crc_table[k - 1][n] >> 8);
}

static uint32_t crc32_update(uint32_t crc, const uint8_t *data, size_t size) {
  crc = ~crc;
  for (; size >= 8; data += 8, size -= 8) {
    uint64_t word;
    memcpy(&word, data, 8);
    word ^= crc;
    crc = 0;
    for (int k = 0; k < 8; k++) crc ^= crc_table[7 - k][(word >> (8 * k)) & 0xFF];
  }
  while (size--) crc = crc_table[0][(crc ^ *data++) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

static uint64_t next_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  return *state ^= *state << 17;
}

static void pause_sometimes(uint64_t *state) {
  if (next_random(state) % 64 == 0) usleep(next_random(state) % 3000);
}

static int read_all(int fd, void *data, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t n = read(fd, (char *)data + done, size - done);
    if (n <= 0) return -1;
    done += n;
  }
  return 0;
}

static int write_all(int fd, const void *data, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t n = write(fd, (const char *)data + done, size - done);
    if (n <= 0) return -1;
    done += n;
  }
  return 0;
}

static int answer(int fd, uint64_t value) { return write_all(fd, &value, sizeof value); }

static int echo(int fd, uint8_t *buffer) {
  ssize_t n;
  while ((n = read(fd, buffer, BLOCK_MAX)) > 0)
    if (write_all(fd, buffer, n)) return -1;
  return -1;
}

static int sink(int fd, uint8_t *buffer, const struct request *request) {
  uint64_t state = request->argument | 1, left = request->count;
  uint32_t crc = 0;
  while (left) {
    size_t block = 1 + next_random(&state) % BLOCK_MAX;
    ssize_t n = read(fd, buffer, block < left ? block : left);
    if (n <= 0) break;
    crc = crc32_update(crc, buffer, n);
    left -= n;
    if (request->argument & PAUSES) pause_sometimes(&state);
  }
  return answer(fd, crc);
}

static int generate(int fd, uint8_t *buffer, const struct request *request) {
  uint64_t state = request->argument * 2654435761u | 1;
  uint32_t crc = 0;
  for (size_t i = 0; i < BLOCK_MAX; i += 8) {
    uint64_t word = next_random(&state);
    memcpy(buffer + i, &word, 8);
  }
  for (uint64_t left = request->count; left;) {
    size_t size = 1 + next_random(&state) % request->block;
    if (size > left) size = left;
    uint8_t *from = buffer + next_random(&state) % (BLOCK_MAX - size + 1);
    crc = crc32_update(crc, from, size);
    if (write_all(fd, from, size)) return -1;
    left -= size;
    if (request->argument & PAUSES) pause_sometimes(&state);
  }
  return answer(fd, crc);
}

static int bench(int fd, uint8_t *buffer, const struct request *request) {
  for (uint64_t left = request->count; left;) {
    size_t size = request->block < left ? request->block : left;
    ssize_t n = request->argument ? write(fd, buffer, size) : read(fd, buffer, size);
    if (n <= 0) return -1;
    left -= n;
  }
  return request->argument ? 0 : answer(fd, request->count);
}

static int ping(int fd, uint64_t count) {
  char byte;
  while (count--)
    if (read(fd, &byte, 1) != 1 || write_all(fd, &byte, 1)) return -1;
  return 0;
}

static int vsock_socket(void) {
  int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
  uint64_t size = 1 << 20;
  setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_MAX_SIZE, &size, sizeof size);
  setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &size, sizeof size);
  return fd;
}

static void serve(int fd);

static void dial(const struct request *request) {
  for (uint64_t i = 0; i < request->count; i++) {
    int fd = vsock_socket();
    struct sockaddr_vm address = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = request->argument};
    if (!connect(fd, (struct sockaddr *)&address, sizeof address)) serve(fd);
    close(fd);
  }
}

static void serve(int fd) {
  struct request request;
  uint8_t *buffer = malloc(BLOCK_MAX);
  int failed = 0;
  while (!failed && !read_all(fd, &request, sizeof request)) {
    if (request.block < 1 || request.block > BLOCK_MAX) request.block = BLOCK_MAX;
    switch (request.verb) {
      case 'E': failed = echo(fd, buffer); break;
      case 'S': failed = sink(fd, buffer, &request); break;
      case 'G': failed = generate(fd, buffer, &request); break;
      case 'B': failed = bench(fd, buffer, &request); break;
      case 'P': failed = ping(fd, request.count); break;
      case 'D': dial(&request); break;
      case 'H':
        usleep(request.count * 1000);
        request.count = ~0ull;
        failed = sink(fd, buffer, &request);
        break;
      case 'R': reboot(RB_AUTOBOOT); break;
      case 'O': reboot(RB_POWER_OFF); break;
      default: failed = 1;
    }
  }
  free(buffer);
}

static void *serve_thread(void *argument) {
  int fd = (int)(intptr_t)argument;
  serve(fd);
  close(fd);
  return NULL;
}

static void start(void *(*run)(void *), intptr_t argument) {
  pthread_t thread;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  while (pthread_create(&thread, &attributes, run, (void *)argument)) usleep(1000);
}

static void *accept_thread(void *argument) {
  int listener = (int)(intptr_t)argument, one = 1;
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) continue;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    start(serve_thread, fd);
  }
  return NULL;
}

static void listen_vsock(void) {
  int fd = vsock_socket();
  struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = PORT};
  if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1024)) perror("vsock");
  start(accept_thread, fd);
}

// QEMU's user network gives the guest 10.0.2.15; nothing but this address is needed for connections from the host.
static void listen_tcp(void) {
  struct ifreq request = {.ifr_name = "eth0"};
  struct sockaddr_in *own = (struct sockaddr_in *)&request.ifr_addr;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  own->sin_family = AF_INET;
  own->sin_addr.s_addr = htonl(0x0A00020F);
  if (ioctl(fd, SIOCSIFADDR, &request)) return;
  own->sin_addr.s_addr = htonl(0xFFFFFF00);
  ioctl(fd, SIOCSIFNETMASK, &request);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  ioctl(fd, SIOCSIFFLAGS, &request);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
  if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1024)) perror("tcp");
  start(accept_thread, fd);
}

// A virtio-serial port reads as ended while no host is connected; then it is opened again.
static void *serial_thread(void *argument) {
  (void)argument;
  for (;;) {
    int fd = open("/dev/vport0p1", O_RDWR);
    if (fd >= 0) {
      serve(fd);
      close(fd);
    }
    usleep(50000);
  }
  return NULL;
}

static int wanted(const char *path, const char *const *names) {
  if (!names) return 1;
  for (; *names; names++)
    if (strstr(path, *names)) return 1;
  return 0;
}

// The image lists its modules in the order they must be loaded in; `names` leaves all others out.
static void load_modules(const char *file, const char *const *names) {
  char path[256];
  FILE *list = fopen(file, "r");
  while (list && fgets(path, sizeof path, list)) {
    path[strcspn(path, "\n")] = 0;
    if (!wanted(path, names)) continue;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)) perror(path);
    close(fd);
  }
  if (list) fclose(list);
}

static int command_line_has(const char *word) {
  char line[4096] = "";
  int fd = open("/proc/cmdline", O_RDONLY);
  read(fd, line, sizeof line - 1);
  close(fd);
  return strstr(line, word) != NULL;
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  mkdir("/proc", 0755);
  mkdir("/sys", 0755);
  mkdir("/dev", 0755);
  mount("proc", "/proc", "proc", 0, "");
  mount("sysfs", "/sys", "sysfs", 0, "");
  mount("devtmpfs", "/dev", "devtmpfs", 0, "");
  make_crc_table();
  if (command_line_has("peer.nonsense")) write_nonsense();
  load_modules("/etc/sandbox_nb/modules.boot", NULL);
  load_modules("/etc/sandbox_nb/modules.late",
               (const char *[]){"/failover.", "/net_failover.", "/virtio_net.", "/virtio_console.", NULL});
  listen_vsock();
  listen_tcp();
  start(serial_thread, 0);
  puts("peer: ready");
  fflush(stdout);
  for (;;) pause();
}
