import { createHash } from "node:crypto";
import { type Html, html, raw } from "./html";
import { chartScript } from "./line-chart";
import { style } from "./style";

/** What a page may do beyond being read. */
export interface PageOptions {
  /** Runs after the script of the charts. */
  script?: Html;
  /** Fetch from where it came from, for a page that goes on. */
  connect?: boolean;
}

/** How a Content-Security-Policy names a script or style that stands in the page: by its hash. */
export function sourceOf(text: string): string {
  return `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
}

/**
 * A page that needs nothing but itself: no font, no script and no image is fetched. Its scripts are named by their hash,
 * so that a text that got in unescaped could not run.
 */
export function page(title: string, body: Html, options: PageOptions = {}): string {
  const script = `${chartScript}${options.script ?? ""}`;
  const connect = options.connect ? "; connect-src 'self'" : "";
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src ${raw(sourceOf(script))}${raw(connect)}; base-uri 'none'; form-action 'none'">
<title>${title}</title>
<style>${style}</style>
</head>
<body>
<main>
${body}
</main>
<script>${raw(script)}</script>
</body>
</html>
`.toString();
}

/** Figures with their names, in a row of tiles. */
export function tiles(entries: readonly (readonly [label: string, value: string])[]): Html {
  return html`<div class="tiles">${entries.map(([label, value]) => html`<div><b>${value}</b><span>${label}</span></div>`)}</div>`;
}

/** A table of names and values. */
export function factTable(entries: readonly (readonly [label: string, value: string | Html])[]): Html {
  return html`<div class="table facts"><table><tbody>${entries.map(([label, value]) => html`<tr><th scope="row">${label}</th><td>${value}</td></tr>`)}</tbody></table></div>`;
}

/** A configuration as a table; values as JSON. */
export function configTable(config: Readonly<Record<string, unknown>>): Html {
  return factTable(
    Object.entries(config).map(([key, value]) => [key, html`<code>${JSON.stringify(value) ?? "null"}</code>`]),
  );
}

/** Names and versions, and when the page was made. */
export function footer(versions: Readonly<Record<string, string>>, createdAt: string | undefined): Html {
  const parts = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return html`<footer>${[...(createdAt ? [createdAt] : []), ...parts].join(" · ")}</footer>`;
}
