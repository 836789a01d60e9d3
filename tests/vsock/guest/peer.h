#pragma once

// Drive the vsock device by hand and wrongly, again and again, then leave it reset for the kernel's driver.
void write_nonsense(void);
