/** Preloaded (`node --import`) into a peer's process: writes its peak memory in MiB to $PEAK_MEMORY_FILE when it ends. */
import { writeFileSync } from "node:fs";

process.on("exit", () => writeFileSync(process.env.PEAK_MEMORY_FILE, String(process.resourceUsage().maxRSS / 1024)));
