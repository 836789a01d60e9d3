/** Bundles src/ and what it imports into ../static/terminal.js and terminal.css, with the licences of all of it. */

import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build, transform } from "esbuild";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const target = ["es2022", "chrome111", "firefox113", "safari16.4"];

const { metafile, outputFiles } = await build({
  entryPoints: [path("src/index.ts")],
  bundle: true,
  format: "esm",
  target,
  minify: true,
  legalComments: "none",
  metafile: true,
  write: false,
});

// anywidget puts the style sheet into the document's head: all of it is nested in our class, since JupyterLab
// has an xterm.js of its own.
const xterm = await readFile(path("node_modules/@xterm/xterm/css/xterm.css"), "utf8");
const ours = await readFile(path("src/terminal.css"), "utf8");
const css = await transform(`.sandbox-nb-terminal {\n${xterm}\n}\n${ours}`, {
  loader: "css",
  target,
  minify: true,
  legalComments: "none",
});

const notices = `/*\n${await licences(Object.keys(metafile.inputs))}*/\n`;
await writeFile(path("../static/terminal.js"), notices + outputFiles[0].text);
await writeFile(path("../static/terminal.css"), notices + css.code);

/** Name, version and licence text of each package that one of the files belongs to. */
async function licences(files) {
  const found = files.map((file) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1]);
  const texts = [...new Set(found)].filter(Boolean).sort().map(async (name) => {
    const { version } = JSON.parse(await readFile(path(`node_modules/${name}/package.json`), "utf8"));
    const text = await readFile(path(`node_modules/${name}/LICENSE`), "utf8");
    return `${name} ${version}\n\n${text.trim()}\n\n`;
  });
  return (await Promise.all(texts)).join("");
}
