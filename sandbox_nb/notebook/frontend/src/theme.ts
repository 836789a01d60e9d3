import type { ITheme } from "@xterm/xterm";

/** Colours 0 to 15. Each has a contrast of 4.5 or more to the background it is for, but black or white itself. */
const LIGHT = [
  "#24292f", "#b3261e", "#1a6b2f", "#7a5200", "#0b57b0", "#8a2f9e", "#0e6574", "#59636e",
  "#4b535d", "#c2281f", "#1f7a36", "#875c00", "#1565c8", "#9c3bb0", "#117184", "#24292f",
] as const;
const DARK = [
  "#3b434c", "#ff7b72", "#5fd07a", "#e3b341", "#7ab7ff", "#d99cff", "#56d4e0", "#c9d1d9",
  "#8b949e", "#ffa198", "#7ee696", "#f2cc60", "#a5d0ff", "#e6bcff", "#8ae8f0", "#ffffff",
] as const;

/** Options of xterm.js. Its contrast is WCAG's, and ensured for whatever colours a program picks. */
export interface Look {
  theme: ITheme;
  minimumContrastRatio: number;
  fontFamily: string;
  fontSize: number;
}

/**
 * Colours and font that go with the page: JupyterLab's variables where they are set, else the browser's wish.
 * `fontSize` in pixels, or null for that of code in the page.
 */
export function look(fontSize: number | null): Look {
  const style = getComputedStyle(document.body);
  const variable = (name: string) => style.getPropertyValue(name).trim();
  const dark = isDark(variable("--jp-layout-color0"));
  const contrasting =
    /contrast/i.test(document.body.dataset.jpThemeName ?? "") || matchMedia("(prefers-contrast: more)").matches;
  const background = contrasting ? (dark ? "#000000" : "#ffffff") : variable("--jp-layout-color0");
  const foreground = contrasting ? (dark ? "#ffffff" : "#000000") : variable("--jp-content-font-color0");
  const plain = { background: background || (dark ? "#111111" : "#ffffff"), foreground: dark ? "#e6e6e6" : "#1b1b1b" };
  return {
    theme: {
      ...palette(dark ? DARK : LIGHT),
      background: plain.background,
      foreground: opaque(foreground, plain.foreground),
      cursor: contrasting ? (dark ? "#ffff00" : "#0000c0") : dark ? "#d0d7de" : "#57606a",
      cursorAccent: plain.background,
      selectionBackground: dark ? "#264f78" : "#add6ff",
      // Also the match that the find bar is at.
      selectionInactiveBackground: dark ? "#41566e" : "#b4d3f2",
    },
    minimumContrastRatio: contrasting ? 7 : 4.5,
    fontSize: fontSize ?? (parseFloat(variable("--jp-code-font-size")) || 13),
    fontFamily: variable("--jp-code-font-family") || 'Menlo, Consolas, "DejaVu Sans Mono", monospace',
  };
}

/** Call `changed` when the page gets another theme, until `signal` says stop. */
export function watch(changed: () => void, signal: AbortSignal): void {
  // JupyterLab sets the attribute when a theme's style sheet is in force.
  const observer = new MutationObserver(changed);
  observer.observe(document.body, { attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class"] });
  signal.addEventListener("abort", () => observer.disconnect());
  for (const query of ["(prefers-color-scheme: dark)", "(prefers-contrast: more)"]) {
    matchMedia(query).addEventListener("change", changed, { signal });
  }
}

function palette(colours: readonly string[]): ITheme {
  const [black, red, green, yellow, blue, magenta, cyan, white, ...bright] = colours;
  const [brightBlack, brightRed, brightGreen, brightYellow, brightBlue, brightMagenta, brightCyan, brightWhite] = bright;
  return {
    black, red, green, yellow, blue, magenta, cyan, white,
    brightBlack, brightRed, brightGreen, brightYellow, brightBlue, brightMagenta, brightCyan, brightWhite,
  };
}

function isDark(background: string): boolean {
  const rgb = channels(background);
  if (rgb === null) return matchMedia("(prefers-color-scheme: dark)").matches;
  const [red, green, blue] = rgb;
  return 0.299 * red + 0.587 * green + 0.114 * blue < 128;
}

/** `colour` if it has no transparency, which xterm.js's foreground may not have, else `instead`. */
function opaque(colour: string, instead: string): string {
  const rgb = channels(colour);
  return rgb !== null && rgb[3] === 255 ? colour : instead;
}

/** Red, green, blue and opacity, 0 to 255, of any CSS colour; null when it is none. */
function channels(colour: string): [number, number, number, number] | null {
  if (!colour || !CSS.supports("color", colour)) return null;
  const context = new OffscreenCanvas(1, 1).getContext("2d")!;
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue, alpha] = context.getImageData(0, 0, 1, 1).data;
  return [red!, green!, blue!, alpha!];
}
