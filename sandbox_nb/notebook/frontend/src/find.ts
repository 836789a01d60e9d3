import type { ISearchOptions, SearchAddon } from "@xterm/addon-search";

const OPTIONS: ISearchOptions = {
  decorations: {
    matchBackground: "#7a5c00",
    matchOverviewRuler: "#bf8700",
    activeMatchBackground: "#bf5c00",
    activeMatchColorOverviewRuler: "#ff8800",
  },
};

/** The bar in which to search what the terminal showed. Enter goes on, Shift+Enter back, Escape closes. */
export class FindBar {
  readonly element = document.createElement("div");
  private readonly input = document.createElement("input");
  private readonly count = document.createElement("output");

  constructor(
    private readonly search: SearchAddon,
    private readonly done: () => void,
  ) {
    this.element.className = "sandbox-nb-find";
    this.element.hidden = true;
    this.element.setAttribute("role", "search");
    this.input.type = "text";
    this.input.setAttribute("aria-label", "Find in the terminal");
    this.element.append(
      this.input,
      this.count,
      button("Previous match", "↑", () => this.find(false)),
      button("Next match", "↓", () => this.find(true)),
      button("Close", "×", () => this.close()),
    );
    this.input.addEventListener("input", () => this.find(true, true));
    this.element.addEventListener("keydown", this.key);
    search.onDidChangeResults(({ resultIndex, resultCount }) => {
      this.count.textContent = resultCount === 0 ? "none" : `${resultIndex + 1}/${resultCount}`;
    });
  }

  open(): void {
    this.element.hidden = false;
    this.input.select();
    this.input.focus();
  }

  private close(): void {
    this.element.hidden = true;
    this.search.clearDecorations();
    this.done();
  }

  private find(forward: boolean, incremental = false): void {
    const options = { ...OPTIONS, incremental };
    if (forward) this.search.findNext(this.input.value, options);
    else this.search.findPrevious(this.input.value, options);
    if (this.input.value === "") this.count.textContent = "";
  }

  private key = (event: KeyboardEvent): void => {
    if (event.key === "Enter" && event.target === this.input) this.find(!event.shiftKey);
    else if (event.key === "Escape") this.close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
}

function button(label: string, text: string, action: () => void): HTMLButtonElement {
  const element = document.createElement("button");
  element.type = "button";
  element.textContent = text;
  element.title = label;
  element.setAttribute("aria-label", label);
  element.addEventListener("click", action);
  return element;
}
