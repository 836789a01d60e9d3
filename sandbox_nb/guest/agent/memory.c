/*
 * The compiler's own copies of these go byte by byte in what is built for size: a twentieth of the instructions that it takes
 * to run a command. Unaligned words are fine on both architectures.
 *
 * Only for the guest, which clang builds: with gcc the tests build an agent for the host, whose sanitizers bring their own.
 */
#include <stddef.h>
#include <stdint.h>

#ifdef __clang__

typedef uint64_t word __attribute__((may_alias, aligned(1)));

void *memset(void *to, int value, size_t len);
void *memcpy(void *restrict to, const void *restrict from, size_t len);

/* Without the attribute the compiler sees what the loop does, and calls the function it is in. */
__attribute__((no_builtin)) void *memset(void *to, int value, size_t len)
{
	const uint64_t pattern = (uint8_t)value * UINT64_C(0x0101010101010101);
	uint8_t *at = to;
	for (; len >= sizeof(word); len -= sizeof(word), at += sizeof(word))
		*(word *)at = pattern;
	while (len-- > 0)
		*at++ = (uint8_t)value;
	return to;
}

__attribute__((no_builtin)) void *memcpy(void *restrict to, const void *restrict from, size_t len)
{
	uint8_t *at = to;
	const uint8_t *next = from;
	for (; len >= sizeof(word); len -= sizeof(word), at += sizeof(word), next += sizeof(word))
		*(word *)at = *(const word *)next;
	while (len-- > 0)
		*at++ = *next++;
	return to;
}

#endif
