import type { HubProgress } from "../hub/settings";
import { dataSize } from "../report/format";

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
      stream.write(`downloading ${repository}/${file} (${dataSize(total)})\n`);
      return;
    }
    if (!done && loaded < total && performance.now() - last < 100) return;
    last = performance.now();
    const line = `${repository}/${file}  ${dataSize(loadedInAll)} of ${dataSize(totalInAll)}`;
    stream.write(`\r\x1b[2K${line.slice(-(stream.columns || 80) + 1)}${done ? "\n" : ""}`);
  };
}
