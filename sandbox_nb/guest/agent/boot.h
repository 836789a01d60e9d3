/* What the first process of a machine owes to the others: file systems, limits, the loopback interface. */
#ifndef BOOT_H
#define BOOT_H

void boot_mounts(void);
void boot_limits(void);
void boot_loopback(void);

/* To be called where the processor is emulated; the second when all modules have been loaded. */
void boot_emulated(void);
void boot_processors(void);

#endif
