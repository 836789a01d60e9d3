/** Where JupyterLab and Notebook find what their server told the page. */
const CONFIG = "jupyter-config-data";

/** Whether the server sends at once what it has for the page: server.py says so in the page it changed this for. */
export function isPrompt(page: Document): boolean {
  const config = page.getElementById(CONFIG)?.textContent;
  return config ? JSON.parse(config).sandboxNbPrompt === true : false;
}
