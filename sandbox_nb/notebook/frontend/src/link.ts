import { Inbox } from "./inbox";
import type { FromKernel, FromView, Kernel, Model, Shape } from "./model";
import { Outbox } from "./outbox";
import { addressOf } from "./server";
import { Wire } from "./wire";

/**
 * Bytes drawn after which the kernel is told, out of the 1.5 MB it sends ahead. Every message of ours costs the
 * server and the page more than that: the kernel is busy and idle with it, and everybody is told so.
 */
const ACK_EVERY = 512 * 1024;

/** Milliseconds after which it is told of less, unless another message tells it. */
const ACK_AFTER = 400;

/** Bytes of input in a message at most: a Jupyter server hangs up on who brings 10 MiB at once. */
const PIECE = 1024 * 1024;

/** Milliseconds after which a key is followed by a nudge even if the kernel has not taken it up. */
const UNTAKEN = 12;

/** Milliseconds until a hello is repeated; the kernel may not have had our subshell yet when the first came. */
const HELLO_AGAIN = 500;

/** Milliseconds after which a message that the kernel has not taken up shows that it is busy. */
const BUSY_AFTER = 1500;

/** Milliseconds after which a wire by which hello is not answered is taken for dead. */
const UNANSWERED = 2000;

/** What the link tells the view. */
export interface Receiver {
  /** Draw the bytes, then call `drawn`. `old` when programs have had their answers to questions in them. */
  output(bytes: Uint8Array, old: boolean, drawn: () => void): void;
  /** What was drawn is not the beginning of what comes: begin anew. */
  reset(): void;
  shape(shape: Shape): void;
  end(ending: string): void;
  /** The kernel does not take up messages, or does again. */
  busy(busy: boolean): void;
  /** The page has no way to the kernel for now, or has one again. */
  connected(connected: boolean): void;
  /** The kernel that ran this terminal is gone. */
  gone(): void;
}

/** One view's side of the protocol described in terminal_session.py: over the comm, and soon over a wire if it can. */
export class Link {
  /** Our name among the views of this terminal. (`crypto.randomUUID` needs https.) */
  readonly name = Math.random().toString(36).slice(2);

  private readonly kernel: Kernel | null | undefined;
  private readonly inbox = new Inbox();
  private readonly outbox = new Outbox();
  private readonly encoder = new TextEncoder();
  private readonly wire: Wire | null;
  /** Timers of what went by the comm and has not been taken up. */
  private readonly untaken = new Set<number>();
  /** The number of the last hello, and of the last that went by the wire. */
  private turn = 0;
  private wireTurn = 0;
  private size = { rows: 0, cols: 0 };
  private welcomed = false;
  private answered = 0;
  private drawn = 0;
  private acked = 0;
  private ackTimer = 0;
  private helloTimer = 0;
  private closed = false;
  /** Whether the page is hidden. */
  private away = false;
  /** Whether this front end tells what became of a message. */
  private tells = false;
  private ending: { at: number; text: string } | null = null;
  /** Whether the receiver was told of it. */
  private over = false;

  constructor(
    private readonly model: Model,
    private readonly receiver: Receiver,
  ) {
    this.kernel = model.widget_manager?.kernel;
    const address = addressOf(document, this.kernel, model.get("display_id"));
    this.wire = address && new Wire(address, { receive: this.receive, opened: this.hello, lost: this.hello });
  }

  /** Say hello with this size, and go on until answered. */
  open(rows: number, cols: number): void {
    this.size = { rows, cols };
    this.model.on("msg:custom", this.hear);
    // ipywidgets sets comm_live anew only when the kernel restarts.
    this.model.on("comm_live_update", this.lose);
    this.watch();
    this.hello();
    this.wire?.lay();
  }

  close(): void {
    if (this.closed) return;
    this.send({ kind: "bye" });
    this.drop();
  }

  /**
   * The page is seen again, or hidden. Browsers let hidden pages do next to nothing, and the program would have to
   * wait for them; one that comes back is sent what it missed.
   */
  show(visible: boolean): void {
    if (visible) {
      this.away = false;
      this.hello();
    } else {
      this.send({ kind: "bye" });
      this.stopHello();
      this.away = true;
      this.welcomed = false;
    }
  }

