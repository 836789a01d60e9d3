/* The Files service. The work is done by children of the agent's: a file system may keep its callers waiting. */
#ifndef FILES_H
#define FILES_H

#include "rpc.h"

void files_read(struct call *, struct bytes request);
void files_write(struct call *, struct bytes request);
void files_stat(struct call *, struct bytes request);
void files_list(struct call *, struct bytes request);
void files_mkdir(struct call *, struct bytes request);
void files_remove(struct call *, struct bytes request);
void files_pack(struct call *, struct bytes request);
void files_unpack(struct call *, struct bytes request);

#endif
