import { defineConfig } from "tsup";

export default defineConfig({
  entry: { index: "ts/index.ts", cli: "ts/cli/main.ts" },
  format: "esm",
  target: "node20",
  platform: "node",
  dts: { entry: { index: "ts/index.ts" } },
  splitting: true,
  clean: true,
});
