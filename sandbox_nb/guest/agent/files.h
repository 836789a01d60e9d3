/* The Files service: whole files, over streams. */
#ifndef FILES_H
#define FILES_H

#include "rpc.h"

void files_read(struct call *, struct bytes request);
void files_write(struct call *, struct bytes request);

#endif
