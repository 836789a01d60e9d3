import type { FromKernel, Receive, ServerSettings } from "./model";

/** Where server.py takes calls. */
const PATH = "sandbox-nb/terminal/";

const LINE_FEED = 10;

/** The short way to a terminal: a websocket, as terminal_wire.py tells. */
export class Wire {
  private readonly socket: WebSocket;
  private readonly encoder = new TextEncoder();
  private readonly decoder = new TextDecoder();

  /**
   * Call the terminal `name`. `opened` is called when it answers, and `lost` when the wire is cut, with whether it
   * had been open; neither after `close`.
   */
  constructor(
    server: ServerSettings,
    name: string,
    receive: Receive,
    opened: () => void,
    lost: (opened: boolean) => void,
  ) {
    const url = new URL(PATH + name, server.wsUrl.replace(/\/?$/, "/"));
    if (server.appendToken && server.token) url.searchParams.set("token", server.token);
    this.socket = new WebSocket(url);
    this.socket.binaryType = "arraybuffer";
    let answered = false;
    this.socket.onopen = () => {
      answered = true;
      opened();
    };
    this.socket.onclose = () => lost(answered);
    this.socket.onmessage = ({ data }: MessageEvent<ArrayBuffer>) => receive(...this.unpack(new Uint8Array(data)));
  }

  get open(): boolean {
    return this.socket.readyState === WebSocket.OPEN;
  }

  send(message: object, buffer: Uint8Array = new Uint8Array()): void {
    const head = this.encoder.encode(`${JSON.stringify(message)}\n`);
    const frame = new Uint8Array(head.length + buffer.length);
    frame.set(head);
    frame.set(buffer, head.length);
    this.socket.send(frame);
  }

  close(): void {
    this.socket.onopen = this.socket.onclose = this.socket.onmessage = null;
    this.socket.close();
  }

  private unpack(frame: Uint8Array): [FromKernel, Uint8Array] {
    const end = frame.indexOf(LINE_FEED);
    return [JSON.parse(this.decoder.decode(frame.subarray(0, end))), frame.subarray(end + 1)];
  }
}
