import type { HubProgress } from "../hub/settings";

/** Shows downloads on stderr: one line that is written over on a terminal, else one line a file. */
export function showDownload(): (progress: HubProgress) => void {
  const stream = process.stderr;
  let shown = "";
  let last = 0;
  return ({ repository, file, loaded, total, loadedInAll, totalInAll }) => {
    const done = loadedInAll >= totalInAll;
    if (!stream.isTTY) {
      if (file === shown) return;
      shown = file;
      stream.write(`downloading ${repository}/${file} (${size(total)})\n`);
      return;
    }
    if (!done && loaded < total && performance.now() - last < 100) return;
    last = performance.now();
    const line = `${repository}/${file}  ${size(loadedInAll)} of ${size(totalInAll)}`;
    stream.write(`\r\x1b[2K${line.slice(-(stream.columns || 80) + 1)}${done ? "\n" : ""}`);
  };
}

function size(bytes: number): string {
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}
