// The page's side of dashboard.py. Parts of HTML come from the kernel; what is pressed goes to it.

/** Milliseconds from one word, that the dashboard is shown, to the next; dashboard_watch.py believes it for 6 s. */
const HEARTBEAT = 2000;

/** Milliseconds until a kernel that was asked has answered; on a busy page the first question can be lost. */
const PATIENCE = 1000;

const WIDGET = "application/vnd.jupyter.widget-view+json";
const GONE = ["restarting", "autorestarting", "terminating", "dead"];

class View {
  constructor(model, element) {
    this.model = model;
    this.element = element;
    /** Our name among the views of this dashboard. */
    this.name = Math.random().toString(36).slice(2);
    this.seen = false;
    this.waiting = {};
    this.stop = new AbortController();
    element.classList.add("sandbox-nb-dashboard");
    this.listen();
    this.hello();
  }

  listen() {
    const { model, element, stop } = this;
    this.receive = (message) => this[message.kind]?.(message);
    this.lose = () => this.gone();
    this.status = (_, status) => GONE.includes(status) && this.gone();
    model.on("msg:custom", this.receive);
    // ipywidgets sets comm_live anew only when the kernel restarts.
    model.on("comm_live_update", this.lose);
    this.kernel = model.widget_manager?.kernel;
    this.kernel?.statusChanged?.connect(this.status);
    element.addEventListener("click", (event) => this.click(event), { signal: stop.signal });
    element.addEventListener("pointerleave", () => this.show(this.waiting), { signal: stop.signal });
    // Where the focus has gone is known only behind the event.
    element.addEventListener("focusout", () => window.setTimeout(() => this.show(this.waiting)), { signal: stop.signal });
    this.observer = new IntersectionObserver((entries) => {
      this.seen = entries.at(-1).isIntersecting;
      this.look();
    });
    this.observer.observe(element);
    document.addEventListener("visibilitychange", () => this.look(), { signal: stop.signal });
    this.timer = window.setInterval(() => this.look(), HEARTBEAT);
  }

  dispose() {
    this.stop.abort();
    this.observer.disconnect();
    window.clearInterval(this.timer);
    window.clearTimeout(this.retry);
    this.model.off("msg:custom", this.receive);
    this.model.off("comm_live_update", this.lose);
    this.kernel?.statusChanged?.disconnect(this.status);
  }

  send(message) {
    if (this.over) return;
    try {
      this.model.send(message);
    } catch {
      // "Cannot send": the front end knows that the kernel is gone.
      this.gone();
    }
  }

  hello() {
    this.send({ kind: "hello", view: this.name });
    this.retry = window.setTimeout(() => this.hello(), PATIENCE);
  }

  look() {
    if (this.seen && !document.hidden) this.send({ kind: "look" });
  }

  click(event) {
    const button = event.target.closest("button[data-end]");
    if (button) {
      button.disabled = true;
      this.send({ kind: "end", pid: Number(button.dataset.end) });
    }
  }

  // Messages of the kernel

  page({ view, html }) {
    if (view !== this.name) return;
    window.clearTimeout(this.retry);
    this.waiting = {};
    this.element.innerHTML = html;
  }

  parts({ parts }) {
    this.show({ ...this.waiting, ...parts });
  }

  /** Show parts; one whose buttons pointer or keyboard is at waits, so that what is pressed is what was aimed at. */
  show(parts) {
    this.waiting = {};
    for (const [name, html] of Object.entries(parts)) {
      const part = this.element.querySelector(`[data-part="${name}"]`);
      if (!part) continue;
      const used = part.matches(":hover") || part.contains(document.activeElement);
      if (used && part.querySelector("button:not(:disabled)")) {
        this.waiting[name] = html;
        continue;
      }
      part.innerHTML = html;
      part.parentElement.hidden = html === "";
    }
  }

  // The end

  gone() {
    if (this.over) return;
    this.over = true;
    window.clearInterval(this.timer);
    window.clearTimeout(this.retry);
    const ended = this.model.get("ended");
    if (!this.element.querySelector("[data-part]")) this.element.textContent = ended;
    this.show({ notice: ended });
    for (const button of this.element.querySelectorAll("button")) button.remove();
    // The kernel has put the last portrait here by then, if it could.
    window.setTimeout(() => this.leave(), 1500);
  }

  /** Put what is shown into the document, so that whoever opens it later sees that and no missing widget. */
  leave() {
    const id = this.model.get("display_id");
    const data = { "text/html": this.element.innerHTML, "text/plain": this.element.innerText };
    for (const { outputs } of this.model.widget_manager?.context?.model.cells ?? []) {
      for (let index = 0; index < (outputs?.length ?? 0); index++) {
        if (outputs.get(index).data[WIDGET]?.model_id !== id) continue;
        outputs.set(index, { output_type: "display_data", data, metadata: {} });
      }
    }
  }
}

export default {
  render({ model, el }) {
    const view = new View(model, el);
    return () => view.dispose();
  },
};
