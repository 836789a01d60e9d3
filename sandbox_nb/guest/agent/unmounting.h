/* The other half of the Mount service's work; see mounting.h. */
#ifndef UNMOUNTING_H
#define UNMOUNTING_H

/* Unmounts `target`, a string, or fails and says who uses it. */
void unmounting_work(void *target);

/* Unmounts what is there of the targets in a struct strings, the last first. */
void unmounting_all_work(void *targets);

#endif
