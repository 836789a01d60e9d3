// A text with a button that copies it: the page's side of panel_copy.py.

const WIDGET = "application/vnd.jupyter.widget-view+json";

/** Milliseconds in which the kernel has put its last words into the document, if it can. */
const LEAVE_AFTER = 1500;

/** Milliseconds that the button says it has copied. */
const SAID = 1500;

async function copy(area) {
  if (navigator.clipboard) return navigator.clipboard.writeText(area.value);
  // A page that is not served from this host or by https has no clipboard of its own.
  area.select();
  document.execCommand("copy");
}

/** Put what the panel said into the document, so that whoever opens it later sees that and no missing widget. */
function leave(model) {
  const data = { "text/plain": model.get("left") };
  for (const { outputs } of model.widget_manager?.context?.model.cells ?? []) {
    for (let index = 0; index < (outputs?.length ?? 0); index++) {
      if (outputs.get(index).data[WIDGET]?.model_id !== model.get("panel_id")) continue;
      outputs.set(index, { output_type: "display_data", data, metadata: {} });
    }
  }
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
    // ipywidgets sets comm_live anew only when the kernel restarts.
    const gone = () => window.setTimeout(() => leave(model), LEAVE_AFTER);
    model.on("change:text", show);
    model.on("comm_live_update", gone);
    show();
    el.append(area, button);
    return () => {
      model.off("change:text", show);
      model.off("comm_live_update", gone);
    };
  },
};