  resize(rows: number, cols: number): void {
    this.size = { rows, cols };
    if (this.welcomed) this.send({ kind: "size", rows, cols });
  }

  focus(): void {
    this.send({ kind: "focus" });
  }

  input(text: string | Uint8Array): void {
    const bytes = typeof text === "string" ? this.encoder.encode(text) : text;
    const at = this.outbox.add(bytes);
    // Until then it waits for the welcome.
    if (this.welcomed) this.type(at, bytes);
  }

  /**
   * Send what was typed and, over the comm, a nudge when the kernel has taken it up.
   *
   * jupyter_server leaves Nagle's algorithm on: the echo waits until the kernel's "busy" before it is
   * acknowledged, which TCP may put off for 40 ms unless the page has something to send. So it sends something.
   */
  private type(at: number, bytes: Uint8Array): void {
    for (let begin = 0; begin < bytes.length; begin += PIECE) {
      const piece = bytes.subarray(begin, begin + PIECE);
      this.send({ kind: "input", at: at + begin }, piece, () => this.nudge());
    }
  }

  /** Acknowledge something when the function returned is called, or soon, unless output has come by then. */
  private nudge(): () => void {
    const { next } = this.inbox;
    const nudge = () => {
      window.clearTimeout(timer);
      if (this.inbox.next === next) this.acknowledge();
    };
    const timer = window.setTimeout(nudge, UNTAKEN);
    return nudge;
  }

  // Kernel's side

