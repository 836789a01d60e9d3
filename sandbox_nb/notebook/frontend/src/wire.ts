import type { FromKernel, Receive } from "./model";

const LINE_FEED = 10;

/** Milliseconds after which it is laid: in them a terminal that has ended may say so, and needs none. */
const SOON = 100;

/** Milliseconds after which one that was cut is laid again; twice as many each time until something comes by it. */
const AGAIN = 3000;
const AGAIN_AT_MOST = 60_000;

/** What the wire tells the link. */
export interface Ends {
  receive: Receive;
  opened(): void;
  /** It was open, and is no longer. */
  lost(): void;
}

/**
 * The short way to a terminal: a websocket, as terminal_wire.py tells.
 *
 * A wire that never was open is not laid again, since server and kernel may be on two machines; one that was is.
 */
export class Wire {
  private socket: WebSocket | null = null;
  private timer = 0;
  private pause = AGAIN;
  /** Whether this one was opened, any ever was, and the first was not. */
  private opened = false;
  private worked = false;
  private refused = false;
  private readonly encoder = new TextEncoder();
  private readonly decoder = new TextDecoder();

  constructor(
    private readonly url: URL,
    private readonly ends: Ends,
  ) {}

  get open(): boolean {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  /** Lay it, if it is not there nor about to be. */
  lay(): void {
    if (this.socket === null && this.timer === 0 && !this.refused) this.callIn(SOON);
  }

  /** The page is connected again: what failed before may work. */
  again(): void {
    if (this.open) return;
    this.takeUp();
    if (this.worked) this.lay();
  }

  send(message: object, buffer: Uint8Array = new Uint8Array()): void {
    const head = this.encoder.encode(`${JSON.stringify(message)}\n`);
    const frame = new Uint8Array(head.length + buffer.length);
    frame.set(head);
    frame.set(buffer, head.length);
    this.socket!.send(frame);
  }

  /** Give it up, as it seems dead, and lay it again later. */
  cut(): void {
    const lost = this.opened;
    this.takeUp();
    this.refused = !this.worked;
    if (this.refused) return;
    this.callIn(this.pause);
    this.pause = Math.min(2 * this.pause, AGAIN_AT_MOST);
    if (lost) this.ends.lost();
  }

  /** Take it up. It may be laid anew, also where it was not to be had before. */
  takeUp(): void {
    window.clearTimeout(this.timer);
    this.timer = 0;
    this.opened = this.refused = false;
    if (this.socket === null) return;
    this.socket.onopen = this.socket.onclose = this.socket.onmessage = null;
    this.socket.close();
    this.socket = null;
  }

  private callIn(milliseconds: number): void {
    this.timer = window.setTimeout(() => {
      this.timer = 0;
      this.call();
    }, milliseconds);
  }

  private call(): void {
    const socket = (this.socket = new WebSocket(this.url));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.opened = this.worked = true;
      this.ends.opened();
    };
    socket.onclose = () => this.cut();
    socket.onmessage = ({ data }: MessageEvent<ArrayBuffer>) => {
      this.pause = AGAIN;
      this.ends.receive(...this.unpack(new Uint8Array(data)));
    };
  }

  private unpack(frame: Uint8Array): [FromKernel, Uint8Array] {
    const end = frame.indexOf(LINE_FEED);
    return [JSON.parse(this.decoder.decode(frame.subarray(0, end))), frame.subarray(end + 1)];
  }
}
