/** Where JupyterLab and Notebook find what their server told the page. */
const CONFIG = "jupyter-config-data";

/** Whether the server has our extension: server.py says so in its pages. */
export function hasWires(page: Document): boolean {
  const config = page.getElementById(CONFIG)?.textContent;
  return config ? JSON.parse(config).sandboxNbWire === true : false;
}
