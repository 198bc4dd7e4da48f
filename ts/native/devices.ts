/** The devices of this machine, and the one that work goes to. */
import { cpus, freemem, totalmem } from "node:os";
import { fromNative } from "../errors";
import { native } from "./load";

/** Where work is done: "auto" is the first card that can be used, else the CPU; "cuda" that card, "cuda:1" the second one. */
export type DeviceName = "auto" | "cpu" | "cuda" | `cuda:${number}`;

/** Why a device cannot be used. */
export interface DeviceProblem {
  /** A code of `errorCodes`, `ZA_DEVICE_…`. */
  code: string;
  text: string;
  remedy: string;
}

/** A processor or a card. */
export interface Device {
  kind: "cpu" | "cuda";
  /** As options take it: "cpu", "cuda:0". */
  id: string;
  /** As the driver counts cards; 0 for the CPU. */
  index: number;
  name: string;
  /** Of a card: "9.0" is sm_90. */
  computeCapability?: string;
  /** Bytes; what is free only where it was asked for and could be told. */
  memory: { total: number; free?: number };
  /** Of a card: `GPU-…` as nvidia-smi prints it. */
  uuid?: string;
  /** Of a card: its place on the PCI bus. */
  bus?: string;
  usable: boolean;
  /** Why it cannot be used. */
  problem?: DeviceProblem;
}

/** One place where a library was looked for. */
export interface DeviceAttempt {
  library: string;
  /** A file; the library's name alone is the loader's own search. */
  path: string;
  /** Why it was not taken; left out for the one in use. */
  problem?: string;
}

/** What was looked for, where, and what was found. */
export interface DeviceSurvey {
  /** The CPU first, then the cards. */
  devices: Device[];
  /** NVIDIA's driver: its library, the newest CUDA that it can do, its version in the kernel. */
  driver?: { path: string; cuda: string; version?: string };
  /** Libraries of the CUDA toolkit that were found. */
  libraries: { name: string; path: string }[];
  attempts: DeviceAttempt[];
  /** Why no card can be used, whichever it is: what this build lacks, what the machine lacks. */
  problems: DeviceProblem[];
}

/** A card as the core tells it. */
interface NativeCard {
  index: number;
  name: string;
  computeCapability: [number, number];
  memory: number;
  free: number | null;
  uuid: string;
  bus: string;
}

type Nullable<T> = { [Key in keyof T]: T[Key] | null };

/**
 * Looks for NVIDIA's driver, cards and libraries. Never fails for what a machine lacks: that is part of what it gives. Asking
 * a card how much of its memory is free makes a context on it for a moment.
 *
 * @throws ZephyrError `ZA_NATIVE_LOAD` without the addon
 */
export async function devices(): Promise<DeviceSurvey> {
  const found = JSON.parse(await told(() => native().surveyDevices()));
  const cards: (NativeCard & { problem: DeviceProblem | null })[] = found.cards;
  const { driver, libraries, attempts } = found;
  return {
    devices: [cpu(), ...cards.map((card) => ({ ...cardOf(card), ...usability(card.problem) }))],
    ...(driver ? { driver: present(driver) as NonNullable<DeviceSurvey["driver"]> } : {}),
    libraries,
    attempts: attempts.map(present),
    problems: [found.build, found.problem].filter((problem) => problem !== null),
  };
}

/** The device of a model: the CPU, with what kept it from a card when one would have been taken; or a card. */
export type ChosenDevice = Device & { because?: DeviceProblem };

let fallbackIsTold = false;

/**
 * The device for a name. "auto", the default, never fails: that it falls back to the CPU is said once a process, as a warning,
 * where it was asked for by name or the machine seems to have a card.
 *
 * @throws DeviceError `ZA_DEVICE_…` when a card is asked for that cannot be used, with every place that was looked at
 */
export async function chooseDevice(wanted: DeviceName | undefined): Promise<ChosenDevice> {
  const chosen = JSON.parse(await told(() => native().chooseDevice(wanted ?? "auto")));
  if (chosen.kind === "cuda") return { ...cardOf(chosen.card), usable: true };
  const because: DeviceProblem | null = chosen.because;
  if (!because) return cpu();
  if (!fallbackIsTold && (wanted === "auto" || chosen.cardHere)) {
    fallbackIsTold = true;
    const text = `the work is done on the CPU: ${because.text}. ${because.remedy}`;
    process.emitWarning(text, { type: "ZephyrWarning", code: because.code });
  }
  return { ...cpu(), because };
}

async function told(ask: () => Promise<string>): Promise<string> {
  try {
    return await ask();
  } catch (error) {
    throw fromNative(error);
  }
}

function cpu(): Device {
  const name = cpus()[0]?.model.trim() || process.arch;
  return { kind: "cpu", id: "cpu", index: 0, name, memory: { total: totalmem(), free: freemem() }, usable: true };
}

function cardOf({ index, name, computeCapability, memory, free, uuid, bus }: NativeCard): Omit<Device, "usable"> {
  return {
    kind: "cuda",
    id: `cuda:${index}`,
    index,
    name,
    computeCapability: computeCapability.join("."),
    memory: { total: memory, ...(free === null ? {} : { free }) },
    uuid,
    bus,
  };
}

function usability(problem: DeviceProblem | null): Pick<Device, "usable" | "problem"> {
  return problem ? { usable: false, problem } : { usable: true };
}

/** Without what is null. */
function present<T extends object>(record: Nullable<T>): T {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== null)) as T;
}
