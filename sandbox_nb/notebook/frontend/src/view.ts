import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { Unicode11Addon } from "@xterm/addon-unicode11";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { WebglAddon } from "@xterm/addon-webgl";
import { type IBufferRange, Terminal } from "@xterm/xterm";

import { blink } from "./blink";
import { FindBar } from "./find";
import * as keys from "./keys";
import { Link, type Receiver } from "./link";
import type { Model, Shape } from "./model";
import { silence } from "./questions";
import * as theme from "./theme";
import { leaveTranscript } from "./transcript";

/** Milliseconds a size has to last before the program hears of it: dragging an edge gives sixty a second. */
const SETTLE = 60;

/** Bytes parsed in one piece, about 10 ms of work; between pieces the browser can draw and take keys. */
const PIECE = 32 * 1024;

/** Milliseconds in which the kernel has put the transcript here, if it can. */
const TRANSCRIPT_AFTER = 1500;

/** What a line below the terminal can be about, the gravest first. */
const TOPICS = ["end", "gone", "connection", "busy"] as const;
type Topic = (typeof TOPICS)[number];

/** RIS, behind what gives up a sequence or a character that is unfinished. */
const RESET = Uint8Array.of(0x18, 0x1b, 0x63);

const HELP =
  "Terminal. Control Shift Space leaves it, Control Shift F finds, Control Shift C copies, Control Shift V pastes.";

/** One terminal on the page: xterm.js, its add-ons and what is around them, joined to a Link. */
export class View implements Receiver {
  private readonly terminal: Terminal;
  private readonly fit = new FitAddon();
  private readonly find: FindBar;
  private readonly link: Link;
  private readonly host = document.createElement("div");
  private readonly notice = document.createElement("div");
  private readonly stop = new AbortController();
  private readonly observer = new ResizeObserver(() => this.resized());
  private settle = 0;
  private leaving = 0;
  private opened = false;
  /** Whether what is parsed now, and what was written last, has had its answers. */
  private old = false;
  private writingOld = false;
  private shapeNow: Shape | null = null;
  private webgl: WebglAddon | null = null;

  constructor(
    private readonly model: Model,
    private readonly element: HTMLElement,
  ) {
    element.classList.add("sandbox-nb-terminal");
    // JupyterLab and Notebook leave keys pressed in here alone, in command mode as well.
    element.dataset.lmSuppressShortcuts = "true";
    this.host.className = "sandbox-nb-host";
    this.notice.className = "sandbox-nb-notice";
    this.notice.setAttribute("role", "status");
    this.notice.hidden = true;

    this.link = new Link(model, this);
    this.terminal = this.make();
    const search = new SearchAddon();
    this.terminal.loadAddon(search);
    this.find = new FindBar(search, () => this.terminal.focus());
    element.append(this.host, this.find.element, this.notice);
    // For those who script the page: the tests and the benchmark.
    Object.assign(element, { terminal: this.terminal });
    this.listen();
    this.dress();
    // An output is rendered before it is in the page, where there is nothing to measure.
    this.observer.observe(this.host);
  }

  dispose(): void {
    this.stop.abort();
    this.observer.disconnect();
    window.clearTimeout(this.settle);
    window.clearTimeout(this.leaving);
    this.link.close();
    this.terminal.dispose();
  }

  // Receiver

  output(bytes: Uint8Array, old: boolean, drawn: () => void): void {
    // Only at a change: xterm.js parses the first piece after a key at once, later ones on a timer.
    if (old !== this.writingOld) this.terminal.write("", () => (this.old = old));
    this.writingOld = old;
    for (let at = 0; at < bytes.length; at += PIECE) {
      const last = at + PIECE >= bytes.length;
      this.terminal.write(bytes.subarray(at, at + PIECE), last ? drawn : undefined);
    }
  }

  reset(): void {
    // Not terminal.reset(), which acts before what waits to be parsed, and leaves the parser as it is.
    this.terminal.write(RESET);
  }

  shape(shape: Shape): void {
    this.shapeNow = shape;
    this.apply();
  }

  end(ending: string): void {
    this.finish("end", printable(ending));
  }

  busy(busy: boolean): void {
    this.say("busy", busy && "The kernel is busy with a cell: what you type arrives when it is done.");
  }

  connected(connected: boolean): void {
    this.say("connection", !connected && "The connection to the server is lost. Trying again …");
  }

  gone(): void {
    this.finish("gone", "The kernel that ran this terminal is gone. Run the cell again for a new one.");
  }

  /** Show that nothing is taken any more, and why; soon leave the transcript alone. */
  private finish(topic: Topic, text: string): void {
    this.terminal.options.disableStdin = true;
    this.terminal.options.cursorBlink = false;
    this.terminal.write("\x1b[?25l");
    this.say(topic, text);
    window.clearTimeout(this.leaving);
    this.leaving = window.setTimeout(() => leaveTranscript(this.model, this.terminal, text), TRANSCRIPT_AFTER);
  }

  // Set-up

  private make(): Terminal {
    const { model } = this;
    const terminal = new Terminal({
      ...theme.look(model.get("font_size")),
      scrollback: model.get("scrollback"),
      disableStdin: model.get("readonly"),
      screenReaderMode: model.get("screen_reader"),
      cursorBlink: true,
      macOptionIsMeta: true,
      // The search add-on's marks and unicode versions are "proposed".
      allowProposedApi: true,
      linkHandler: { activate: (_, uri, range) => this.followLabelled(uri, range) },
    });
    terminal.loadAddon(this.fit);
    terminal.loadAddon(new WebLinksAddon((_, uri) => follow(uri)));
    terminal.loadAddon(new Unicode11Addon());
    terminal.unicode.activeVersion = "11";
    silence(terminal, () => this.old || !this.leads);
    keys.bind(terminal, { find: () => this.find.open(), leave: () => this.leave() });
    terminal.onData((text) => this.link.input(text));
    terminal.onBinary((text) => this.link.input(Uint8Array.from(text, (c) => c.charCodeAt(0))));
    return terminal;
  }

