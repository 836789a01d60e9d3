import type { Kernel } from "./model";

/** Where JupyterLab and Notebook find what their server told the page. */
const CONFIG = "jupyter-config-data";

/** Where server.py takes calls for the terminal `name`; null where the server does not have it, or is not known. */
export function addressOf(page: Document, kernel: Kernel | null | undefined, name: string): URL | null {
  const config = page.getElementById(CONFIG)?.textContent;
  const server = kernel?.serverSettings;
  if (!config || JSON.parse(config).sandboxNbWire !== true || !kernel?.id || !server) return null;
  const url = new URL(`sandbox-nb/kernels/${kernel.id}/terminals/${name}`, server.wsUrl.replace(/\/?$/, "/"));
  if (server.appendToken && server.token) url.searchParams.set("token", server.token);
  return url;
}
