/** One line on a terminal that counts what is done, and goes when all is; nothing elsewhere. */
export function rowProgress(label: string): (done: number, rows: number) => void {
  const { stderr } = process;
  if (!stderr.isTTY) return () => {};
  return (done, rows) => stderr.write(done === rows ? "\r\x1b[2K" : `\r\x1b[2K${label} ${done}/${rows}`);
}