  /** Take a message of the comm. */
  private hear = (message: FromKernel, buffers: DataView[]): void => {
    const bytes = buffers[0];
    this.receive(message, bytes ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength) : new Uint8Array());
  };

  private receive = (message: FromKernel, bytes: Uint8Array): void => {
    switch (message.kind) {
      case "welcome":
        // One by the comm does not say that the wire works.
        if (message.view === this.name && message.turn >= this.wireTurn && !this.away) this.welcome(message);
        break;
      case "who":
        // One that is under way tells as much.
        if (message.view === this.name && this.helloTimer === 0) this.hello();
        break;
      case "output":
        this.outbox.taken(message.typed[this.name] ?? 0);
        if (this.welcomed) this.output(message.at, bytes);
        break;
      case "size":
        if (this.welcomed) this.receiver.shape(message);
        break;
      case "sync":
        if (!this.welcomed) break;
        if (message.at > this.inbox.next) this.hello();
        else this.acknowledge();
        break;
      case "end":
        this.ending = { at: message.at, text: message.ending };
        if (!this.wire?.open) this.wire?.takeUp();
        this.finish();
        break;
    }
  };

  private welcome(message: FromKernel & { kind: "welcome" }): void {
    this.stopHello();
    this.answered = message.answered;
    if (message.at > this.inbox.next) {
      this.receiver.reset();
      this.inbox.next = this.drawn = this.acked = message.at;
    }
    this.welcomed = true;
    this.forget(...this.untaken);
    this.receiver.busy(false);
    this.receiver.shape(message);
    this.outbox.taken(message.typed);
    const { begin, rest } = this.outbox;
    // Else there is a later hello under way, whose answer knows more.
    if (message.turn === this.turn) this.type(begin, rest);
    if (this.ending === null) this.wire?.lay();
  }

  private output(at: number, bytes: Uint8Array): void {
    const fresh = this.inbox.take(at, bytes);
    if (fresh === null) {
      this.hello();
      return;
    }
    const begin = this.inbox.next - fresh.length;
    const old = Math.min(Math.max(this.answered - begin, 0), fresh.length);
    this.draw(fresh.subarray(0, old), true, begin + old);
    this.draw(fresh.subarray(old), false, this.inbox.next);
  }

  private draw(bytes: Uint8Array, old: boolean, end: number): void {
    if (bytes.length === 0) return;
    this.receiver.output(bytes, old, () => {
      this.drawn = Math.max(this.drawn, end);
      if (end - this.acked >= ACK_EVERY) this.acknowledge();
      else if (this.ackTimer === 0) this.ackTimer = window.setTimeout(this.acknowledge, ACK_AFTER);
      this.finish();
    });
  }

  private acknowledge = (): void => this.send({ kind: "ack" });

  private finish(): void {
    if (this.over || this.ending === null || this.drawn < this.ending.at) return;
    this.over = true;
    this.wire?.takeUp();
    this.receiver.end(this.ending.text);
  }

  // Our side

  private hello = (): void => {
    this.stopHello();
    if (this.away) return;
    this.turn += 1;
    if (this.wire?.open) {
      this.wireTurn = this.turn;
      this.helloTimer = window.setTimeout(() => this.wire!.cut(), UNANSWERED);
    } else {
      this.helloTimer = window.setTimeout(this.hello, HELLO_AGAIN);
    }
    this.send({ kind: "hello", ...this.size, at: this.inbox.next, typed: this.outbox.begin });
  };

  private stopHello(): void {
    window.clearTimeout(this.helloTimer);
    this.helloTimer = 0;
  }

  /**
   * Send a message by the wire or the comm, and with it how far we are. `byComm` is called if it is the comm, and
   * what it returns when the kernel begins to act on it.
   */
  private send(content: FromView, bytes?: Uint8Array, byComm?: () => () => void): void {
    if (this.closed || this.away) return;
    window.clearTimeout(this.ackTimer);
    this.ackTimer = 0;
    this.acked = this.drawn;
    const message = { view: this.name, turn: this.turn, drawn: this.drawn, ...content };
    if (this.wire?.open) this.wire.send(message, bytes);
    else this.sendByComm(message, bytes, byComm?.());
  }

  private sendByComm(message: FromView, bytes?: Uint8Array, taken?: () => void): void {
    const wait = window.setTimeout(() => {
      this.untaken.delete(wait);
      if (this.tells || !this.welcomed) this.receiver.busy(true);
    }, BUSY_AFTER);
    this.untaken.add(wait);
    const status = ({ content }: { content: { execution_state: string } }) => {
      if (content.execution_state !== "busy") return;
      this.forget(wait);
      this.tells = true;
      this.receiver.busy(false);
      taken?.();
    };
    try {
      // Front ends send the whole ArrayBuffer of a view.
      this.model.send(message, { iopub: { status } }, bytes && [bytes.slice().buffer as ArrayBuffer]);
    } catch {
      // "Cannot send": the front end knows that the kernel is gone.
      this.lose();
    }
  }

  private forget(...waits: number[]): void {
    for (const wait of waits) {
      window.clearTimeout(wait);
      this.untaken.delete(wait);
    }
  }

  // What becomes of kernel and connection

  private watch(): void {
    this.kernel?.statusChanged.connect(this.onStatus);
    this.kernel?.connectionStatusChanged.connect(this.onConnection);
    this.kernel?.disposed.connect(this.lose);
  }

  private onStatus = (_: unknown, status: string): void => {
    if (["restarting", "autorestarting", "terminating", "dead"].includes(status)) this.lose();
  };

  private onConnection = (_: unknown, status: string): void => {
    this.receiver.connected(status === "connected");
    if (status !== "connected") return;
    // What was sent meanwhile may be lost; hello finds out.
    this.forget(...this.untaken);
    // A wire that is dead and does not say so leaves hello unanswered.
    this.wire?.again();
    this.hello();
  };

  private lose = (): void => {
    if (this.closed) return;
    this.drop();
    this.receiver.gone();
  };

  private drop(): void {
    this.closed = true;
    this.wire?.takeUp();
    this.forget(...this.untaken);
    this.stopHello();
    window.clearTimeout(this.ackTimer);
    this.model.off("msg:custom", this.hear);
    this.model.off("comm_live_update", this.lose);
    this.kernel?.statusChanged.disconnect(this.onStatus);
    this.kernel?.connectionStatusChanged.disconnect(this.onConnection);
    this.kernel?.disposed.disconnect(this.lose);
  }
}
