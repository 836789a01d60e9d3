import type { Terminal } from "@xterm/xterm";

/** Keys that are ours and not the program's. With Shift, since programs in a terminal cannot tell that apart. */
export function bind(terminal: Terminal, actions: { find(): void; leave(): void }): void {
  terminal.attachCustomKeyEventHandler((event) => {
    if (event.type !== "keydown" || !event.ctrlKey || !event.shiftKey || event.altKey || event.metaKey) return true;
    switch (event.code) {
      case "KeyC":
        // xterm.js fills in the selection when the browser copies; navigator.clipboard would need https.
        document.execCommand("copy");
        break;
      case "KeyV":
        return false; // The browser pastes, and xterm.js takes it from there.
      case "KeyF":
        actions.find();
        break;
      case "Space":
        actions.leave();
        break;
      default:
        return true;
    }
    event.preventDefault();
    return false;
  });
}