  private listen(): void {
    const { model, stop } = this;
    theme.watch(() => this.dress(), stop.signal);
    blink(this.terminal, this.element, stop.signal);
    this.element.addEventListener("focusin", () => {
      if (!this.leads) this.link.focus();
    }, { signal: stop.signal });
    document.addEventListener("visibilitychange", () => {
      if (this.opened) this.link.show(!document.hidden);
    }, { signal: stop.signal });
    const { options } = this.terminal;
    model.on("change:font_size", () => {
      this.dress();
      this.setHeight();
    });
    model.on("change:height", () => this.setHeight());
    model.on("change:scrollback", () => (options.scrollback = model.get("scrollback")));
    model.on("change:readonly", () => (options.disableStdin = model.get("readonly")));
    model.on("change:screen_reader", () => (options.screenReaderMode = model.get("screen_reader")));
    model.on("change:renderer", () => this.render());
  }

  /** The page has us, and a size. */
  private open(): void {
    this.opened = true;
    this.terminal.open(this.host);
    this.terminal.textarea?.setAttribute("aria-label", HELP);
    this.render();
    this.setHeight();
    const size = this.room() ?? this.terminal;
    this.terminal.resize(size.cols, size.rows);
    this.link.open(size.rows, size.cols);
  }

  /** WebGL when it was asked for and is to be had, else the DOM. */
  private render(): void {
    this.webgl?.dispose();
    this.webgl = null;
    if (this.model.get("renderer") !== "webgl") return;
    try {
      const webgl = new WebglAddon();
      webgl.onContextLoss(() => webgl.dispose());
      this.terminal.loadAddon(webgl);
      this.webgl = webgl;
    } catch (error) {
      console.info(`No WebGL for the terminal, the DOM draws it: ${error}`);
    }
  }

  /** Make room for the rows that were asked for; the user may drag it to another height. */
  private setHeight(): void {
    const screen = this.host.querySelector(".xterm-screen");
    if (!screen?.clientHeight) return;
    const row = screen.clientHeight / this.terminal.rows;
    const style = getComputedStyle(this.terminal.element!);
    const padding = parseFloat(style.paddingTop) + parseFloat(style.paddingBottom);
    this.host.style.height = `${Math.ceil(row * this.model.get("height") + padding)}px`;
  }

  private dress(): void {
    const look = theme.look(this.model.get("font_size"));
    Object.assign(this.terminal.options, look);
    // Around the rows, which xterm.js leaves to the style sheet.
    this.host.style.setProperty("--sandbox-nb-background", look.theme.background!);
    this.resized();
  }

  // Size

  private get leads(): boolean {
    return this.shapeNow?.leader === this.link.name;
  }

  private resized(): void {
    // Hidden in another tab or scrolled away: what is not seen has no size.
    if (this.host.clientWidth === 0 || this.host.clientHeight === 0) return;
    if (!this.opened) {
      this.open();
      return;
    }
    window.clearTimeout(this.settle);
    this.settle = window.setTimeout(() => {
      const size = this.room();
      if (size === undefined) return;
      this.link.resize(size.rows, size.cols);
      this.apply();
    }, SETTLE);
  }

  /** The size that fits; undefined where the page has not laid the cell out, and a division by nothing is no number. */
  private room(): { rows: number; cols: number } | undefined {
    const size = this.fit.proposeDimensions();
    return size && Number.isFinite(size.rows) && Number.isFinite(size.cols) ? size : undefined;
  }

  /** The leader fills its cell; the others show the terminal at the leader's size. */
  private apply(): void {
    const size = this.leads ? this.room() : this.shapeNow;
    if (size && (size.rows !== this.terminal.rows || size.cols !== this.terminal.cols)) {
      this.terminal.resize(size.cols, size.rows);
    }
    this.host.classList.toggle("sandbox-nb-follows", this.shapeNow !== null && !this.leads);
  }

  // Around the terminal

  /** Follow a link under a text of the program's (OSC 8), which may say another target than it has. */
  private followLabelled(uri: string, { start, end }: IBufferRange): void {
    const text = this.terminal.buffer.active.getLine(start.y - 1)?.translateToString(false, start.x - 1, end.x);
    const question = `The program's link leads to\n\n${new URL(uri).href}\n\nOpen it?`;
    if (text === uri || window.confirm(question)) follow(uri);
  }

  /** Give the keyboard back to the notebook. */
  private leave(): void {
    this.terminal.blur();
    this.element.parentElement?.closest<HTMLElement>("[tabindex]")?.focus();
  }

  private readonly said = new Map<Topic, string>();

  /** Show a line below the terminal, or take it back. Of several the gravest is shown. */
  private say(topic: Topic, text: string | false): void {
    if (text === false) this.said.delete(topic);
    else this.said.set(topic, text);
    const line = TOPICS.map((each) => this.said.get(each)).find(Boolean) ?? "";
    this.notice.hidden = line === "";
    // Set only when it differs, since a screen reader says it each time.
    if (this.notice.textContent !== line) this.notice.textContent = line;
  }
}

/** Open what a program offers as a link, if it is a web page. The page opened gets no hold on ours. */
function follow(uri: string): void {
  if (/^https?:\/\//i.test(uri)) window.open(uri, "_blank", "noopener,noreferrer");
}

function printable(text: string): string {
  return text.replace(/[\x00-\x1f\x7f-\x9f]+/g, " ");
}
