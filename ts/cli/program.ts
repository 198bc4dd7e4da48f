import { Command } from "commander";
import { packageVersion } from "../native/load";
import { addBinarise } from "./binarise";
import { addChat } from "./chat";
import { addDemo } from "./demo";
import { addDistil } from "./distil";
import { addDoctor } from "./doctor";
import { addDpo } from "./dpo";
import { addEval } from "./eval";
import { addExport } from "./export";
import { speakOf } from "./flag-names";
import { addInspect } from "./inspect-mask";
import { addJournal } from "./journal";
import { addKto } from "./kto";
import { addMerge } from "./merge";
import { addPolicyPairs } from "./policy-pairs";
import { addPull } from "./pull";
import { addRate } from "./rate";
import { addReport } from "./report";
import { addServe } from "./serve";
import { addSft } from "./sft";
import { styleOf } from "./style";
import { addView } from "./view";

/** The whole command line. It throws instead of ending the process; `main.ts` does that. */
export function buildProgram(): Command {
  const out = styleOf(process.stdout);
  const error = styleOf(process.stderr);
  const program = new Command("zephyr-align")
    .description("Align a language model: distil, fine-tune, optimise preferences, judge. No Python.")
    .version(packageVersion(), "-V, --version")
    .option("--debug", "Print the stack of errors.")
    .exitOverride()
    .showHelpAfterError("(zephyr-align --help lists the commands, zephyr-align <command> --help the options)")
    .configureHelp({
      helpWidth: Math.min(110, process.stdout.columns || 100),
      styleTitle: (text) => out.bold(text),
      styleOptionTerm: (text) => out.cyan(text),
      styleSubcommandTerm: (text) => out.cyan(text),
    })
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error/, error.red(error.bold("error")))) });
  for (const add of [
    addDemo,
    addDistil,
    addRate,
    addBinarise,
    addSft,
    addDpo,
    addKto,
    addPolicyPairs,
    addMerge,
    addExport,
    addEval,
    addPull,
    addChat,
    addServe,
    addJournal,
    addInspect,
    addView,
    addReport,
    addDoctor,
  ]) {
    add(program);
  }
  for (const command of program.commands) inherit(command, program);
  program.hook("preAction", (_, command) => speakOf(command));
  return program.addHelpText(
    "after",
    `
Examples:
  $ zephyr-align demo                                      the whole road on a small world, in minutes
  $ zephyr-align sft --model base --data chats.jsonl --recipe zephyr --out runs/sft
  $ zephyr-align dpo --model runs/sft/model --data pairs.jsonl --recipe zephyr --out runs/dpo
  $ zephyr-align chat --model runs/dpo/model

Exit codes: 0 done; 75 stopped by a signal, a training run is saved (--resume goes on); 76 hanging step, a folder that
another process holds, a server that does not answer, judging that is not complete: start again (training with --resume);
77 options, data or model files are refused, never try again; 78 a cap on paid calls is reached, or the account is empty;
1 other error.`,
  );
}

/** Settings that a parent's commands do not have by themselves; `--debug` is accepted everywhere. */
function inherit(command: Command, program: Command): void {
  command.copyInheritedSettings(program);
  if (command.commands.length === 0) {
    command.option("--debug", "Print the stack of errors.");
    command.on("option:debug", () => program.setOptionValue("debug", true));
  }
  for (const child of command.commands) inherit(child, program);
}
