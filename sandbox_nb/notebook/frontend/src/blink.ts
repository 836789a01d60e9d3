import type { Terminal } from "@xterm/xterm";

/** Milliseconds for which the cursor is lit, and for which it is not. */
const HALF = 500;

/**
 * Blinks the cursor of a terminal that has the keyboard, by a class on `element`; terminal.css does the rest.
 *
 * xterm.js has a CSS animation for it. For that browsers prepare sixty frames a second, and after a key Chromium
 * puts off what comes from the network until the next of them: an echo would wait for 8 ms in the mean.
 */
export function blink(terminal: Terminal, element: HTMLElement, signal: AbortSignal): void {
  let timer = 0;
  const rest = () => {
    window.clearInterval(timer);
    timer = 0;
    element.classList.remove("sandbox-nb-unlit");
  };
  const begin = () => {
    rest();
    timer = window.setInterval(() => element.classList.toggle("sandbox-nb-unlit"), HALF);
  };
  element.addEventListener("focusin", begin, { signal });
  element.addEventListener("focusout", rest, { signal });
  signal.addEventListener("abort", rest);
  // A cursor that moves is to be seen.
  terminal.onCursorMove(() => {
    if (timer !== 0) begin();
  });
}
