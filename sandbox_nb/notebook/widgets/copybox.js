// A text with a button that copies it: the page's side of panel_copy.py.

/** Milliseconds that the button says it has copied. */
const SAID = 1500;

async function copy(area) {
  if (navigator.clipboard) return navigator.clipboard.writeText(area.value);
  // A page that is not served from this host or by https has no clipboard of its own.
  area.select();
  document.execCommand("copy");
}

export default {
  render({ model, el }) {
    el.classList.add("sandbox-nb-copybox");
    el.dataset.lmSuppressShortcuts = "true";
    const area = document.createElement("textarea");
    area.readOnly = true;
    area.spellcheck = false;
    area.setAttribute("aria-label", "what the form says, to be copied");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "copy";
    button.addEventListener("click", async () => {
      const done = await copy(area).then(() => true, () => false);
      button.textContent = done ? "copied" : "select it and copy";
      window.setTimeout(() => (button.textContent = "copy"), SAID);
    });
    const show = () => {
      area.value = model.get("text");
      area.rows = Math.min(16, area.value.split("\n").length);
    };
    model.on("change:text", show);
    show();
    el.append(area, button);
    return () => model.off("change:text", show);
  },
};
