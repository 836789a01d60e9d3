import type { Terminal } from "@xterm/xterm";

import type { Model } from "./model";

const WIDGET = "application/vnd.jupyter.widget-view+json";

/** As many lines as terminal.py leaves. */
const LINES = 100;

/**
 * Put what the terminal showed in place of the widget in the document, so that whoever opens it later reads that
 * and not "model not found".
 *
 * terminal.py does so itself when it can: while its kernel lives, and in a page that saw the output being made.
 * This is for a kernel that was killed, and for a page that was loaded again.
 */
export function leaveTranscript(model: Model, terminal: Terminal, last: string): void {
  const id = model.get("display_id");
  const text = [...lines(terminal), `[${last}]`].join("\n");
  for (const { outputs } of model.widget_manager?.context?.model.cells ?? []) {
    for (let index = 0; index < (outputs?.length ?? 0); index++) {
      const view = outputs!.get(index).data[WIDGET] as { model_id?: string } | undefined;
      if (view?.model_id !== id) continue;
      outputs!.set(index, { output_type: "display_data", data: { "text/plain": text }, metadata: {} });
    }
  }
}

/** The last lines of the terminal, long ones as one. */
function lines(terminal: Terminal): string[] {
  const buffer = terminal.buffer.normal;
  const found: string[] = [];
  for (let index = 0; index < buffer.length; index++) {
    const line = buffer.getLine(index)!;
    const wraps = buffer.getLine(index + 1)?.isWrapped ?? false;
    const text = line.translateToString(!wraps);
    if (line.isWrapped && found.length > 0) found[found.length - 1] += text;
    else found.push(text);
  }
  while (found.at(-1) === "") found.pop();
  const left = found.length - LINES;
  return left > 0 ? [`… ${left} earlier lines`, ...found.slice(-LINES)] : found;
}
