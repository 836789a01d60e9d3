/** What this package needs of anywidget's model and of the front end behind it. */

/** The traits of `Terminal` in terminal.py. */
export interface Traits {
  height: number;
  font_size: number | null;
  scrollback: number;
  readonly: boolean;
  screen_reader: boolean;
  renderer: "dom" | "webgl";
  display_id: string;
}

/** Messages of the kernel; terminal_session.py has the table. */
export type FromKernel =
  | ({ kind: "welcome"; view: string; turn: number; at: number; typed: number; answered: number } & Shape)
  | { kind: "who"; view: string }
  | { kind: "output"; at: number; typed: Record<string, number> }
  | ({ kind: "size" } & Shape)
  | { kind: "sync"; at: number }
  | { kind: "end"; at: number; ending: string };

/** A message of a view, from the same table. */
export interface FromView {
  kind: "hello" | "ack" | "size" | "focus" | "input" | "bye";
  [field: string]: unknown;
}

/** Takes a message of the kernel and the bytes that go with it. */
export type Receive = (message: FromKernel, bytes: Uint8Array) => void;

export interface Shape {
  rows: number;
  cols: number;
  leader: string;
}

/** What a page may learn about a message it sent: here, that the kernel has taken it up. */
interface Callbacks {
  iopub: { status(message: { content: { execution_state: string } }): void };
}

export interface Model {
  get<Name extends keyof Traits>(name: Name): Traits[Name];
  send(content: object, callbacks?: Callbacks, buffers?: ArrayBuffer[]): void;
  on(event: string, callback: (...args: never[]) => void): void;
  off(event: string, callback: (...args: never[]) => void): void;
  /** JupyterLab's and Notebook's manager knows the kernel and the document; others need not. */
  widget_manager?: { kernel?: Kernel | null; context?: { model: NotebookModel } };
}

/** A signal of Lumino, as JupyterLab's objects have them. */
interface Signal<Value> {
  connect(slot: (sender: unknown, value: Value) => void): void;
  disconnect(slot: (sender: unknown, value: Value) => void): void;
}

export interface Kernel {
  id?: string;
  statusChanged: Signal<string>;
  connectionStatusChanged: Signal<string>;
  disposed: Signal<void>;
  serverSettings?: ServerSettings;
}

/** How the page reaches its server. */
export interface ServerSettings {
  wsUrl: string;
  token: string;
  appendToken: boolean;
}

/** The document, as far as outputs are concerned. Cells that are no code have none. */
export interface NotebookModel {
  cells: Iterable<{ outputs?: Outputs }>;
}

interface Outputs {
  length: number;
  get(index: number): { data: Record<string, unknown> };
  set(index: number, output: object): void;
}
