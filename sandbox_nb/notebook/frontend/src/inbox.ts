/**
 * Numbered bytes: what of a message is new to this view.
 *
 * A message can come twice, since what is replayed for one view reaches all of them, and it can be missing,
 * since a Jupyter server drops what exceeds its rate.
 */
export class Inbox {
  /** The number of the byte that comes next. */
  next = 0;

  /** The new part of `bytes`, which begin with number `at`; null when bytes before them are missing. */
  take(at: number, bytes: Uint8Array): Uint8Array | null {
    if (at > this.next) return null;
    const fresh = bytes.subarray(this.next - at);
    this.next += fresh.length;
    return fresh;
  }
}
