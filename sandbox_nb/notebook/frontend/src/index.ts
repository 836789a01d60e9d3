import type { Model } from "./model";
import { View } from "./view";

/** What anywidget calls for each place in which the widget is shown. */
export default {
  render({ model, el }: { model: Model; el: HTMLElement }): () => void {
    const view = new View(model, el);
    return () => view.dispose();
  },
};
