#include "peer.h"
void write_nonsense(void) {}
