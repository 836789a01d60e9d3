/**
 * Numbered bytes on their way: what was typed is kept until the kernel says that it was taken.
 *
 * What goes by a connection that is lost may be lost with it, or come after what was sent by another. Sent again it
 * comes once, since the kernel knows each byte by its number.
 */
export class Outbox {
  /** The number of the first byte that is kept. */
  begin = 0;
  private end = 0;
  private pieces: Uint8Array[] = [];

  /** Keep bytes; return the number of the first. */
  add(bytes: Uint8Array): number {
    const at = this.end;
    this.pieces.push(bytes);
    this.end += bytes.length;
    return at;
  }

  /** Everything below this number was taken. */
  taken(number: number): void {
    while (this.begin < number && this.pieces.length > 0) {
      const piece = this.pieces[0]!;
      const rest = piece.subarray(number - this.begin);
      this.begin += piece.length - rest.length;
      if (rest.length > 0) this.pieces[0] = rest;
      else this.pieces.shift();
    }
  }

  /** All that is kept. */
  get rest(): Uint8Array {
    const rest = new Uint8Array(this.end - this.begin);
    let at = 0;
    for (const piece of this.pieces) {
      rest.set(piece, at);
      at += piece.length;
    }
    return rest;
  }
}
