/** What `doctor` says of NVIDIA's cards: what was looked for, where, what was found and why it is or is not used. */
import { dirname } from "node:path";
import { fromNative } from "../errors";
import type { Device, DeviceAttempt, DeviceSurvey } from "../native/devices";
import type { NativeAddon } from "../native/load";
import type { Finding } from "./doctor";

/** A machine without a card is in order; one whose card cannot be used is worth a warning. */
export async function cudaFindings(survey: DeviceSurvey, addon: NativeAddon): Promise<Finding[]> {
  const { driver, problems } = survey;
  const cards = survey.devices.filter(({ kind }) => kind === "cuda");
  const wanted = driver !== undefined;
  const state = (good: boolean) => (good ? "ok" : wanted ? "warning" : "none");
  const byLibrary = new Map<string, DeviceAttempt[]>();
  for (const attempt of survey.attempts) {
    byLibrary.set(attempt.library, [...(byLibrary.get(attempt.library) ?? []), attempt]);
  }
  const libraries = [...byLibrary].map(([library, attempts]): Finding => {
    const found = attempts.find((attempt) => attempt.problem === undefined);
    const versions = [driver?.version, driver && `CUDA ${driver.cuda}`].filter((part) => part !== undefined);
    const more = found?.path === driver?.path && found ? ` (${versions.join(", ")})` : "";
    const text = found ? `${library}${more}: ${found.path}` : `${library} was not found`;
    return {
      name: "cuda library",
      state: state(found !== undefined),
      text: [text, ...passedOver(attempts)].join("\n"),
    };
  });
  const usable = cards.some((card) => card.usable);
  const hindrances = problems.map(
    ({ text, remedy }): Finding => ({ name: "cuda", state: state(false), text, ...(wanted ? { remedy } : {}) }),
  );
  const place = usable ? "a card, where none is named" : "the CPU";
  return [
    ...libraries,
    ...cards.map((card): Finding => ({ name: "card", state: state(card.usable), ...cardText(card) })),
    ...(await Promise.all(cards.map(({ index }) => checkKernels(index, addon)))).flat(),
    ...hindrances,
    { name: "device", state: "ok", text: `work is done on ${place}` },
  ];
}

/** Lines of what was not taken: each file that is there, then all folders that have nothing. */
function passedOver(attempts: readonly DeviceAttempt[]): string[] {
  const missing = attempts.filter(({ problem }) => problem === "no such file");
  const refused = attempts.filter(({ problem }) => problem !== undefined && problem !== "no such file");
  const folders = missing.map(({ path }) => (path.includes("/") ? dirname(path) : "the loader's own search"));
  return [
    ...refused.map(({ path, problem }) => `passed over ${path}: ${problem}`),
    ...(folders.length > 0 ? [`not in ${folders.join(", ")}`] : []),
  ];
}

/** Whether the card's driver takes the kernels of this build. */
async function checkKernels(card: number, addon: NativeAddon): Promise<Finding[]> {
  if (!addon.nativeInfo().cuda) return [];
  try {
    const sources = await addon.loadKernels(card);
    return [{ name: "kernels", state: "ok", text: `cuda:${card} takes the kernels of all ${sources} sources` }];
  } catch (error) {
    const { problem, remedy } = fromNative(error);
    return [{ name: "kernels", state: "warning", text: problem, ...(remedy === undefined ? {} : { remedy }) }];
  }
}

function cardText(card: Device): Pick<Finding, "text" | "remedy"> {
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const { total, free } = card.memory;
  const memory = free === undefined ? gib(total) : `${gib(free)} free of ${gib(total)}`;
  const facts = `${card.id} ${card.name}, sm_${card.computeCapability?.replace(".", "")}, ${memory}, ${card.uuid}`;
  const { problem } = card;
  return problem ? { text: `${facts}\nnot used: ${problem.text}`, remedy: problem.remedy } : { text: facts };
}
