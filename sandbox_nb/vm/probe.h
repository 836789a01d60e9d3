/*
 * What the probe writes: "proven!" and a newline, lowest byte first, as the sum of two halves. It is added up in a vector
 * register of the guest, so it cannot be had without running guest code.
 */
#define FIRST_HALF 0x051037323b373938
#define SECOND_HALF 0x051137333b383938
