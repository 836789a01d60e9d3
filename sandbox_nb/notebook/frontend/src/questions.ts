import type { Terminal } from "@xterm/xterm";

/**
 * Leaves questions of programs (where is the cursor, what can you do, which colours) unanswered while `quiet`
 * says so.
 *
 * xterm.js answers each question it meets, through the same event as keys. In a replay that would type answers
 * into a shell that asked long ago; with several views a program would get several answers.
 */
export function silence(terminal: Terminal, quiet: () => boolean): void {
  const { parser } = terminal;
  // A handler that returns true keeps xterm.js's own from running.
  const csi = [
    { final: "c" }, // DA1
    { prefix: ">", final: "c" }, // DA2
    { prefix: "=", final: "c" }, // DA3
    { final: "n" }, // DSR, among them the cursor's position
    { prefix: "?", final: "n" },
    { intermediates: "$", final: "p" }, // DECRQM
    { prefix: "?", intermediates: "$", final: "p" },
    { prefix: ">", final: "q" }, // XTVERSION
  ];
  for (const id of csi) parser.registerCsiHandler(id, quiet);
  parser.registerDcsHandler({ intermediates: "$", final: "q" }, quiet); // DECRQSS
  // These set a colour, or ask for one with "?".
  for (const id of [4, 10, 11, 12]) parser.registerOscHandler(id, (data) => data.includes("?") && quiet());
}
