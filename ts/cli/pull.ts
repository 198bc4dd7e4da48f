/** `zephyr-align pull`: a benchmark's own files, from where they are published. */
import { type Command, Option } from "commander";
import { benchmarkFolder, type Publication, type PulledBenchmark, publications, pullBenchmark } from "../judge/pull";
import { whole } from "../report/format";
import { interruptible } from "./interrupt";
import { styleOf } from "./style";

interface PullFlags {
  out?: string;
  url?: string;
}

export function addPull(program: Command): void {
  const names = Object.keys(publications) as PulledBenchmark[];
  const pull = program
    .command("pull")
    .helpGroup("Use and judge:")
    .description("Fetch a benchmark's own files; they are no part of the package.");
  for (const name of names) {
    const { title, note, url }: Publication = publications[name];
    pull
      .command(name)
      .description(title)
      .option("--out <folder>", `Where the files go. (default: ${benchmarkFolder(name)})`)
      .addOption(
        new Option("--url <address>", `Folder on a mirror; hashes are checked all the same. (default: ${url})`).env(
          "ZEPHYR_PULL_URL",
        ),
      )
      .addHelpText("after", note ? `\n${note}` : "")
      .action((flags: PullFlags) => interruptible((signal) => run(name, flags, signal)));
  }
}

async function run(name: PulledBenchmark, flags: PullFlags, signal: AbortSignal): Promise<void> {
  const { bold, dim, green } = styleOf(process.stdout);
  const { licence, note }: Publication = publications[name];
  const folder = await pullBenchmark(name, {
    ...(flags.out === undefined ? {} : { folder: flags.out }),
    ...(flags.url === undefined ? {} : { url: flags.url }),
    signal,
    onFile: ({ path, bytes }, fetched) =>
      process.stdout.write(
        `  ${green("✓")} ${path} ${dim(`${whole(bytes)} bytes, ${fetched ? "fetched" : "there already"}, hash checked`)}\n`,
      ),
  });
  process.stdout.write(`${bold(folder)} ${dim(`(${licence})`)}\n${note ? `${dim(note)}\n` : ""}`);
}
